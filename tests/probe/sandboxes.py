"""Real sandboxes on this machine, with the base image as what they see."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jinja2

from mobula.sandbox import cgroups, sandbox
from mobula.sandbox.cgroups import KINDS, ROOT, Group, Limits
from mobula.sandbox.sandbox import Command, Ended, Sandbox, Slot
from ops.region import REPO
from ops.task_image import TaskImage
from tests.probe import machine

PARENT = f"mobula-probe-{os.getpid()}"
ENVIRONMENT = {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
SMALL = Limits(64 << 20, 64)
DISK_BYTES = 256 << 20
_numbers = itertools.count()


class Said(NamedTuple):
    """A task's end, and what it said."""

    ended: Ended
    out: str
    err: str

    @property
    def exit_code(self) -> int:
        """Negative: a signal."""
        return os.waitstatus_to_exitcode(self.ended.status & ~0x80)


@functools.cache
def program() -> Path:
    """`sandbox-init`, compiled from this clone's source, with every warning an error."""
    source = Path(sandbox.__file__).with_name("init.c")
    folder = Path(tempfile.mkdtemp(prefix="mobula-probe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    into = folder / "sandbox-init"
    argv = ["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-o", str(into), str(source)]
    subprocess.run(argv, check=True)
    return into


@contextmanager
def volumes(at: Path, disk_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A mounted file system with quotas, made by what a storage host makes it with; gone afterwards."""
    disk, mounted, script = at / "tasks.btrfs", at / "tasks", at / "before-start"
    mounted.mkdir()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(REPO / "roles" / "compute" / "templates"),
        autoescape=False,  # noqa: S701 (a shell script)
    )
    values = {"compute_disk": disk, "compute_folder": mounted, "compute_disk_bytes": disk_bytes}
    script.write_text(environment.get_template("before-start.j2").render(values))
    try:
        for _ in range(2):  # as often as the agent starts
            subprocess.run(["sh", str(script)], check=True, stdout=subprocess.DEVNULL)
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@asynccontextmanager
async def running(
    at: Path, limits: Limits = SMALL, files: Mapping[str, str] = {}, image: TaskImage | None = None, share: str = ""
) -> AsyncIterator[Sandbox]:
    """A sandbox, with some files laid into it; gone afterwards, and with it every trace. Without `image` it sees the base image."""
    no_shares = cgroups.prepare(PARENT)
    assert not no_shares, no_shares
    number = next(_numbers)
    root, init = image or (machine.root(), program())
    slot = Slot(number % 64, root)
    made = Sandbox(slot, at / f"sandbox{number}", Group(PARENT, str(number), share), at / f"accounting{number}")
    try:
        made.prepare()
        for name, text in files.items():
            path = made.files / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        await made.start(init, limits)
        yield made
    finally:
        try:
            await made.close()
        finally:
            slot.close()
            remove_parent()


def remove_parent() -> None:
    """The control groups above those of the sandboxes, once these are gone."""
    for folder in {ROOT / PARENT, *(ROOT / kind / PARENT for kind in KINDS)}:
        with suppress(OSError):
            folder.rmdir()


async def sh(box: Sandbox, script: str, *, given: Path | None = None, place: str = "", pipe: int | None = None) -> Said:
    """Run a script, on an object or on a pipe."""
    out, err = (box.output() for _ in range(2))
    try:
        ended = await box.run(Command(script, ENVIRONMENT, given, place, pipe), out, err)
        return Said(ended, *(os.pread(fd, 1 << 20, 0).decode(errors="replace") for fd in (out, err)))
    finally:
        os.close(out)
        os.close(err)
