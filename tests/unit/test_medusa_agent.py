"""The agent in a task: what it understands, and a command on a terminal of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mobula.client import medusa_agent
from mobula.client.medusa_agent import Conversation, Refused, Resize, Start, Terminal
from mobula.core.medusa import read, write

BOUND_S = 10.0
ENVIRONMENT = {"PATH": os.environ["PATH"], "GREETING": "hello"}


def start(command: str = "/bin/sh", *arguments: str, **fields: object) -> str:
    given: dict[str, Any] = {
        "cwd": "/", "term": "vt100", "columns": 80, "lines": 24, "command": command, "arguments": list(arguments), **fields,
    }  # fmt: skip
    return write("mlogin", "start", **given)


def test_a_start_is_heard_once_and_keys_only_after_it() -> None:
    talk = Conversation()
    assert talk.heard(b"early") is None
    assert talk.heard(write("medusa", "linkup")) is None
    assert talk.heard("ping") is None
    assert talk.heard(write("mlogin", "resize", columns=1, lines=1)) is None
    assert talk.heard(start("bash", "-x")) == Start(["bash", "-x"], "/", "vt100", 80, 24)
    assert talk.heard(start("bash")) is None
    assert talk.heard(b"ls\r") == b"ls\r"
    assert talk.heard(write("mlogin", "resize", columns=100, lines=50)) == Resize(100, 50)


@pytest.mark.parametrize(
    "fields", [{"command": ""}, {"command": 7}, {"arguments": [1]}, {"arguments": "x"}, {"arguments": ["a\0b"]}, {"cwd": 1},
               {"columns": "80"}, {"lines": -1}, {"lines": 1 << 20}],
)  # fmt: skip
def test_what_can_not_be_started_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Refused):
        Conversation().heard(start(**fields))  # type: ignore[arg-type]


async def said_by(script: str, *, columns: int = 80, lines: int = 24) -> tuple[str, int]:
    terminal = await Terminal.start(Start(["/bin/sh", "-c", script], "/", "vt100", columns, lines), ENVIRONMENT)
    async with asyncio.timeout(BOUND_S):
        text = b"".join([data async for data in terminal.output()])
        code = await terminal.exit_code()
        await terminal.close()
    return text.decode(), code


async def test_a_command_has_a_terminal_and_all_that_it_says_is_read() -> None:
    text, code = await said_by("tty; stty size; pwd; echo $TERM $GREETING; exit 7", columns=101, lines=33)
    assert text.splitlines()[1:] == ["33 101", "/", "vt100 hello"]
    assert text.startswith("/dev/pts/")
    assert code == 7
    text, _ = await said_by("yes | head -c 300000")
    assert text.count("y") == 150_000
    assert (await said_by("kill -TERM $$"))[1] == -15


async def test_what_a_command_leaves_behind_does_not_hold_the_session() -> None:
    assert (await said_by("sleep 600 & exit 3"))[1] == 3


class Socket:
    """`client.websocket.WebSocket`, the other end of which is this test."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.said: list[str | bytes] = []
        self.heard = asyncio.Event()

    async def messages(self) -> AsyncIterator[str | bytes]:
        while (message := await self.coming.get()) is not None:
            yield message

    async def send(self, message: str | bytes) -> None:
        self.said.append(message)
        self.heard.set()

    async def close(self) -> None:
        self.coming.put_nowait(None)

    def kinds(self) -> list[tuple[str, Any]]:
        found = [read(text) for text in self.said if isinstance(text, str)]
        return [(one.kind, one.fields.get("code", one.fields.get("message"))) for one in found if one is not None]

    @property
    def text(self) -> str:
        return b"".join(data for data in self.said if isinstance(data, bytes)).decode()

    async def until(self, text: str) -> None:
        while text not in self.text:
            self.heard.clear()
            await self.heard.wait()


async def test_a_session_from_start_to_exit() -> None:
    socket = Socket()
    any_socket: Any = socket
    serving = asyncio.create_task(medusa_agent.serve(any_socket, ENVIRONMENT))
    socket.coming.put_nowait(start("/bin/sh", "-c", "read line; stty size; echo got $line; exit 5"))
    async with asyncio.timeout(BOUND_S):
        while not socket.said:
            await asyncio.sleep(0.01)
        socket.coming.put_nowait(write("mlogin", "resize", columns=132, lines=50))
        socket.coming.put_nowait(b"wind\r")
        await serving
    assert "50 132\r\ngot wind" in socket.text
    assert socket.kinds() == [("started", None), ("exit", 5)]


async def test_a_command_that_is_not_there_is_an_error_and_the_end() -> None:
    socket = Socket()
    any_socket: Any = socket
    socket.coming.put_nowait(start("/no/such/program"))
    async with asyncio.timeout(BOUND_S):
        await medusa_agent.serve(any_socket, ENVIRONMENT)
    assert socket.kinds() == [("error", "/no/such/program: No such file or directory")]


async def test_who_leaves_ends_the_command() -> None:
    socket = Socket()
    any_socket: Any = socket
    socket.coming.put_nowait(start("/bin/sh", "-c", "trap '' HUP; echo $$ ready; sleep 600"))
    serving = asyncio.create_task(medusa_agent.serve(any_socket, ENVIRONMENT))
    async with asyncio.timeout(BOUND_S):
        await socket.until("ready")
        socket.coming.put_nowait(None)
        await serving
    pid = int(socket.text.split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_outside_a_task_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert await medusa_agent.run({}) == 1
    assert "MANTA_USER is not set" in capsys.readouterr().err
