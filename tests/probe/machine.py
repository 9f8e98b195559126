"""Real servers out of the base image, on this machine: each in a mount and process namespace of its own, gone with its test.

The image is mounted read-only. What a server writes lies in a temporary folder that is mounted at `/mnt/probe`; killing the
namespace's first process (the server itself) ends everything in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops import image, task_image

BOUND_S = 30.0
POLL_S = 0.05
INSIDE = Path("/mnt/probe")

_ENTER = """
set -eu
root=$1 folder=$2 user=$3
shift 3
mount --make-rprivate /
mount --rbind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/mnt"
mkdir "$root/mnt/probe"
mount --bind "$folder" "$root/mnt/probe"
exec chroot "$root" setpriv --pdeathsig=SIGKILL --reuid="$user" --regid="$user" --clear-groups "$@"
"""


class ProbeError(Exception):
    """A server did not get to the state that a test waits for."""


def root() -> Path:
    """The base image's root; skips the test where there is none or we may not use it."""
    cache = Path(os.environ.get("MOBULA_CACHE", "/var/cache/mobula"))
    if os.geteuid() != 0:
        pytest.skip("real servers need root: namespaces and chroot")
    found = image.root_of(cache)
    if not found.is_dir():
        pytest.skip("the base image is not built on this machine; `make up` builds it")
    return found


def task_image_here() -> task_image.TaskImage:
    """The task image; skips the test where there is none or we may not use it."""
    root()
    found = task_image.wanted(Path(os.environ.get("MOBULA_CACHE", "/var/cache/mobula")))
    if not found.root.is_dir():
        pytest.skip("the task image is not built on this machine")
    return found


@contextmanager
def folder(at: Path | None = None) -> Iterator[Path]:
    """A temporary folder that any user may enter, short enough for socket names; `at` is not the usual place for such."""
    path = Path(tempfile.mkdtemp(prefix="mobula-probe-", dir=at))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def user_id(name: str, tree: Path | None = None) -> int:
    """Number of one of the users of the image, or of another `tree`."""
    for line in ((tree or root()) / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise ProbeError(f"look up user {name!r}: the image's /etc/passwd doesn't have it")


def free_port() -> int:
    """A port of 127.0.0.1 that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until[T](what: str, look: Callable[[], T | None], bound_s: float = BOUND_S) -> T:
    """What `look` finds, as soon as that is something.

    Raises:
        ProbeError: nothing within the bound.
    """
    end = time.monotonic() + bound_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(POLL_S)
    raise ProbeError(f"wait for {what}: not within {bound_s:.0f} s")


class Process:
    """A program of the image, or of another `tree`; `folder` is its `/mnt/probe`. Its output goes to ``<folder>/<log>``."""

    def __init__(
        self,
        folder: Path,
        user: int,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        tree: Path | None = None,
        log: str = "log",
    ) -> None:
        self._log = (folder / log).open("ab")
        self._unshare = subprocess.Popen(
            ["setpriv", "--pdeathsig=SIGKILL", "unshare", "--mount", "--pid", "--fork", "sh", "-c", _ENTER, "enter",
             str(tree or root()), str(folder), str(user), *argv],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Signal the program itself (the namespace's first process); raises OSError when it has ended."""
        unshare = self._unshare.pid
        for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
            os.kill(int(child), number)

    def processes(self) -> list[int]:
        """Every process of the program's namespace, as this machine numbers them."""
        unshare, found = self._unshare.pid, []
        first = int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0])
        namespace = Path(f"/proc/{first}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace:
                    found.append(int(entry.name))
        return found

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every process of the program's namespace."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        return self._unshare.pid

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._unshare.poll() is None

    def wait(self, bound_s: float = BOUND_S) -> int:
        """Its exit code; raises subprocess.TimeoutExpired."""
        return self._unshare.wait(bound_s)

    def kill(self) -> None:
        """End it and all that it started, at once; harmless when it has ended."""
        # unshare's own --kill-child is lost when the program changes its user.
        with contextlib.suppress(OSError):
            self.signal(signal.SIGKILL)
        self._unshare.wait(BOUND_S)
        self._log.close()
