"""tests/run molecule ROLE [ACTION]: run a role's scenario.

`test`, the default, starts from nothing and leaves nothing, however it ends. Molecule's other actions (`converge`, `verify`, ...) keep
the machine until `destroy`; `ssh` is a shell on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mobula.lab.network import LabError
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import REPO, lock
from ops.remote import SshRemote
from tests.molecule import lab

CONFIG = Path(__file__).with_name("config.yml")


def run(role: str, action: str, progress: Progress) -> int:
    """Molecule's exit code; also 1 if `test` or `destroy` left anything."""
    with lock(lab.region(), f"test role {role} in"):
        if action == "test":
            clean()
        try:
            with progress.step("the region's layout, secrets and release"):
                found = lab.prepare(progress)
            code = molecule(role, action, lab.environment(found))
        finally:
            if action in ("test", "destroy"):
                clean()
    left = lab.left() if action in ("test", "destroy") else []
    for line in left:
        progress(f"left behind: {line}")
    return code or int(bool(left))


def molecule(role: str, action: str, environment: Mapping[str, str]) -> int:
    """Its exit code. It and all that it started end with us: a `destroy` that is left over could meet the next run's machines."""
    argv = ["setpriv", "--pdeathsig=KILL", "molecule", f"--base-config={CONFIG}", action]
    with subprocess.Popen(argv, cwd=REPO / "roles" / role, env=environment, process_group=0) as process:
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def shell() -> int:
    """A shell on the machine that stands."""
    region = lab.region()
    standing = sorted(path.name for path in (lab.STATE_DIR / "machines").glob("*"))
    if not standing:
        raise OperatorError("open a shell on the scenario's machine: there is none; run `converge` first")
    return subprocess.run(
        SshRemote(region, region.hosts[standing[0]].address).interactive_argv([]), check=False
    ).returncode


def clean() -> None:
    """Remove the machines and molecule's notes, also those of a run that crashed."""
    lab.remove()
    shutil.rmtree(lab.EPHEMERAL, ignore_errors=True)


def main() -> None:
    known = sorted(path.parent.parent.name for path in REPO.glob("roles/*/molecule/default"))
    role, action = ([*sys.argv[1:], *("", "test")[len(sys.argv) - 1 :]])[:2]
    if role not in known:
        sys.exit(f"test role {role!r}: it has no scenario; name one of {', '.join(known)}")
    # So that `timeout` and Ctrl-C end it in order, machines and all.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        sys.exit(shell() if action == "ssh" else run(role, action, Progress()))
    except (OperatorError, LabError) as error:
        sys.exit(str(error))
    finally:
        with contextlib.suppress(OSError):
            lab.STATE.rmdir()  # unless there is something in it: machines that stay, another run


if __name__ == "__main__":
    main()
