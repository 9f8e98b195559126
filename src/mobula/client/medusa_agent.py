"""The agent of `mlogin` in a job's task: runs a command on a terminal of its own, for whoever sits at the other end of the websocket.

It asks the task's own door, which knows whose task it is: so it needs neither key nor signed URL. Exit codes: 0 there was a session, 1 not.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from mobula.client.errors import MobulaError, Unavailable
from mobula.client.websocket import WebSocket
from mobula.core import medusa
from mobula.core.paths import encode
from mobula.wire.http_failures import Address

DOOR = Address("localhost", 80)
READ_BYTES = 16 * 1024
TRIES, PAUSE_S = 10, 1.0
"""while no supervisor leads the job"""
SIZE_MAX = 0xFFFF
HANG_UP_S = 1.0


class Refused(Exception):
    """What was asked for can't be done; the sentence goes to whoever asked."""


class Start(NamedTuple):
    argv: Sequence[str]
    cwd: str
    term: str
    columns: int
    lines: int


class Resize(NamedTuple):
    columns: int
    lines: int


class Conversation:
    """What the other side says, and what that asks for. Pure."""

    def __init__(self) -> None:
        self._started = False

    def heard(self, message: str | bytes) -> Start | Resize | bytes | None:
        """Bytes are what was typed; None: nothing is to be done. Raises Refused."""
        if isinstance(message, bytes):
            return message if self._started else None
        said = medusa.read(message)
        if said is None:
            return None
        match said.by, said.kind:
            case medusa.TERMINAL, "start" if not self._started:
                start = _start(said.fields)
                self._started = True
                return start
            case medusa.TERMINAL, "resize" if self._started:
                return Resize(*_size(said.fields))
        return None


def _start(fields: Mapping[str, Any]) -> Start:
    argv = [fields.get("command"), *_list(fields.get("arguments"))]
    if not (argv[0] and all(isinstance(word, str) and "\0" not in word for word in argv)):
        raise Refused("start a command: a command and its arguments are texts")
    cwd, term = fields.get("cwd") or "/", fields.get("term") or "dumb"
    if not (isinstance(cwd, str) and isinstance(term, str)) or "\0" in cwd + term:
        raise Refused("start a command: cwd and term are texts")
    return Start([str(word) for word in argv], cwd, term, *_size(fields))


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else () if value is None else (None,)


def _size(fields: Mapping[str, Any]) -> tuple[int, int]:
    size = fields.get("columns"), fields.get("lines")
    if not all(isinstance(number, int) and 0 <= number <= SIZE_MAX for number in size):
        raise Refused(f"set the terminal's size: columns and lines are numbers up to {SIZE_MAX}")
    return int(size[0] or 0), int(size[1] or 0)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, fd: int) -> None:
        self._process = process
        self._fd = fd
        self._ready = asyncio.Event()
        self._exit = asyncio.create_task(self._wait())
        os.set_blocking(fd, False)

    @classmethod
    async def start(cls, wish: Start, environment: Mapping[str, str]) -> Terminal:
        """Raises OSError: the command can't be run."""
        fd, other = os.openpty()
        try:
            _resize(fd, wish.columns, wish.lines)
            process = await asyncio.create_subprocess_exec(
                *wish.argv, stdin=other, stdout=other, stderr=other, cwd=wish.cwd, env={**environment, "TERM": wish.term},
                start_new_session=True, preexec_fn=_own_terminal,
            )  # fmt: skip
        except BaseException:
            os.close(fd)
            raise
        finally:
            os.close(other)
        return cls(process, fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _wait(self) -> int:
        code = await self._process.wait()
        self._ready.set()
        return code

    def resize(self, columns: int, lines: int) -> None:
        _resize(self._fd, columns, lines)

    async def write(self, data: bytes) -> None:
        """What was typed; returns when the terminal has taken it, or nobody reads from it any more."""
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._fd, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._fd)
            except OSError:
                return

    async def output(self) -> AsyncIterator[bytes]:
        """What it says, until the command has ended and all was read."""
        while True:
            ended = self._exit.done()
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                if ended:
                    return
                await self._something()
                continue
            except OSError:  # nobody has the terminal open any more
                return
            yield data

    async def _something(self) -> None:
        """Until it says something, or the command has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            loop.remove_reader(self._fd)
            self._ready.clear()

    async def exit_code(self) -> int:
        """Of the command, once it has ended; negative: the signal that ended it."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Hang up; a command that does not care is killed. What it has left ends with the task."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            if not self._exit.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                await asyncio.wait({self._exit}, timeout=HANG_UP_S)
        os.close(self._fd)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


async def serve(socket: WebSocket, environment: Mapping[str, str]) -> None:
    """One session, to its end. Raises MobulaError."""
    conversation, terminal, telling = Conversation(), None, None
    try:
        async for message in socket.messages():
            try:
                wish = conversation.heard(message)
                if isinstance(wish, Start):
                    terminal = await Terminal.start(wish, environment)
                    await socket.send(medusa.write(medusa.TERMINAL, "started", pid=terminal.pid))
                    telling = asyncio.create_task(_tell(socket, terminal))
                elif terminal is not None and isinstance(wish, Resize):
                    terminal.resize(*wish)
                elif terminal is not None and isinstance(wish, bytes):
                    await terminal.write(wish)
            except (Refused, OSError, subprocess.SubprocessError) as error:
                await socket.send(medusa.write(medusa.TERMINAL, "error", message=_said(error)))
                if terminal is None:
                    await socket.close()
    finally:
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        if terminal is not None:
            await terminal.close()


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)


async def _tell(socket: WebSocket, terminal: Terminal) -> None:
    async for data in terminal.output():
        await socket.send(data)
    code = await terminal.exit_code()
    by = None if code >= 0 else _name(-code)
    await socket.send(medusa.write(medusa.TERMINAL, "exit", code=code if code >= 0 else 128 - code, signal=by))
    await socket.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def attach(environment: Mapping[str, str], door: Address = DOOR) -> WebSocket:
    """Be the agent of this task's job. Raises MobulaError, KeyError (this is no task)."""
    target = encode([environment["MANTA_USER"], "medusa", "attach", environment["MANTA_JOB_ID"], "slave"])
    for _ in range(TRIES - 1):
        try:
            return await WebSocket.connect(door, door.host, target)
        except Unavailable:
            await asyncio.sleep(PAUSE_S)
    return await WebSocket.connect(door, door.host, target)


async def run(environment: Mapping[str, str], door: Address = DOOR) -> int:
    """The exit code."""
    try:
        async with await attach(environment, door) as socket:
            await serve(socket, environment)
    except MobulaError as error:
        sys.stderr.write(f"medusa-agent: {error.message} ({error.code})\n")
        return 1
    except KeyError as error:
        sys.stderr.write(f"medusa-agent: {error.args[0]} is not set: it runs in tasks of jobs that mlogin makes\n")
        return 1
    return 0


def main() -> None:
    """For the launcher in the task image."""
    sys.exit(asyncio.run(run(os.environ)))
