"""What the role makes of a service's description and config: when it restarts it, what it refuses, what it never shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.molecule import lab
from tests.molecule.plugin import Run

CONFIG = "/etc/mobula/storage.json"
KEY = "/etc/mobula/secrets/capability-1.key"
NOTE = "/run/mobula/storage.started"
UNIT = "mobula-storage"


def process(machine: Host) -> str:
    """The service's main process; another one after a restart."""
    return machine.check_output(f"systemctl show --property=MainPID --value {UNIT}")


def status(machine: Host) -> dict[str, Any]:
    """What the service says of itself."""
    found: dict[str, Any] = json.loads(machine.check_output("curl -sS --max-time 5 http://127.0.0.1:8060/status"))
    return found


@pytest.fixture
def config(machine: Host) -> dict[str, Any]:
    """The config as converged."""
    found: dict[str, Any] = json.loads(machine.check_output(f"cat {CONFIG}"))
    return found


@pytest.fixture
def mended(converge: Callable[..., Run]) -> Iterator[None]:
    """After the test the role is run as it stands in the scenario."""
    yield
    assert converge().outcome.failures == ()


def test_the_service_runs_is_enabled_and_well(machine: Host) -> None:
    unit = machine.service(UNIT)
    assert (unit.is_running, unit.is_enabled) == (True, True), machine.check_output(f"journalctl -n 20 -u {UNIT}")
    assert status(machine)["healthy"] is True


def test_files_belong_to_whom_they_should(machine: Host) -> None:
    for path, user, group, mode in (
        (CONFIG, "root", "mobula", 0o640),
        (KEY, "mobula", "mobula", 0o600),
        ("/var/lib/mobula/objects", "mobula", "mobula", 0o750),
        (f"/etc/systemd/system/{UNIT}.service", "root", "root", 0o644),
    ):
        file = machine.file(path)
        assert (file.user, file.group, file.mode) == (user, group, mode), path


def test_a_config_changed_by_hand_is_put_right_and_the_service_restarted_once(
    machine: Host, converge: Callable[..., Run], config: dict[str, Any]
) -> None:
    before = process(machine)
    machine.check_output(f"echo >>{CONFIG}")
    # Nobody has started it since: it still runs what is wanted, and so is left alone.
    assert converge().changes == [CONFIG]
    assert process(machine) == before
    machine.check_output(f"echo >>{CONFIG} && systemctl restart {UNIT}")
    by_hand = process(machine)
    assert converge().changes == [CONFIG, f"{UNIT} restarted"]
    assert process(machine) != by_hand
    assert json.loads(machine.check_output(f"cat {CONFIG}")) == config


def test_a_run_that_ended_between_the_file_and_the_restart_is_made_good(
    machine: Host, converge: Callable[..., Run], config: dict[str, Any], mended: None
) -> None:
    """Level, not edge: the file is as wanted before the run, and only what the service was started with says that it is not done."""
    wanted = {**config, "fill_max": 0.5}
    text = json.dumps(wanted, indent=1, sort_keys=True)
    machine.check_output(f"printf '%s\\n' '{text}' >{CONFIG}")
    assert converge(service_configs={"storage": wanted}).changes == [f"{UNIT} restarted"]
    assert converge(service_configs={"storage": wanted}).changes == []


def test_a_service_that_was_stopped_or_disabled_by_hand_comes_back(machine: Host, converge: Callable[..., Run]) -> None:
    machine.check_output(f"systemctl disable --quiet --now {UNIT}")
    assert converge().changes == [f"{UNIT} enabled", f"{UNIT} started"]
    assert status(machine)["healthy"] is True


def test_check_and_diff_show_a_change_and_make_none(
    machine: Host, converge: Callable[..., Run], config: dict[str, Any]
) -> None:
    before = (process(machine), machine.check_output(f"stat {CONFIG}; cat {CONFIG}"))
    changed = {"storage": {**config, "fill_max": 0.5}}
    said = converge("--check", "--diff", plain=True, service_configs=changed).text
    assert f"+++ after: {CONFIG}" in said
    assert '+ "fill_max": 0.5' in said
    assert "changed=1 " in said
    assert (process(machine), machine.check_output(f"stat {CONFIG}; cat {CONFIG}")) == before


def test_check_mode_foretells_the_restart(converge: Callable[..., Run], config: dict[str, Any]) -> None:
    changed = {"storage": {**config, "fill_max": 0.5}}
    assert converge("--check", service_configs=changed).changes == [CONFIG, f"{UNIT} restarted"]


def test_an_unknown_service_is_refused(converge: Callable[..., Run], machine: Host) -> None:
    before = process(machine)
    refusal = converge(service_names=["storage", "nonsense"]).refusal
    assert "bundle service 'nonsense': templates/services/ has no such description" in refusal
    assert process(machine) == before


def test_a_config_that_the_service_rejects_is_named_by_its_own_last_words(
    machine: Host, converge: Callable[..., Run], config: dict[str, Any], mended: None
) -> None:
    refusal = converge(service_configs={"storage": {**config, "prot": 8060}}).refusal
    assert refusal.startswith(f"start {UNIT}: ")
    assert "it last said: " in refusal
    assert "`prot`" in refusal


def test_no_secret_is_shown_nor_told_to_the_journal(machine: Host, converge: Callable[..., Run]) -> None:
    secret = (lab.region().secrets / "capability-1.key").read_text().strip()
    for options in (("--check", "--diff", "-vvv"), ("--diff", "-vvv")):
        machine.check_output(f"echo another-key >{KEY}")
        said = converge(*options, plain=True).text
        assert "(another secret)" in said
        assert secret not in said
        assert "another-key" not in said
    assert machine.check_output(f"cat {KEY}") == secret
    journal = machine.check_output("journalctl --no-pager --output=cat")
    assert UNIT in journal
    assert secret not in journal
    assert "PRIVATE KEY" not in journal
