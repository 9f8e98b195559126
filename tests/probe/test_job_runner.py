"""Whole jobs: a supervisor, agents with real sandboxes, real commands; jobs, names and objects in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mobula.agent import boxes
from mobula.agent.boxes import Boxes, Image
from mobula.core.clock import SystemClock
from mobula.core.job import TASKS_GROUP, parse
from mobula.core.medusa import STOCK_AGENT
from mobula.core.paths import parse as parse_path
from mobula.jobs.lead import Agent, Lead, Located, Order
from mobula.jobs.runner import SMALL_BYTES, Lost, NoAsset, Runner, Source
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import Cleared, Item, Job, JobError, Owner, State, Version
from mobula.sandbox import cgroups
from mobula.sandbox.sandbox import Sandbox
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from tests.probe import machine, sandboxes

pytestmark = pytest.mark.probe

OWNER = Owner(uuid.UUID(int=2), "dap")
VERSIONS = ("1.0.0", "1.1.0")
HOST = Agent("s-a", "1", VERSIONS)
BOUND_S = 30.0
AT_ONCE = 4
"""sandboxes of several phases, of which most wait"""


class Objects:
    """Names and their bytes, in a folder: `Places`, `Store` and `Copies`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: dict[str, bytes] = {}
        self.fails = 0
        """so many requests that come next"""
        self.puts = asyncio.Event()
        self.puts.set()
        self.put_now = 0

    async def locate(self, _job: Job, phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        return [self._of(phase, item) for item in items]

    def _of(self, phase: int, item: Item) -> Located | JobError:
        body = self.names.get(item.name)
        if body is None:
            return JobError(phase, "ResourceNotFoundError", f'no such object: "{item.name}"', item.name)
        if not body:
            return Located(item.name, None)
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        version = Version(OWNER.account, uuid.UUID(bytes=md5), len(body), md5, 1, 2)
        self.path(version).write_bytes(body)
        return Located(item.name, version)

    async def delete(self, _job: Job, cleared: Sequence[Cleared]) -> None:
        for one in cleared:
            del self.names[one.name]

    async def follow(self) -> bool:
        return False

    def hosts(self, _version: Version) -> Sequence[str]:
        return (HOST.host,)

    def path(self, version: Version) -> Path:
        return self._folder / str(version.object_id)

    async def read(self, version: Version, _hosts: Sequence[str]) -> AsyncIterator[bytes]:
        body = self.path(version).read_bytes()
        for at in range(0, len(body), 65_536):
            yield body[at : at + 65_536]

    async def fetch(self, _order: Order, name: str, into: Path) -> None:
        if name not in self.names:
            raise NoAsset(f'error retrieving asset "{name}" (status code 404)')
        into.write_bytes(self.names[name])
        into.chmod(0o777)

    async def handle(self, request: Request, response: Response) -> None:
        """The storage API, as much of it as tasks here use."""
        assert request.headers.get("authorization") == "Token token"
        name = str(parse_path(request.path))
        if self.fails:
            self.fails -= 1
            await response.send(503)
            return
        if request.method == "PUT":
            self.names[name] = await request.body(1 << 20)
        await response.send(204 if name in self.names else 404)

    async def put(self, _order: Order, name: str, source: Source) -> None:
        assert name not in self.names
        self.put_now += 1
        await self.puts.wait()
        self.put_now -= 1
        if isinstance(source, bytes):
            self.names[name] = source
            return
        with open(source, "rb", closefd=False) as file:
            file.seek(0)
            self.names[name] = file.read()


class Makes(Boxes):
    """Sandboxes of the base image, as an agent makes them."""

    def __init__(self, folder: Path, volumes: Path) -> None:
        self.made = 0
        self.address = Address("", 0)
        self.client = HttpClient()
        super().__init__(
            images=dict.fromkeys(VERSIONS, Image(machine.root(), sandboxes.program())), volumes=volumes, run=folder / "run",
            processes_max=256, client=self.client, webapi=lambda: self.address, token=lambda _: "token",
        )  # fmt: skip
        self.sweep()

    async def make(self, order: Order) -> Sandbox:
        self.made += 1
        return await super().make(order)


class World:
    """A supervisor, and one agent that does what it is told."""

    def __init__(self, folder: Path, volumes: Path) -> None:
        self.jobs = MemoryJobs()
        self.objects = Objects(folder)
        self.lead = Lead(self.jobs, self.objects, SystemClock())
        self.makes = Makes(folder, volumes)
        empty = folder / "empty"
        empty.touch()
        self.runner = Runner(self.makes, self.objects, self.objects, {0: self.lead}, empty=empty)

    async def agent(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for order in await self.lead.orders(HOST, AT_ONCE, None, wait_s=0.2):
                    group.create_task(self._do(order))

    async def _do(self, order: Order) -> None:
        try:
            await self.lead.results(HOST, [await self.runner.run(order)])
        except Lost:
            await self.lead.results(HOST, [], [order.task.attempt])

    async def job(
        self, *phases: dict[str, Any], inputs: dict[str, str] | None = None, names: Sequence[str] = ()
    ) -> uuid.UUID:
        """Run one to its end."""
        self.objects.names |= {name: body.encode() for name, body in (inputs or {}).items()}
        job = uuid.uuid4()
        await self.jobs.create(job, OWNER, parse(json.dumps({"phases": phases}).encode()))
        await self.jobs.add(job, names or list(inputs or {}))
        await self.jobs.end(job)
        self.lead.wake(job)
        async with asyncio.timeout(BOUND_S):
            while (await self.jobs.look(job)).state != State.DONE:
                await asyncio.sleep(0.01)
        for phase in range(len(phases)):
            await self.runner.reset((job, phase))
        return job

    def outputs(self, job: uuid.UUID) -> list[str]:
        return sorted(self.objects.names[item.name].decode() for item in self.jobs.names(job, -1))

    def errors(self, job: uuid.UUID) -> list[str]:
        return [f"{error.code}: {error.message}" for error in self.jobs.errors(job)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with machine.folder() as found:
        yield found


@pytest.fixture(scope="module")
def volumes() -> Iterator[Path]:
    with machine.folder() as at, sandboxes.volumes(at) as found:
        yield found


@pytest_asyncio.fixture
async def world(folder: Path, volumes: Path) -> AsyncIterator[World]:
    made = World(folder, volumes)
    server = HttpServer(made.objects.handle)
    made.makes.address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    tasks = [asyncio.create_task(made.lead.work())]
    while not made.lead.leads:
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(made.agent()))
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await made.runner.close()
    assert made.makes.count == 0
    made.makes.close()
    await made.makes.client.close()
    await server.stop(1)


BOOKS = {"/dap/stor/a": "one poochy\ntwo\n", "/dap/stor/b": "three\npoochy four\n", "/dap/stor/c": "five\n"}


async def test_a_command_runs_on_each_object(world: World) -> None:
    job = await world.job({"exec": "wc -w"}, inputs=BOOKS)
    assert [out.strip() for out in world.outputs(job)] == ["1", "3", "3"]
    row = await world.jobs.look(job)
    assert (row.tasks, row.tasks_done, row.errors, row.retries) == (3, 3, 0, 0)


async def test_a_sandbox_has_its_next_task_while_a_small_output_is_put(world: World) -> None:
    world.objects.puts.clear()
    job = asyncio.create_task(world.job({"exec": "cat"}, inputs={"/dap/stor/a": "0", "/dap/stor/b": "1"}))
    async with asyncio.timeout(BOUND_S):
        while world.objects.put_now < 2:
            await asyncio.sleep(0.01)
    assert world.runner.running == 0
    world.objects.puts.set()
    assert world.outputs(await job) == ["0", "1"]


async def test_an_output_that_is_not_small_is_put_while_its_sandbox_is_there(world: World) -> None:
    world.objects.puts.clear()
    job = asyncio.create_task(world.job({"exec": f"head -c {SMALL_BYTES + 1} /dev/zero"}, inputs={"/dap/stor/a": "x"}))
    async with asyncio.timeout(BOUND_S):
        while world.objects.put_now < 1:
            await asyncio.sleep(0.01)
    assert world.runner.running == 1
    world.objects.puts.set()
    assert world.outputs(await job) == ["\0" * (SMALL_BYTES + 1)]


async def test_a_map_and_a_reduce(world: World) -> None:
    job = await world.job(
        {"exec": "tr ' ' '\\n'"}, {"exec": "sort | uniq -c | sort -rn | head -1", "type": "reduce"}, inputs=BOOKS
    )
    assert [out.split() for out in world.outputs(job)] == [["2", "poochy"]]


async def test_a_reduce_without_inputs_is_a_remote_command(world: World) -> None:
    job = await world.job({"exec": "wc", "type": "reduce"})
    assert [out.split() for out in world.outputs(job)] == [["0", "0", "0"]]


async def test_a_command_that_fails_is_an_error_with_what_it_said(world: World) -> None:
    job = await world.job({"exec": "grep poochy || { echo nothing here >&2; exit 1; }"}, inputs=BOOKS)
    assert world.outputs(job) == ["one poochy\n", "poochy four\n"]
    (error,) = world.jobs.errors(job)
    assert (error.code, error.message, error.name) == (
        "UserTaskError",
        "user command exited with code 1",
        "/dap/stor/c",
    )
    assert world.objects.names[error.stderr] == b"nothing here\n"
    assert error.stderr.startswith(f"/dap/jobs/{job}/stor/dap/stor/c.0.err.")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -TERM $$", "UserTaskError: user command terminated by SIGTERM"),
        ("bash -c 'kill -SEGV $$'; true", "UserTaskError: user command or child process dumped core"),
        (
            "exec python3 -c 'bytearray(300 << 20)'",
            "UserTaskError: user command terminated by SIGKILL (WARNING: ran out of memory during execution)",
        ),
    ],
)
async def test_how_it_failed_is_told(world: World, script: str, said: str) -> None:
    job = await world.job({"exec": script, "type": "reduce", "memory": 128})
    assert world.errors(job) == [said]


