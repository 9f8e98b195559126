"""Lists of jobs that are done, written through a small Manta of the tests; jobs in memory, who leads them at once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from mobula.core.clock import SystemClock
from mobula.core.job import parse
from mobula.jobs import archive as archives
from mobula.jobs import front
from mobula.jobs.archive import PAGE, Archive, Pace
from mobula.jobs.archive_front import ArchiveFront
from mobula.jobs.lead import Lead, Located
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import (
    Attempt,
    Cleared,
    Deposed,
    Dispatch,
    Item,
    Job,
    JobError,
    Made,
    Owner,
    Result,
    State,
    Version,
    Work,
    task_id,
)
from mobula.metadata.model import NotFound, Unavailable
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from tests.contract.manta import Manta

OWNER = Owner(uuid.UUID(int=2), "dap")
BOUND_S = 5.0
LISTS = ("in.txt", "out.txt", "fail.txt", "err.txt", "job.json")


class Places:
    """Nothing is anywhere."""

    async def locate(self, _job: Job, phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        return [JobError(phase, "ResourceNotFoundError", "no such object", item.name) for item in items]

    async def follow(self) -> bool:
        return False

    def hosts(self, _version: Version) -> Sequence[str]:
        return ()

    async def delete(self, _job: Job, _cleared: Sequence[Cleared]) -> None: ...


class Flaky(MemoryJobs):
    """Pages that can't be read, so many times; how many names were asked for at a time."""

    fails = 0
    most = 0

    async def items(self, job: uuid.UUID, stage: int, after: int, limit: int) -> Sequence[Item]:
        self.most = max(self.most, limit)
        if after and limit == PAGE and self.fails:
            self.fails -= 1
            raise Unavailable("no answer")
        return await super().items(job, stage, after, limit)


@dataclass
class World:
    manta: Manta
    front: ArchiveFront
    jobs: Flaky = field(default_factory=Flaky)
    pace: Pace = Pace(0.2, 60.0, 0.2)  # noqa: RUF009 (frozen)

    @contextlib.asynccontextmanager
    async def led(self) -> AsyncIterator[asyncio.Task[None]]:
        """A term. It ends with the block."""
        clock = SystemClock()
        lead = Lead(self.jobs, Places(), clock)
        archive = Archive(self.jobs, self.front, lead, clock, self.pace)
        tasks = [asyncio.create_task(duty.work()) for duty in (archive, lead)]
        try:
            async with asyncio.timeout(BOUND_S):
                self.lead, self.epoch = lead, await lead.led()
                yield tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def job(self, *phases: str, names: Sequence[str] = ()) -> uuid.UUID:
        job = uuid.uuid4()
        document = {"name": "n", "phases": [{"exec": phase} for phase in phases or ("wc",)]}
        await self.jobs.create(job, OWNER, parse(json.dumps(document).encode()))
        await self.jobs.add(job, names)
        for folder in ("", "/live", "/stor"):
            self.manta.directory(f"/dap/jobs/{job}{folder}")
        return job

    async def finish(self, job: uuid.UUID) -> None:
        await self.jobs.end(job)
        self.lead.wake(job)

    async def until(self, job: uuid.UUID, *, live: bool = True) -> Job:
        """Archived, or no more live."""
        while (row := await self.jobs.look(job)).archived is None or row.live is not live:
            await asyncio.sleep(0.001)
        return row

    def text(self, job: uuid.UUID, name: str) -> str:
        data = self.manta.things[f"/dap/jobs/{job}/{name}"].data
        assert data is not None
        return data.decode()


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(front, "PAUSE_S", 0.001)
    monkeypatch.setattr(archives, "SWEEP_S", 0.02)
    manta, client = Manta(), HttpClient()
    server = HttpServer(manta.handle)
    address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    yield World(manta, ArchiveFront(client, lambda: address, lambda job: f"of-{job.owner.login}"))
    await client.close()
    await server.stop(1)


async def unavailable(_request: Request, response: Response) -> None:
    await response.send_error(503, "ServiceUnavailable", "not now")


