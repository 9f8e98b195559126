"""One sandbox and its tasks, from outside: starts `sandbox-init` (init.c), hands it commands, and leaves nothing when it is closed."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobula.sandbox.accounting import cores
from mobula.sandbox.cgroups import Group, Limits
from mobula.sandbox.mounts import Attribute, detached, filesystem

IDS = 65_536
FIRST_ID = 1_000_000
REPLY_BYTES = 1024
GONE_S = 5.0
REMOVE_AGAIN_S = 0.002
HOST_NAME = "task"
OUTPUTS = "outputs"
OUT_OF_MEMORY_FIRST = "1000"
"""when the host itself has no memory left, a task ends before any of its services (proc(5), oom_score_adj). Where the agent lacks
CAP_SYS_RESOURCE a task may take that back, down to what everybody else has"""
_CLONE_NEWNET = 0x40000000


class SandboxError(Exception):
    """The sandbox could not be made, or is broken: no task of it counts."""


class TaskNotStarted(SandboxError):
    """A task could not be begun; the sandbox lives."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended; `status` as wait(2) has it."""

    status: int
    user_us: int
    system_us: int
    peak_kib: int
    out_of_memory: bool
    cores: tuple[str, ...]
    """programs that dumped core"""


@dataclass(frozen=True, slots=True)
class Command:
    """What a task runs. Of `object` (a path here, `place` in there) and `pipe` at most one is its standard input."""

    script: str
    environment: Mapping[str, str]
    object: Path | None = None
    place: str = ""
    pipe: int | None = None


class Slot:
    """A range of user ids, and the image with owners in that range: made once, used by one sandbox after the other."""

    def __init__(self, number: int, image: Path) -> None:
        self.number = number
        self.first_id = FIRST_ID + number * IDS
        self._user_namespace = _user_namespace(self.first_id)
        try:
            self.image = detached(image, Attribute.READ_ONLY, self._user_namespace)
        except OSError:
            os.close(self._user_namespace)
            raise

    def close(self) -> None:
        os.close(self.image)
        os.close(self._user_namespace)