async def test_a_core_ends_no_interactive_task(world: World) -> None:
    script = "#!/bin/bash\nbash -c 'kill -SEGV $$'\necho goes on\n"
    inputs = {STOCK_AGENT: script}
    job = await world.job({"exec": f"/assets{STOCK_AGENT}", "assets": [STOCK_AGENT]}, inputs=inputs)
    assert (world.errors(job), world.outputs(job)) == ([], ["goes on\n"])


async def test_what_a_task_finds_around_it(world: World) -> None:
    name = f"/dap/stor/{'n' * 256}"
    script = "env | grep ^MANTA | sort; cmp $MANTA_INPUT_FILE /dev/stdin"
    job = await world.job({"exec": script}, inputs={name: "x"})
    assert world.outputs(job)[0].splitlines() == [
        f"MANTA_INPUT_FILE=/manta/dap/stor/{'n' * 251}_...", f"MANTA_INPUT_OBJECT={name}", f"MANTA_JOB_ID={job}", "MANTA_NO_AUTH=true",
        f"MANTA_OUTPUT_BASE=/dap/jobs/{job}/stor{name}.0.", "MANTA_URL=http://localhost:80/", "MANTA_USER=dap",
    ]  # fmt: skip
    job = await world.job({"exec": "exit 1"}, names=[name])
    assert world.errors(job)[0].endswith("the object name was too long)")
    job = await world.job(
        {"exec": "echo $MANTA_REDUCER $MANTA_OUTPUT_BASE; env | grep -c INPUT", "type": "reduce", "count": 2}
    )
    assert world.outputs(job) == []
    assert len(world.errors(job)) == 2  # grep found nothing
    job = await world.job({"exec": "echo $MANTA_REDUCER $MANTA_OUTPUT_BASE", "type": "reduce", "count": 2})
    assert world.outputs(job) == [f"{n} /dap/jobs/{job}/stor/reduce.0.\n" for n in (0, 1)]