async def forbidden(_request: Request, response: Response) -> None:
    await response.send_error(403, "AuthorizationFailed", "no")


async def test_the_lists_of_a_job_are_written_when_it_is_done(world: World) -> None:
    world.pace = Pace()
    async with world.led():
        job = await world.job(names=["/dap/stor/a", "//dap/ä b", "/dap/none"])
        await world.jobs.begin(world.epoch, job)
        missing = JobError(0, "ResourceNotFoundError", 'no such object: "/dap/none"', "/dap/none")
        works = [Work(0, "/dap/stor/a"), Work(0, "/dap/ä b")]
        await world.jobs.dispatch(world.epoch, Dispatch(job, 0, 0, 3, works, [], [missing]))
        good, bad = Attempt(job, 1), Attempt(job, 2)
        await world.jobs.hand_out(world.epoch, [good, bad], "s-a/7")
        error = JobError(0, "UserTaskError", "user command exited with code 1", "/dap/ä b", "", "/dap/e", "")
        await world.jobs.commit(
            world.epoch, [Result(good, [Made("/dap/o/1"), Made("/dap/o/2")]), Result(bad, error=error)]
        )
        await world.finish(job)
        row = await world.until(job)
    assert world.text(job, "in.txt") == "/dap/stor/a\n//dap/ä b\n/dap/none\n"
    assert world.text(job, "out.txt") == "/dap/o/1\n/dap/o/2\n"
    assert world.text(job, "fail.txt") == "/dap/none\n/dap/ä b\n"
    lines = [json.loads(line) for line in world.text(job, "err.txt").splitlines()]
    assert [(line["what"], line.get("taskId"), line.get("server")) for line in lines] == [
        ('phase 0: input "/dap/none"', None, None),
        ('phase 0: input "/dap/ä b"', str(task_id(bad)), "s-a"),
    ]
    assert lines[1]["stderr"] == "/dap/e"
    whole = json.loads(world.text(job, "job.json"))
    assert (whole["id"], whole["state"], whole["stats"]["outputs"], whole["stats"]["errors"]) == (
        str(job),
        "done",
        2,
        2,
    )
    assert row.archive_started is not None
    assert row.archived is not None
    assert dt.datetime.fromisoformat(whole["timeArchiveDone"]) == row.archived.replace(
        microsecond=row.archived.microsecond // 1000 * 1000
    )
    assert whole["timeDone"] <= whole["timeArchiveStarted"] <= whole["timeArchiveDone"]
    assert row.live


async def test_a_job_with_nothing_has_empty_lists(world: World) -> None:
    async with world.led():
        job = await world.job()
        await world.finish(job)
        await world.until(job)
    assert [world.text(job, name) for name in LISTS[:4]] == [""] * 4


@pytest.mark.parametrize("count", [1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, 5 * PAGE + 7])
async def test_a_list_of_any_length_is_written_page_by_page(world: World, count: int) -> None:
    names = [f"/dap/stor/{n}" for n in range(count)]
    async with world.led():
        job = await world.job(names=names)
        await world.finish(job)
        await world.until(job)
    for name in ("in.txt", "fail.txt"):
        assert world.text(job, name) == "".join(f"{one}\n" for one in names)
    assert world.text(job, "err.txt").count("\n") == count
    assert world.jobs.most <= PAGE


async def test_what_can_not_be_written_now_is_tried_again(world: World) -> None:
    names = [f"/dap/stor/{n}" for n in range(3 * PAGE)]
    world.jobs.fails, world.manta.faults = 2, [unavailable] * 30
    async with world.led():
        job = await world.job(names=names)
        await world.finish(job)
        await world.until(job)
    assert world.text(job, "in.txt") == "".join(f"{one}\n" for one in names)
    assert not world.manta.faults


async def test_job_json_comes_last(world: World) -> None:
    async with world.led():
        job = await world.job()
        await world.finish(job)
        await world.until(job)
    puts = [target.decode().rpartition("/")[2] for method, target in world.manta.seen if method == "PUT"]
    assert sorted(puts[:4]) == sorted(LISTS[:4])
    assert puts[4:] == ["job.json"]


