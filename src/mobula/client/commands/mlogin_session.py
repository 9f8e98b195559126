"""One session of mlogin, from its job to the job's end: the websocket, the terminal here, and what goes between them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

from mobula.client import model
from mobula.client.commands.command import INTERRUPTED, Call
from mobula.client.errors import MobulaError
from mobula.client.escapes import NONE, Act, Escapes, help_text
from mobula.client.websocket import WebSocket
from mobula.core import medusa

HOME = "/root"
READ_BYTES = 16 * 1024
DONE_S = 5.0
"""how long a job may take to be done once its command has ended; then it is cancelled"""
TRIES, PAUSE_S = 10, 1.0
"""while no supervisor leads the job"""


def log_in(call: Call, job: str) -> int | None:
    """Have the terminal of a job, whose input is open. The exit code; None: there was no session, which is said.

    Raises:
        MobulaError, KeyboardInterrupt: the job was ended, as it is in any case.
    """
    login, has_exited = Login(call, job), False
    try:
        code = asyncio.run(login.run())
        has_exited = login.has_exited
    finally:
        end_job(call, job, wait_s=DONE_S if has_exited else 0.0)
    return code


def end_job(call: Call, job: str, *, wait_s: float = 0.0) -> None:
    """Leave no job behind: one that is not done by then is cancelled."""
    until_s = time.monotonic() + wait_s
    try:
        for status in call.client.wait_job(job):
            if status["state"] == "done":
                return
            if time.monotonic() >= until_s:
                break
        call.client.cancel_job(job)
    except MobulaError as error:
        if error.code != "InvalidJobState":
            call.failures.say(f"{error.message} ({error.code}); mjob cancel {job} ends the job")


class Login:
    """One session. Bytes of the terminal are as they come in both directions, once the command has started."""

    def __init__(self, call: Call, job: str) -> None:
        self._call = call
        self._job = job
        self._escapes = Escapes("" if call.options.escape == NONE else call.options.escape)
        self.has_exited = False
        """the command has ended by itself"""
        self._left = False
        self._code: int | None = None

    async def run(self) -> int | None:
        """The exit code; None: there was no session, which is said. Raises MobulaError, KeyboardInterrupt."""
        me = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: self._leave(me))
        try:
            await self._run()
        except asyncio.CancelledError:
            if not self._left:
                raise
            return INTERRUPTED
        if self._code is None and not self._call.failures.count:
            self._call.failures.say(f"the session of job {self._job} ended before its command did")
        return self._code

    def _leave(self, task: asyncio.Task[Any] | None) -> None:
        self._left = True
        if task is not None:
            task.cancel()

    def _note(self, text: str) -> None:
        if not self._call.options.quiet:
            self._call.failures.note(text)

    async def _run(self) -> None:
        self._note(f"job {self._job}: created")
        async with await self._connect() as socket:
            try:
                await asyncio.to_thread(self._feed)
                self._note("waiting for its task")
                with contextlib.ExitStack() as stack:
                    await self._talk(socket, stack)
            except asyncio.CancelledError:
                # Before its agent finds out that nobody is there any more: or the job might be done, as if all had been well.
                await asyncio.to_thread(end_job, self._call, self._job)
                raise

    async def _connect(self) -> WebSocket:
        """The job's end of it that is ours. Raises MobulaError."""
        session = self._call.client.session
        request = model.Request("GET", f"~~/medusa/attach/{self._job}/master")
        for left in range(TRIES, 0, -1):
            try:
                headers = session.headers(request, dt.datetime.now(dt.UTC))
                target, address = session.target(request), session.settings.address
                return await WebSocket.connect(address, session.host, target, headers, self._call.client.tls)
            except MobulaError as error:
                if error.status != 503 or left == 1:
                    raise
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def _feed(self) -> None:
        """The job's input: the object, or nothing."""
        client, name = self._call.client, self._call.options.object
        if name is not None:
            client.add_inputs(self._job, [client.session.path(name).encode()])
        client.end_inputs(self._job)

    async def _talk(self, socket: WebSocket, stack: contextlib.ExitStack) -> None:
        """What comes, until the session is over; `stack` holds the terminal as it is meanwhile."""
        async for message in socket.messages():
            if isinstance(message, bytes):
                await asyncio.to_thread(_write_all, message)
                continue
            said = medusa.read(message)
            match (said.by, said.kind) if said is not None else None:
                case medusa.REFLECTOR, "wait":
                    if await asyncio.to_thread(self._failed):
                        return
                case medusa.REFLECTOR, "linkup":
                    await socket.send(self._start())
                case medusa.TERMINAL, "started":
                    self._note("connected")
                    self._begin(socket, stack)
                case medusa.TERMINAL, "exit" if said is not None:
                    self.has_exited = True
                    code = said.fields.get("code")
                    self._code = code & 0xFF if isinstance(code, int) else 0
                case medusa.TERMINAL, "error" if said is not None:
                    self._call.failures.say(f"run {self._call.options.command!r}: {said.fields.get('message')}")

    def _failed(self) -> bool:
        """Whether the job is done before it has begun, which is said with what it says of itself. Raises MobulaError."""
        call, job = self._call, self._job
        if call.client.job_status(job)["state"] != "done":
            return False
        call.failures.say(f"job {job} is done, and had no terminal; mjob errors {job} may say why")
        return True

    def _start(self) -> str:
        columns, lines = os.get_terminal_size(1)
        term = self._call.environment.get("TERM", "")
        return medusa.write(
            medusa.TERMINAL, "start", cwd=HOME, term=term, columns=columns, lines=lines,
            command="/bin/bash", arguments=["--norc", "-c", self._call.options.command],
        )  # fmt: skip

    def _begin(self, socket: WebSocket, stack: contextlib.ExitStack) -> None:
        """From now on the terminal is the command's."""
        loop = asyncio.get_running_loop()
        stack.enter_context(raw(0))
        me = asyncio.current_task()
        for work in (self._type(socket, me), self._follow_size(socket)):
            stack.callback(loop.create_task(work).cancel)

    async def _type(self, socket: WebSocket, me: asyncio.Task[Any] | None) -> None:
        """What is typed, to the other end; a connection that is lost is found out by whoever reads it."""
        with contextlib.suppress(MobulaError):
            while data := await _typed():
                for part in self._escapes.feed(data):
                    if isinstance(part, bytes):
                        await socket.send(part)
                    elif part is Act.END:
                        _write_all(b"\r\n")
                        self._leave(me)
                    else:
                        self._answer(part)
            self._leave(me)

    def _answer(self, act: Act) -> None:
        text = help_text(self._call.options.escape) if act is Act.HELP else f"job {self._job}\n"
        _write_all(b"\r\n" + text.replace("\n", "\r\n").encode())

    async def _follow_size(self, socket: WebSocket) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                columns, lines = os.get_terminal_size(1)
                await socket.send(medusa.write(medusa.TERMINAL, "resize", columns=columns, lines=lines))
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


async def _typed() -> bytes:
    """The next keys; nothing once the terminal is gone."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(0, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(0)
    try:
        return os.read(0, READ_BYTES)
    except OSError:
        return b""


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal hands on every key while the block runs; then it is as it was."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed meanwhile is not lost
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _write_all(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]
