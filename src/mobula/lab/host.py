"""The machine under the lab: the settings that a region needs changed, and the way back to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from mobula.lab import door, machines, network

SYSCTLS = {"fs/inotify/max_user_instances": 1024}
"""each machine's systemd takes some; 33 machines used 99 of the default 128"""


def ensure_sysctls(parent: Path) -> None:
    """Raise what must be raised, and note in `parent` (of all regions' states) what it was."""
    noted = parent / "sysctl.json"
    before = json.loads(noted.read_text()) if noted.exists() else {}
    for name, wanted in SYSCTLS.items():
        path = Path("/proc/sys") / name
        value = int(path.read_text())
        if value < wanted:
            before.setdefault(name, value)
            noted.write_text(json.dumps(before))  # noted first: a crash between the two must not lose the old value
            path.write_text(str(wanted))


def restore_sysctls(parent: Path) -> None:
    """Put back what was noted, once no region has machines any more."""
    noted = parent / "sysctl.json"
    if noted.exists() and not any(parent.glob("*/machines")):
        for name, value in json.loads(noted.read_text()).items():
            (Path("/proc/sys") / name).write_text(str(value))
        noted.unlink()


def teardown(region: str, cidr: str, state_dir: Path, progress: Callable[[str], None]) -> None:
    """Remove everything of a region from this machine, by looking at what is there. Other regions are left alone."""
    door.close_door(region)
    door.end_agent(state_dir)
    _end_masters(state_dir)
    killed = _kill_cgroups(region)
    progress(f"{killed} machines stopped")
    mounts = _unmount_below(state_dir)
    names = network.remove_namespaces(f"{region}-")
    progress(f"{mounts} mounts and {len(names)} network namespaces removed")
    if cidr in network.run(["ip", "route", "show", "type", "blackhole"]):
        network.run(["ip", "route", "del", "blackhole", cidr])
    shutil.rmtree(state_dir, ignore_errors=True)
    restore_sysctls(state_dir.parent)


def _kill_cgroups(region: str) -> int:
    hybrid = machines.is_hybrid()
    top = machines.CGROUP / "unified" / f"mobula-{region}" if hybrid else machines.CGROUP / machines.slice_of(region)
    count = len([p for p in top.iterdir() if p.is_dir()]) if top.exists() else 0
    machines.kill_cgroup(top, 20, f"end the processes of region {region!r}")
    if hybrid:
        for group in machines.groups_of(region):
            if group.exists():
                # v1 groups stay busy for a moment after their last process has gone.
                network.wait_until(lambda g=group: _removed(g), 10, f"remove cgroup {str(group)!r}")  # type: ignore[misc]
    else:
        # Its services go with it; waits for all of them.
        subprocess.run(["systemctl", "stop", machines.slice_of(region)], check=False, capture_output=True)
    machines.forget_nspawn(f"{region}-*")
    return count


def _removed(group: Path) -> bool:
    machines.remove_cgroup(group)
    return not group.exists()


def _unmount_below(state_dir: Path) -> int:
    targets = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    ours = [t for t in targets if t.startswith(f"{state_dir}/")]
    for target in reversed(ours):
        network.run(["umount", "--lazy", target])
    return len(ours)


def _end_masters(state_dir: Path) -> None:
    """SSH connections that Ansible keeps open, and whatever else of ours still runs with the state folder in its arguments."""
    marker = f"{state_dir}/run/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if marker in command and command.startswith((b"ssh:", b"ssh\0")):
                    os.kill(int(entry.name), signal.SIGTERM)
