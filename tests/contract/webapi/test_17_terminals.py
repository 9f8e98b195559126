"""mlogin, and the websockets below it: the webapi in this process, a supervisor's part in it, and agents as tasks start them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobula.client.errors import AccessRefused, MobulaError, NotFound, Unavailable
from mobula.client.websocket import WebSocket
from mobula.core import medusa, tokens
from mobula.core.tokens import Bearer
from mobula.jobs.door import Door
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import Dispatch, Job, Made, Result, State, Work
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from tests.contract.webapi.local import BOUND_S, TOKEN_KEY, LocalRegion, new_key
from tests.contract.webapi.test_5_presigned import HOST, presign
from tests.region.signed import Client
from tests.seat import Seat

REPO = Path(__file__).parents[3]
AGENT = (
    "import asyncio, os, sys; from mobula.client.medusa_agent import run; from mobula.wire.http_failures import Address;"
    "sys.exit(asyncio.run(run(os.environ, Address('127.0.0.1', {port}))))"
)
JOB = {"phases": [{"type": "reduce", "exec": medusa.AGENT}]}


class Tasks(list[uuid.UUID]):
    """Takes the place of who hears of jobs: one whose input is ended has a task, which is an agent behind a door of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = MemoryJobs()
        self.runs_agents = True
        self.region: LocalRegion
        self._begun = set[uuid.UUID]()
        self._lock = asyncio.Lock()
        self._working = set[asyncio.Task[None]]()

    def append(self, job: uuid.UUID) -> None:
        super().append(job)
        work = asyncio.get_running_loop().create_task(self._move(job))
        self._working.add(work)
        work.add_done_callback(self._working.discard)

    async def settled(self) -> None:
        """All agents have ended, and what was started for them."""
        while self._working:
            await asyncio.wait(set(self._working))

    async def _move(self, job: uuid.UUID) -> None:
        async with self._lock:
            epoch = await self.kept.lead()
            await self.kept.begin(epoch, job)
            row = await self.kept.look(job)
            if row.cancelled and row.state is not State.DONE:
                await self.kept.abandon(epoch, job)
                await self.kept.finish(epoch, job)
                return
            if not row.input_ended or job in self._begun or not self.runs_agents:
                return
            self._begun.add(job)
        await self._run(row)

    async def _run(self, row: Job) -> None:
        names = [item.name for item in self.kept.names(row.id, 0)]
        code = await self._agent(row, names[0] if names else None)
        async with self._lock:
            if (await self.kept.look(row.id)).state is State.DONE:
                return
            epoch = await self.kept.lead()
            works = [] if row.document.phases[0].reduces else [Work(0, name) for name in names]
            await self.kept.dispatch(epoch, Dispatch(row.id, 0, 0, len(names), works))
            mine = list(await self.kept.open_tasks(row.id))
            await self.kept.hand_out(epoch, [task.attempt for task in mine], "a")
            assert code == 0
            await self.kept.commit(epoch, [Result(task.attempt, [Made("/ann/stor/out")]) for task in mine])
            await self.kept.finish(epoch, row.id)

    async def _agent(self, row: Job, name: str | None) -> int:
        """Its exit code."""
        bearer = Bearer(row.owner.account, None, row.id)
        token = tokens.seal(TOKEN_KEY, bearer, dt.datetime.now(dt.UTC))
        client = HttpClient()
        door = HttpServer(Door(client, lambda: Address("127.0.0.1", self.region.port), lambda: token).handle)
        port = await door.listen("127.0.0.1", 0)
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(REPO / "src"), "MANTA_USER": row.owner.login, "MANTA_JOB_ID": str(row.id),
            "HOME": "/", **({"MANTA_INPUT_FILE": f"/manta{name}"} if name else {}),
        }  # fmt: skip
        argv = [sys.executable, "-c", AGENT.format(port=port)]
        done = await asyncio.to_thread(subprocess.run, argv, env=environment, stdin=subprocess.DEVNULL, check=False)
        await door.stop(1.0)
        await client.close()
        return done.returncode


