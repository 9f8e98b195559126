"""What holds for every role, on a machine that it has brought to its state."""

from __future__ import annotations

from collections.abc import Callable

from testinfra.host import Host

from tests.molecule.plugin import Run

FOLDERS = "/etc /opt/mobula/current/ /run/mobula /var/lib/mobula"


def fingerprint(machine: Host) -> list[str]:
    """Every file that a role could touch, and since when each of our units runs."""
    files: str = machine.check_output(f"find {FOLDERS} -printf '%p %y %m %u %g %s %C@ %l\\n' 2>/dev/null || true")
    units: str = machine.check_output(
        "systemctl show 'mobula-*' --property=Id,UnitFileState,ActiveEnterTimestampMonotonic"
    )
    return sorted(files.splitlines()) + units.splitlines()


def test_check_mode_on_a_converged_machine_changes_nothing_and_touches_nothing(
    machine: Host, converge: Callable[..., Run]
) -> None:
    before = fingerprint(machine)
    assert len(before) > 100
    run = converge("--check", "--diff")
    assert (run.outcome.recap.changed, run.outcome.failures) == (0, ()), run.text
    assert fingerprint(machine) == before
