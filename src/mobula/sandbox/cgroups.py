"""Limits and shares of sandboxes, by the kernel's control groups: version 1 or 2, as the host has them.

    <parent>            all sandboxes of the host: they have of the processors what nobody else wants
    <parent>/<share>    of one job: all of these weigh the same, however many processes they have
    <parent>/<share>/n  one sandbox: bounds of memory and of processes

Memory and processes are bounded, or there is no sandbox. Without shares of the processors tasks run all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MOUNTS = Path("/proc/self/mountinfo")
BOUNDS = ("memory", "pids")
CPU = "cpu"
KINDS = (*BOUNDS, CPU)
IDLE = "cpu.idle"
"""who is in such a group makes room at once for whoever wakes up outside of it; since Linux 5.15"""


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    processes: int


def prepare(parent: str, root: Path = ROOT) -> str:
    """Make the groups above those of the sandboxes. Answers why there are no shares of the processors; "": there are.

    Raises:
        OSError: memory and processes can't be bounded.
    """
    unified = _is_unified(root)
    for above in _above(parent, BOUNDS, root):
        above.mkdir(exist_ok=True)
    if unified:
        for folder in (root, root / parent):
            for kind in BOUNDS:
                _switch_on(folder, kind)
    try:
        if unified:
            _switch_on(root, CPU)
            _write(root / parent / IDLE, 1)
            _switch_on(root / parent, CPU)
        else:
            (root / CPU / parent).mkdir(exist_ok=True)
            _write(root / CPU / parent / IDLE, 1)
    except OSError as error:
        if not unified:
            with contextlib.suppress(OSError):
                (root / CPU / parent).rmdir()
        return f"the kernel's controller {CPU!r} can't be used: {error}"
    return ""


def remove_all(parent: str, root: Path = ROOT) -> bool:
    """Remove a parent with what is left below it; whether all of it is gone. One that somebody has mounted stays, empty. Raises OSError."""
    for above in _above(parent, KINDS, root):
        for folder in (Path(path) for path, _, _ in os.walk(above, topdown=False)):
            if not (folder == above and _is_mount(above)) and not _remove(folder):
                return False
    return True


def _is_unified(root: Path) -> bool:
    return (root / "cgroup.controllers").exists()


def _above(parent: str, kinds: tuple[str, ...], root: Path) -> list[Path]:
    """The folders of that name: one in version 2, one for each controller in version 1."""
    return [root / parent] if _is_unified(root) else [root / kind / parent for kind in kinds]


def _is_mount(folder: Path) -> bool:
    """Also of its own file system elsewhere, which `Path.is_mount` takes for none."""
    return any(line.split(" ")[4] == str(folder) for line in MOUNTS.read_text(errors="surrogateescape").splitlines())


def _write(path: Path, value: object) -> None:
    """Into a file that the kernel has made: where there is none, nothing is bounded by making one."""
    with path.open("r+") as file:
        file.write(str(value))


def _switch_on(folder: Path, kind: str) -> None:
    """Version 2: what is below may have bounds of that kind."""
    _write(folder / "cgroup.subtree_control", f"+{kind}")


def _remove(folder: Path) -> bool:
    """Whether it is gone; not while something is in it, or the kernel still has a process of it to bury. Raises OSError."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class Group:
    """The control groups of one sandbox, below a parent that was prepared: made by `make`, empty and gone after `remove`."""

    def __init__(self, parent: str, name: str, share: str = "", root: Path = ROOT) -> None:
        self._unified = _is_unified(root)
        self._share = bool(share)
        above = {kind: root / parent if self._unified else root / kind / parent for kind in KINDS}
        wanted = KINDS if above[CPU].is_dir() else BOUNDS
        self._folders = {kind: above[kind] / share / name for kind in wanted}

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    @property
    def doors(self) -> list[Path]:
        """A process that writes itself to each of these is in."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def make(self, limits: Limits) -> None:
        """Raises OSError."""
        for folder in self.folders:
            if self._share:
                self._make_share(folder.parent)
            folder.mkdir(exist_ok=True)
        memory = "memory.max" if self._unified else "memory.limit_in_bytes"
        _write(self._folders["memory"] / memory, limits.memory_bytes)
        _write(self._folders["pids"] / "pids.max", limits.processes)

    def _make_share(self, folder: Path) -> None:
        """Of the usual weight, like any other."""
        folder.mkdir(exist_ok=True)
        if self._unified:
            for kind in (folder.parent / "cgroup.subtree_control").read_text().split():
                _switch_on(folder, kind)

    def out_of_memory(self) -> int:
        """How often a process in it was killed because its memory had come to the limit."""
        name = "memory.events" if self._unified else "memory.oom_control"
        for line in (self._folders["memory"] / name).read_text().splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
        return 0

    def processes(self) -> int:
        """How many there are in it."""
        return len((self._folders["pids"] / "cgroup.procs").read_text().split())

    def remove(self) -> bool:
        """Whether all of it is gone; not while the kernel still has a process of it to bury. With the last of a share that goes, too."""
        if [folder for folder in self.folders if not _remove(folder)]:
            return False
        if self._share:
            for folder in self.folders:
                _remove(folder.parent)
        return True