class World:
    def __init__(self, folder: Path) -> None:
        self.tasks = Tasks()
        self.region = self.tasks.region = LocalRegion(folder, jobs=self.tasks.kept, woken=self.tasks)
        self.region.start()
        for login in ("ann", "bob"):
            self.region.add_account(login)
        self.ann, self.bob = (self.region.client(login) for login in ("ann", "bob"))
        pem = new_key()[0]
        self.region.add_key("ann", pem)
        (folder / "key").write_bytes(pem)
        self.environment = {
            "PATH": os.environ["PATH"], "MOBULA_PYTHON": sys.executable, "HOME": "/none", "MANTA_USER": "ann",
            "MANTA_URL": f"http://127.0.0.1:{self.region.port}", "MANTA_KEY_ID": str(folder / "key"),
        }  # fmt: skip

    def mlogin(self, *words: str) -> Seat:
        return Seat([str(REPO / "bin" / "mlogin"), *words], self.environment)

    def create(self) -> uuid.UUID:
        headers = {"Content-Type": "application/json; type=job"}
        answer = self.ann.request("POST", "/ann/jobs", headers=headers, body=json.dumps(JOB).encode())
        assert answer.status == 201, answer
        return uuid.UUID(answer.headers["location"].rpartition("/")[2])

    def job(self) -> Job:
        """The newest."""

        async def look() -> Job:
            return await self.tasks.kept.look(self.tasks[-1])

        return self.region.call(look())

    def until(self, is_so: Callable[[Job], bool]) -> Job:
        end_s = time.monotonic() + BOUND_S
        while not is_so(found := self.job()):
            assert time.monotonic() < end_s, found
            time.sleep(0.02)
        return found

    async def attach(
        self, job: uuid.UUID, side: str, client: Client | None = None, target: str = "", login: str = "ann"
    ) -> WebSocket:
        """An end, signed by Ann, or of a presigned URL."""
        where = Address("127.0.0.1", self.region.port)
        if target:
            return await WebSocket.connect(where, HOST, target)
        headers = list((client or self.ann).authorization().items())
        return await WebSocket.connect(where, "h", f"/{login}/medusa/attach/{job}/{side}", headers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.region.call(made.tasks.settled())
    made.region.stop()


class Ends:
    """Two websockets, the messages of which are read one by one."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self._messages = socket.messages()

    async def next(self) -> str | bytes:
        return await anext(self._messages)

    async def kind(self) -> str:
        message = await self.next()
        said = medusa.read(message) if isinstance(message, str) else None
        return said.kind if said is not None else repr(message)

    async def is_over(self) -> bool:
        return [message async for message in self._messages] == []


@contextlib.asynccontextmanager
async def opened(*connecting: Any) -> AsyncIterator[list[Ends]]:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(BOUND_S):
        yield [Ends(await stack.enter_async_context(await one)) for one in connecting]


async def test_s13_both_ends_are_linked_and_get_what_the_other_sends(world: World) -> None:
    job = world.create()
    async with opened(world.attach(job, "master")) as (master,):
        assert await master.kind() == "wait"
        assert await master.kind() == "wait"  # 2 s later
        async with opened(world.attach(job, "slave")) as (slave,):
            assert [await slave.kind(), await master.kind()] == ["linkup", "linkup"]
            await master.socket.send("mlogin:ä")
            await slave.socket.send(b"\x00\xff")
            assert (await slave.next(), await master.next()) == ("mlogin:ä", b"\x00\xff")
            data = bytes(n % 251 for n in range(3_000_000))
            sending = asyncio.create_task(slave.socket.send(data))
            got = b""
            while len(got) < len(data):
                message = await master.next()
                assert isinstance(message, bytes)
                got += message
            await sending
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
            await slave.socket.close()
        assert await master.is_over()


async def test_s13_a_signed_url_is_enough_for_the_agent(world: World) -> None:
    job = world.create()
    url = presign(world.ann, f"/ann/medusa/attach/{job}/slave")
    async with opened(world.attach(job, "slave", target=url), world.attach(job, "master")) as (slave, master):
        assert [await slave.kind(), await master.kind()] == ["linkup", "linkup"]
    with pytest.raises(AccessRefused):
        await world.attach(job, "master", target=url.replace("slave", "master"))


async def test_s13_a_job_has_one_session_at_a_time(world: World) -> None:
    job = world.create()
    async with opened(world.attach(job, "master")) as (master,):
        assert await master.kind() == "wait"
        with pytest.raises(MobulaError) as found:
            await world.attach(job, "master")
        assert (found.value.status, found.value.code) == (409, "EntityAlreadyExists")
        async with opened(world.attach(world.create(), "master")) as (other,):
            assert await other.kind() == "wait"
    async with opened(world.attach(job, "master")) as (again,):
        assert await again.kind() == "wait"


async def test_s13_nobody_else_is_let_in(world: World) -> None:
    job = world.create()
    with pytest.raises(AccessRefused):
        await world.attach(job, "master", world.bob)
    with pytest.raises(NotFound):
        await world.attach(job, "master", world.bob, login="bob")
    with pytest.raises(NotFound):
        await world.attach(uuid.uuid4(), "master")
    answer = world.ann.request("GET", f"/ann/medusa/attach/{job}/master", signed=False)
    assert (answer.status, answer.json()["code"]) == (403, "AuthorizationFailed")


def test_s13_what_asks_for_no_websocket_is_told_so(world: World) -> None:
    path = f"/ann/medusa/attach/{world.create()}/master"
    asked = {"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "HqElVxIr3RrEb8c2pwPe/Q=="}
    for headers in ({}, {**asked, "Sec-WebSocket-Version": "8"}, {**asked, "Upgrade": "h2c"}):
        answer = world.ann.request("GET", path, headers=headers)
        assert (answer.status, answer.json()["code"]) == (400, "InvalidArgumentError")
    answer = world.ann.request("PUT", path, b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    for name in ("/ann/medusa", "/ann/medusa/attach", "/ann/medusa/attach/x/master", f"{path}s", f"{path}/x"):
        assert world.ann.request("GET", name).status == 404, name
    assert world.ann.request("GET", path, headers=asked).status == 101  # as npm's client asks


async def test_s13_a_job_that_is_done_has_no_terminal(world: World) -> None:
    job = world.create()
    world.ann.request("POST", f"/ann/jobs/{job}/live/cancel", b"")
    world.until(lambda row: row.state is State.DONE)
    with pytest.raises(MobulaError) as found:
        await world.attach(job, "master")
    assert (found.value.status, found.value.code) == (409, "InvalidJobState")


async def test_s13_without_a_supervisor_it_may_be_tried_again(world: World) -> None:
    job = world.create()
    async with opened(world.attach(job, "master")) as (master,):
        assert await master.kind() == "wait"
        world.region.leads.clear()
        assert await master.is_over()  # with its supervisor's term
    with pytest.raises(Unavailable) as found:
        await world.attach(job, "master")
    assert (found.value.status, found.value.code) == (503, "ServiceUnavailable")


# mlogin


def test_mlogin_is_a_terminal_where_the_object_is(world: World) -> None:
    assert world.ann.put("/ann/stor/a b", b"x").status == 204
    with world.mlogin("~~/stor/a b") as seat:
        seat.until("connected")
        seat.type("tty; echo in=$MANTA_INPUT_FILE\r")
        seat.until(r"/dev/pts/\d+\r\n")
        seat.until("in=/manta/ann/stor/a b")
        seat.type("exit 7\r")
        assert seat.exit_code() == 7, seat.text
        assert seat.are_modes_restored()
    row = world.job()
    assert (row.state, row.cancelled, row.document.name) == (State.DONE, False, "interactive compute job")
    (phase,) = row.document.phases
    assert (phase.type, phase.exec) == ("map", medusa.AGENT)


def test_mlogin_without_an_object_reduces_nothing(world: World) -> None:
    words = (
        "-q",
        "-c",
        "echo $((6 * 7)); exit 3",
        "-s",
        "~~/stor/tool",
        "--memory",
        "256",
        "--disk",
        "4",
        "--init",
        "true",
    )
    with world.mlogin(*words) as seat:
        assert seat.exit_code() == 3, seat.text
        assert seat.text == "42\r\n"
    (phase,) = world.job().document.phases
    assert (phase.type, phase.assets, phase.memory, phase.disk, phase.init) == (
        "reduce", ("/ann/stor/tool",), 256, 4, "true"
    )  # fmt: skip


def test_mlogin_tells_the_command_of_its_terminals_size(world: World) -> None:
    with world.mlogin() as seat:
        seat.until("connected")
        seat.type("stty size; trap 'stty size' WINCH; echo $TERM\r")
        seat.until(r"24 80\r\n")
        seat.until(r"vt100\r\n")
        seat.resize(132, 50)
        seat.type("\r")
        seat.until(r"50 132\r\n")
        seat.type("exit\r")
        assert seat.exit_code() == 0


def test_mlogin_is_left_by_its_escape_and_leaves_no_job(world: World) -> None:
    with world.mlogin() as seat:
        seat.until("connected")
        seat.type("echo wai''ting\r")
        seat.until("waiting")
        seat.type("~?")
        seat.until("end the session, and cancel its job")
        seat.type("~i")
        seat.until(str(world.tasks[-1]))
        seat.type("~.")
        assert seat.exit_code() == 130
        assert seat.are_modes_restored()
    assert world.until(lambda row: row.state is State.DONE).cancelled


def test_mlogin_restores_the_terminal_when_it_is_ended(world: World) -> None:
    with world.mlogin() as seat:
        seat.until("connected")
        seat.type("echo rea''dy\r")
        seat.until("ready")
        assert not seat.are_modes_restored()
        seat.process.send_signal(signal.SIGTERM)
        assert seat.exit_code() == 130
        assert seat.are_modes_restored()
    assert world.until(lambda row: row.state is State.DONE).cancelled


def test_mlogin_says_so_when_the_session_breaks_off(world: World) -> None:
    with world.mlogin() as seat:
        seat.until("connected")
        world.region.leads.clear()
        assert seat.exit_code() == 1
        assert seat.are_modes_restored()
        assert "ended before its command did" in seat.text
    world.until(lambda row: row.state is State.DONE)


def test_mlogin_is_interrupted_while_it_waits(world: World) -> None:
    world.tasks.runs_agents = False
    with world.mlogin() as seat:
        seat.until("waiting for its task")
        seat.type("\x03")
        assert seat.exit_code() == 130
    assert world.until(lambda row: row.state is State.DONE).cancelled


def test_mlogin_hears_of_a_job_that_ends_without_a_terminal(world: World) -> None:
    world.tasks.runs_agents = False
    with world.mlogin() as seat:
        seat.until("waiting for its task")
        world.ann.request("POST", f"/ann/jobs/{world.tasks[-1]}/live/cancel", b"")
        assert seat.exit_code() == 1
        assert "is done, and had no terminal" in seat.text


def test_mlogin_refuses_in_a_sentence(world: World) -> None:
    done = subprocess.run(
        [str(REPO / "bin" / "mlogin")], env=world.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard input and output have to be a terminal" in done.stderr
    for words, code, said in (
        (["-e", "ab"], 2, "it is one printable character, or none"),
        (["~~/stor"], 1, "is a directory"),
        (["~~/stor/none"], 1, "was not found"),
    ):
        with world.mlogin(*words) as seat:
            assert seat.exit_code() == code
            assert said in seat.text
    assert world.tasks == []