async def test_a_job_whose_directory_is_gone_has_no_lists(world: World) -> None:
    async with world.led():
        job = await world.job(names=["/dap/stor/a"])
        world.manta.things.clear()
        await world.finish(job)
        await world.until(job, live=False)
    assert not world.manta.things


async def test_a_job_whose_user_may_not_write_goes_without_in_the_end(world: World) -> None:
    world.manta.faults = [forbidden] * 10_000
    async with world.led():
        job = await world.job()
        await world.finish(job)
        row = await world.until(job, live=False)
    assert row.done is not None
    assert row.archived is not None
    assert (row.archived - row.done).total_seconds() >= world.pace.refused_s


async def test_who_comes_after_a_supervisor_that_died_in_the_middle_begins_again(world: World) -> None:
    job = await world.job(names=[f"/dap/stor/{n}" for n in range(3 * PAGE)])
    stuck = asyncio.Event()

    async def stand_still(_request: Request, _response: Response) -> None:
        stuck.set()
        await asyncio.sleep(BOUND_S)

    world.manta.faults = [stand_still] * 5
    async with world.led():
        await world.finish(job)
        await stuck.wait()
    row = await world.jobs.look(job)
    assert (row.state, row.archived) == (State.DONE, None)
    world.manta.faults = []
    async with world.led():
        await world.until(job)
    assert all(world.text(job, name) for name in ("in.txt", "fail.txt", "err.txt", "job.json"))


async def test_a_job_is_closed_when_it_was_live_for_long_enough_and_then_its_rows_go(world: World) -> None:
    world.pace = Pace(0.1, 0.6)
    async with world.led():
        job = await world.job(names=[f"/dap/stor/{n}" for n in range(5000)])
        await world.finish(job)
        row = await world.until(job)
        assert f"/dap/jobs/{job}/live" in world.manta.things
        row = await world.until(job, live=False)
        assert row.archived is not None
        assert (dt.datetime.now(dt.UTC) - row.archived).total_seconds() >= 0.1
        assert f"/dap/jobs/{job}/live" not in world.manta.things
        assert f"/dap/jobs/{job}/stor" in world.manta.things
        with contextlib.suppress(NotFound):
            while True:
                await world.jobs.look(job)
                await asyncio.sleep(0.01)
    assert (dt.datetime.now(dt.UTC) - row.archived).total_seconds() >= 0.6
    assert f"/dap/jobs/{job}/in.txt" in world.manta.things


async def test_long_lists_do_not_keep_others_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SWEEP_S", 60.0)
    slow = await world.job(names=["/dap/slow"])
    names = Archive._names

    async def slowly(self: Archive, row: Job, stage: int) -> AsyncGenerator[bytes]:
        if row.id == slow:
            await asyncio.sleep(60)
        async for page in names(self, row, stage):
            yield page

    monkeypatch.setattr(Archive, "_names", slowly)
    async with world.led():
        await world.finish(slow)
        for job in [await world.job() for _ in range(20)]:
            await world.finish(job)
            await world.until(job)
        assert (await world.jobs.look(slow)).archived is None


async def test_who_is_followed_by_another_supervisor_archives_no_more(world: World) -> None:
    async with world.led() as working:
        job = await world.job()
        await world.jobs.lead()
        await world.jobs.cancel(job)
        await world.jobs.finish(world.epoch + 1, job)
        with pytest.raises(Deposed):
            await working


async def test_it_asks_as_the_jobs_user(world: World) -> None:
    asked: list[str | None] = []

    async def look(request: Request, response: Response) -> None:
        asked.append(request.headers.get("authorization"))
        await world.manta.serve(request, response)

    world.manta.faults = [look] * 5
    async with world.led():
        job = await world.job()
        await world.finish(job)
        await world.until(job)
    assert asked == ["Token of-dap"] * 5
