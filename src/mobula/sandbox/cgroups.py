"""Limits of a sandbox, by the kernel's control groups: version 1 or 2, as the host has them."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
KINDS = ("memory", "pids")
"""of version 1"""


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    processes: int


def remove_all(parent: str, root: Path = ROOT) -> bool:
    """Remove a parent with what is left below it; whether all of it is gone. Raises OSError."""
    found = [above for above in (root / parent, *(root / kind / parent for kind in KINDS)) if above.is_dir()]
    groups = [Group(parent, folder.name, root) for above in found for folder in above.iterdir() if folder.is_dir()]
    if [group for group in groups if not group.remove()]:
        return False
    for above in found:
        with contextlib.suppress(FileNotFoundError):
            above.rmdir()
    return True


class Group:
    """The control groups of one sandbox: made by `make`, empty and gone after `remove`."""

    def __init__(self, parent: str, name: str, root: Path = ROOT) -> None:
        self._unified = (root / "cgroup.controllers").exists()
        if self._unified:
            self._memory = self._processes = root / parent / name
        else:
            self._memory, self._processes = (root / kind / parent / name for kind in KINDS)

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys([self._memory, self._processes]))

    @property
    def doors(self) -> list[Path]:
        """A process that writes itself to each of these is in."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def make(self, limits: Limits) -> None:
        """Raises OSError."""
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        memory = "memory.max" if self._unified else "memory.limit_in_bytes"
        (self._memory / memory).write_text(str(limits.memory_bytes))
        (self._processes / "pids.max").write_text(str(limits.processes))

    def out_of_memory(self) -> int:
        """How often a process in it was killed because its memory had come to the limit."""
        name = "memory.events" if self._unified else "memory.oom_control"
        for line in (self._memory / name).read_text().splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
        return 0

    def processes(self) -> int:
        """How many there are in it."""
        return len((self._processes / "cgroup.procs").read_text().split())

    def remove(self) -> bool:
        """Whether all of it is gone; not while the kernel still has a process of it to bury."""
        for folder in self.folders:
            with contextlib.suppress(FileNotFoundError):
                try:
                    folder.rmdir()
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    return False
        return True