def _user_namespace(first_id: int) -> int:
    """A descriptor of a user namespace in which 0.. are the ids `first_id`.. of here."""
    argv = ["unshare", "--user", "sh", "-c", "echo; read _"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101 (both are pipes)
        assert process.stdout is not None  # noqa: S101
        process.stdout.readline()  # it is in there
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {first_id} {IDS}")
        found = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        process.stdin.close()
    return found


class Sandbox:
    """Begun by `start`; runs a task at a time; ended by `close`, whatever became of it.

    `folder` is on a file system that bounds what is written to it: below it lie what the tasks write, and their outputs.
    """

    def __init__(self, slot: Slot, folder: Path, group: Group, accounting: Path) -> None:
        self._slot = slot
        self._folder = folder
        self._group = group
        self._accounting = accounting
        self._counted_bytes = 0
        self._control: socket.socket | None = None
        self._pid = 0
        self._watch = -1

    @property
    def processes(self) -> int:
        """How many there are in it; one while no task runs."""
        return self._group.processes()

    @property
    def files(self) -> Path:
        """What is laid here before `start` is there in the sandbox, at the same path below /."""
        return self._folder / "upper"

    def output(self) -> int:
        """A descriptor of a nameless file within the sandbox's bounds, for what a task says. Raises OSError: the bounds are reached.

        It is always written at its end: `echo >> /dev/stdout` opens it anew, and what follows must not overwrite that.
        """
        fd = os.open(self._folder / OUTPUTS, os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchown(fd, self._slot.first_id, self._slot.first_id)  # or `echo > /dev/stderr` would be refused
        return fd

    def prepare(self) -> None:
        """The folders that it needs. Raises OSError."""
        for path in (self.files, self._folder / "work", self._folder / OUTPUTS):
            path.mkdir(parents=True, exist_ok=True)
        os.chown(self.files, self._slot.first_id, self._slot.first_id)
        self.files.chmod(0o755)

    async def start(self, program: Path, limits: Limits) -> None:
        """Make it. Raises SandboxError, OSError: close it all the same."""
        self._group.make(limits)
        self._accounting.touch()
        root = filesystem("overlay", {
            "lowerdir": f"/proc/self/fd/{self._slot.image}", "upperdir": str(self.files), "workdir": str(self._folder / "work"),
        })  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = ours
        try:
            argv = [
                str(program), str(theirs.fileno()), str(root), str(self._slot.first_id), HOST_NAME, str(self._accounting),
                *map(str, self._group.doors),
            ]  # fmt: skip
            launcher = await asyncio.create_subprocess_exec(
                *argv, pass_fds=[theirs.fileno(), root], stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()
            os.close(root)
        while (word := await self._hear()) != b"U":
            if not word.startswith(b"P "):
                raise SandboxError(f"make a sandbox: {_why(word)}")
            self._pid = int(word[2:])
            self._watch = os.pidfd_open(self._pid)
            Path(f"/proc/{self._pid}/oom_score_adj").write_text(OUT_OF_MEMORY_FIRST)  # noqa: ASYNC240 (the kernel's)
        await launcher.wait()

    @property
    def _agent_end(self) -> socket.socket:
        if self._control is None:
            raise SandboxError("ask a sandbox: it was not started")
        return self._control

    async def _hear(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._agent_end, REPLY_BYTES)

    async def run(self, command: Command, out: int, err: int) -> Ended:
        """Run a task to its end, its standard output and error to these descriptors (`output`).

        Raises:
            TaskNotStarted: it could not be begun.
            SandboxError: the sandbox broke.
        """
        killed_before = self._group.out_of_memory()
        given = [out, err]
        mount = None
        if command.object is not None:
            mount = self._object(command.object)
            given.append(mount)
        elif command.pipe is not None:
            given.append(command.pipe)
        try:
            self._ask(command, given)
        finally:
            if mount is not None:
                os.close(mount)
        word = await self._hear()
        if not word.startswith(b"D "):
            raise SandboxError(f"run a task: {_why(word)}")
        status, user_us, system_us, peak_kib, why = word[2:].split(b" ", 4)
        if why:
            raise TaskNotStarted(f"begin a task: {_why(why)}")
        out_of_memory = self._group.out_of_memory() > killed_before
        return Ended(int(status), int(user_us), int(system_us), int(peak_kib), out_of_memory, self._cores())

    def _object(self, path: Path) -> int:
        return detached(path, Attribute.READ_ONLY | Attribute.NO_SETUID | Attribute.NO_DEVICES)

    def _ask(self, command: Command, given: Sequence[int]) -> None:
        words = ["R", f"c{command.script}", *(f"e{name}={value}" for name, value in command.environment.items())]
        if command.object is not None:
            words.append(f"n{command.place}")
        elif command.pipe is not None:
            words.append("i")
        if any("\0" in word for word in words):
            raise TaskNotStarted("begin a task: its command or its environment has a NUL character")
        message = b"".join(os.fsencode(word) + b"\0" for word in words)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))]
        try:
            self._agent_end.sendmsg([message], rights)
        except OSError as error:
            kind = TaskNotStarted if error.errno == errno.EMSGSIZE else SandboxError
            raise kind(f"begin a task: {error}") from error

    def _cores(self) -> tuple[str, ...]:
        with self._accounting.open("rb") as file:
            file.seek(self._counted_bytes)
            records = file.read()
        self._counted_bytes += len(records)
        return tuple(cores(records))

    def kill(self) -> None:
        """End the task that runs, with all that it has started; nothing, where there is none any more."""
        with contextlib.suppress(OSError):  # the sandbox itself has ended
            self._agent_end.send(b"K")

    def listen(self, port: int) -> list[socket.socket]:
        """Sockets that accept connections to localhost in there. Raises OSError."""
        found: list[socket.socket] = []
        failed: list[OSError] = []

        def visit() -> None:
            # A thread of its own, as it stays in the other network namespace.
            try:
                with Path(f"/proc/{self._pid}/ns/net").open("rb") as namespace:
                    os.setns(namespace.fileno(), _CLONE_NEWNET)
                for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                    one = socket.socket(family, socket.SOCK_STREAM)
                    found.append(one)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind((address, port))
                    one.listen(64)
                    one.setblocking(False)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
        if failed:
            for one in found:
                one.close()
            raise failed[0]
        return found

    async def close(self) -> None:
        """End everything in it, and remove what there was of it. Raises SandboxError: something stays."""
        if self._control is not None:
            self._control.close()  # process 1 ends by that, and the kernel kills the rest
        if self._watch >= 0:
            await _ended(self._watch)
            os.close(self._watch)
            self._watch = -1
        self._accounting.unlink(missing_ok=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while not self._group.remove():  # noqa: ASYNC110 (the kernel tells nobody)
                    await asyncio.sleep(REMOVE_AGAIN_S)
        if any(folder.exists() for folder in self._group.folders):
            raise SandboxError(f"close a sandbox: {self._group.folders[0]} stays, something in it does not end")
        shutil.rmtree(self._folder, ignore_errors=True)


async def _ended(watch: int) -> None:
    """Until that process (a pidfd) has ended, for some seconds."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(watch, ended.set)
    try:
        async with asyncio.timeout(GONE_S):
            await ended.wait()
    except TimeoutError as error:
        raise SandboxError("close a sandbox: its first process does not end") from error
    finally:
        loop.remove_reader(watch)


def _why(word: bytes) -> str:
    return word.removeprefix(b"E ").decode(errors="replace") or "it ended without a word"