async def test_an_empty_object_is_an_input_too(world: World) -> None:
    job = await world.job({"exec": "wc -c; test -f $MANTA_INPUT_FILE"}, inputs={"/dap/stor/empty": ""})
    assert world.outputs(job) == ["0\n"]


async def test_assets_and_init_are_there_before_the_first_task(world: World) -> None:
    world.objects.names["/dap/stor/tool"] = b"#!/bin/sh\necho tool, $(cat /var/tmp/made)\n"
    phase = {
        "exec": "/assets/dap/stor/tool",
        "assets": ["/dap/stor/tool"],
        "init": "echo init; echo once >> /var/tmp/made",
    }
    job = await world.job(phase, inputs=BOOKS)
    assert world.outputs(job) == ["tool, once\n"] * 3
    assert world.makes.made <= 3


async def test_an_init_that_fails_is_each_tasks_error(world: World) -> None:
    job = await world.job({"exec": "true", "init": "echo no >&2; exit 3"}, inputs=BOOKS)
    said = world.errors(job)
    assert "TaskInitError: user command exited with code 3" in said
    assert {error.code for error in world.jobs.errors(job)} == {"TaskInitError"}
    job = await world.job({"exec": "true", "assets": ["/dap/stor/none"]}, names=["/dap/stor/a"])
    assert world.errors(job) == [
        'TaskInitError: failed to dispatch task: first of 1 error: error retrieving asset "/dap/stor/none" (status code 404)'
    ]


async def test_tasks_of_a_group_follow_each_other_in_a_sandbox_and_no_others_do(world: World) -> None:
    many = {f"/dap/stor/{n}": str(n) for n in range(20)}
    job = await world.job({"exec": "cat; echo > /var/tmp/was-here"}, inputs=many)
    assert len(world.outputs(job)) == 20
    assert world.makes.made <= AT_ONCE
    job = await world.job({"exec": "ls /var/tmp"}, names=["/dap/stor/0"])
    assert world.outputs(job) == [""]


async def test_a_reducer_gets_every_byte_of_every_input(world: World) -> None:
    bodies = {f"/dap/stor/{n}": (chr(97 + n) * 99 + "\n") * 3000 for n in range(8)}
    job = await world.job({"exec": "sort | uniq -c", "type": "reduce"}, inputs=bodies)
    assert [line.split() for line in world.outputs(job)[0].splitlines()] == [
        ["3000", chr(97 + n) * 99] for n in range(8)
    ]


async def test_a_reducer_may_end_before_it_has_read_all(world: World) -> None:
    bodies = {f"/dap/stor/{n}": "x" * 200_000 for n in range(4)}
    job = await world.job({"exec": "head -c 10", "type": "reduce"}, inputs=bodies)
    assert world.outputs(job) == ["x" * 10]


PUT = """
import sys, urllib.request as r
for name, *headers in (line.split() for line in sys.stdin):
    body = None if "x-manta-reference" in headers else b"of " + name.encode()
    request = r.Request("http://localhost" + name, body, dict(zip(headers[::2], headers[1::2])), method="PUT")
    print(r.urlopen(request).status)
"""


async def test_a_task_may_name_its_outputs_itself(world: World) -> None:
    names = "/dap/stor/x x-manta-stream stdout\n/dap/stor/y\n/dap/stor/a x-manta-reference true x-manta-stream stdout\n"
    job = await world.job(
        {"exec": f"echo '{names}' | grep . | python3 -c '{PUT}'"}, {"exec": "cat"}, inputs={"/dap/stor/a": "one"}
    )
    assert world.errors(job) == []
    assert [item.name for item in world.jobs.names(job, 1)] == ["/dap/stor/x", "/dap/stor/a"]
    assert world.outputs(job) == ["of /dap/stor/x", "one"]
    assert world.objects.names["/dap/stor/y"] == b"of /dap/stor/y"


async def test_what_was_handed_on_is_gone_when_the_job_is_done_and_what_the_user_named_is_not(world: World) -> None:
    names = "/dap/stor/x x-manta-stream stdout"
    script = f"test $MANTA_INPUT_OBJECT = /dap/stor/a && echo '{names}' | python3 -c '{PUT}' || cat"
    job = await world.job({"exec": script}, {"exec": "cat"}, {"exec": "sort", "type": "reduce"}, inputs=BOOKS)
    assert world.errors(job) == []
    (out,) = world.outputs(job)
    assert sorted(out.split()) == ["/dap/stor/x", "five", "four", "of", "poochy", "three"]
    below = [name for name in world.objects.names if name.startswith(f"/dap/jobs/{job}/")]
    assert below == [item.name for item in world.jobs.names(job, 3)]
    assert "/dap/stor/x" in world.objects.names


async def test_a_filter_may_hand_on_its_input(world: World) -> None:
    script = f"grep -q poochy && echo $MANTA_INPUT_OBJECT x-manta-reference true | python3 -c '{PUT}'"
    job = await world.job({"exec": "cat"}, {"exec": script}, inputs=BOOKS)
    assert world.outputs(job) == sorted(body for body in BOOKS.values() if "poochy" in body)


MANY = """
import http.client
for start in range(0, 6000, 500):
    connection = http.client.HTTPConnection("localhost", 80)
    for n in range(start, start + 500):
        connection.request("PUT", f"/dap/stor/many/{n}", b"", {"x-manta-reference": "true"})
        assert connection.getresponse().read() == b""
"""


async def test_a_task_may_put_out_any_number_of_names(world: World) -> None:
    job = await world.job({"exec": f"python3 -c '{MANY}'"}, inputs={"/dap/stor/a": "a"})
    assert world.errors(job) == []
    assert [item.name for item in world.jobs.names(job, 1)] == [f"/dap/stor/many/{n}" for n in range(6000)]
    job = await world.job({"exec": f"python3 -c '{MANY}'; exit 1"}, inputs={"/dap/stor/a": "a"})
    assert world.errors(job) == ["UserTaskError: user command exited with code 1"]
    assert world.jobs.names(job, 1) == []


async def test_what_a_task_that_failed_has_put_out_is_no_output(world: World) -> None:
    script = f"echo /dap/stor/x x-manta-stream stdout | python3 -c '{PUT}'; test $MANTA_INPUT_OBJECT = /dap/stor/b"
    job = await world.job({"exec": script}, inputs=BOOKS)
    assert [item.name for item in world.jobs.names(job, 1)] == ["/dap/stor/x"]
    assert len(world.errors(job)) == 2


async def test_who_failed_because_the_storage_api_did_is_tried_again(world: World) -> None:
    world.objects.fails = 1
    script = f"echo /dap/stor/x x-manta-stream stdout | python3 -c '{PUT}'"
    job = await world.job({"exec": script}, inputs={"/dap/stor/a": "a"})
    assert world.errors(job) == []
    assert world.outputs(job) == ["of /dap/stor/x"]
    assert (await world.jobs.look(job)).retries == 1


async def test_a_missing_object_is_an_error_of_its_own(world: World) -> None:
    job = await world.job({"exec": "cat"}, inputs={"/dap/stor/a": "a"}, names=["/dap/stor/a", "/dap/stor/none"])
    assert world.outputs(job) == ["a"]
    assert world.errors(job) == ['ResourceNotFoundError: no such object: "/dap/stor/none"']


async def test_a_task_gets_no_more_disk_than_it_may_have(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "GIB", 1 << 19)
    # What it says counts, too: there has to be room for it.
    script = "said=$(dd if=/dev/zero of=/var/tmp/f bs=1k count=5000 2>&1); rm /var/tmp/f; echo $said | grep -o 'Disk quota exceeded'"
    job = await world.job({"exec": script, "type": "reduce", "disk": 2})
    assert world.errors(job) == []
    assert world.outputs(job) == ["Disk quota exceeded\n"]


@pytest.mark.parametrize("wanted", ["*", "~1.0", "1.1.0"])
async def test_any_image_that_the_host_has_may_be_had(world: World, wanted: str) -> None:
    job = await world.job({"exec": "echo ran", "type": "reduce", "image": wanted})
    assert world.outputs(job) == ["ran\n"]


async def test_an_image_that_no_host_has_is_an_error_of_each_task(world: World) -> None:
    job = await world.job({"exec": "cat", "image": "2"}, inputs=BOOKS)
    assert world.errors(job) == ["InvalidArgumentError: failed to dispatch task: requested image is not available"] * 3
    assert (await world.jobs.look(job)).retries == 0
    assert world.makes.made <= AT_ONCE
    assert world.makes.count == 0


def test_what_tasks_write_goes_past_the_page_cache_a_little_at_a_time(volumes: Path) -> None:
    loop = machine_says("findmnt", "-no", "SOURCE", str(volumes))
    assert machine_says("losetup", "-nO", "DIO", loop) == "1"
    queue = Path("/sys/block") / Path(loop).name / "queue"
    assert [(queue / name).read_text().strip() for name in ("nr_requests", "max_sectors_kb")] == ["4", "128"]


def machine_says(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


async def test_what_a_start_that_died_has_left_is_removed(world: World, volumes: Path) -> None:
    (volumes / "left" / "upper").mkdir(parents=True)
    kinds = [Path("/sys/fs/cgroup") / kind / TASKS_GROUP for kind in cgroups.KINDS]
    for kind in kinds:
        (kind / "of-a-job" / "left").mkdir(parents=True)
    world.makes.sweep()
    assert [path for kind in kinds for path in kind.iterdir() if path.is_dir()] == []
    assert list(volumes.iterdir()) == []
    assert await world.job({"exec": "true", "type": "reduce"})
