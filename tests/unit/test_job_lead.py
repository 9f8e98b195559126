"""Leading a shard's jobs: supervisors and agents of this test, jobs in memory, a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mobula.core.clock import ManualClock
from mobula.core.job import parse
from mobula.jobs import lead
from mobula.jobs.lead import AGAIN_S, IDLE_LOOK_S, SILENCE_S, SWEEP_S, Agent, Lead, Located, Order
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
    Task,
    Version,
)
from mobula.metadata.model import OutcomeUnknown, Unavailable

OWNER = Owner(uuid.UUID(int=2), "dap")
MAP, REDUCE = {"exec": "wc"}, {"exec": "sort", "type": "reduce", "count": 2}
A, B = Agent("s-a", "1"), Agent("s-b", "1")
BOUND_S = 5.0


class Places:
    """Every name is an object with copies on s-a and s-b, but for those that say otherwise."""

    where = ("s-a", "s-b")
    moved = False

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.away = 0

    async def delete(self, _job: Job, cleared: Sequence[Cleared]) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("no answer")
        self.deleted += [one.name for one in cleared]

    async def locate(self, _job: Job, phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        return [self._of(phase, item) for item in items]

    def _of(self, phase: int, item: Item) -> Located | JobError:
        if "missing" in item.name:
            return JobError(phase, "ResourceNotFoundError", f'no such object: "{item.name}"', item.name)
        return Located(
            item.name, None if "empty" in item.name else Version(OWNER.account, uuid.UUID(int=9), 1, b"", 1, 2)
        )

    async def follow(self) -> bool:
        moved, self.moved = self.moved, False
        return moved

    def hosts(self, _version: Version) -> Sequence[str]:
        return self.where


class Flaky(MemoryJobs):
    """Handing out, or dispatching, is written down, and nobody learns of it, so many times; and answers may be late."""

    fails = unknown = 0

    def __init__(self) -> None:
        super().__init__()
        self.answers, self.asked = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def open_tasks(self, job: uuid.UUID) -> Sequence[Task]:
        """As they were when it was asked, though the answer comes later."""
        found = await super().open_tasks(job)
        self.asked.set()
        await self.answers.wait()
        return found

    async def dispatch(self, epoch: int, what: Dispatch) -> bool:
        done = await super().dispatch(epoch, what)
        if self.unknown:
            self.unknown -= 1
            raise OutcomeUnknown("no answer")
        return done

    async def hand_out(self, epoch: int, attempts: Sequence[Attempt], agent: str) -> Sequence[Attempt]:
        begun = await super().hand_out(epoch, attempts, agent)
        if self.fails:
            self.fails -= 1
            raise Unavailable("no answer")
        return begun


class World:
    """Jobs, and who leads them."""

    def __init__(self) -> None:
        self.jobs = Flaky()
        self.clock = ManualClock()
        self.places = Places()
        self.lead = Lead(self.jobs, self.places, self.clock)

    async def job(self, *phases: dict[str, Any], names: Sequence[str] = (), end: bool = True) -> uuid.UUID:
        job = uuid.uuid4()
        await self.jobs.create(job, OWNER, parse(json.dumps({"phases": phases}).encode()))
        await self.jobs.add(job, names)
        if end:
            await self.jobs.end(job)
        self.lead.wake(job)
        return job

    def later(self, seconds: float) -> None:
        """Time passes, and the supervisor sees to everything."""
        self.clock.advance(seconds)
        self.lead.wake(uuid.UUID(int=0))

    async def orders(self, agent: Agent, slots: int = 64, held: Sequence[Attempt] | None = None) -> list[Order]:
        """What an agent gets; waits until there is something."""
        async with asyncio.timeout(BOUND_S):
            while not (found := await self.lead.orders(agent, slots, held, wait_s=0.05)):
                self.clock.advance(0.05)
        return list(found)

    async def work_off(self, agent: Agent, job: uuid.UUID) -> None:
        """Everything that there is, by an agent whose tasks put out one name each."""
        async with asyncio.timeout(BOUND_S):
            while (await self.jobs.look(job)).state != State.DONE:
                for order in await self.lead.orders(agent, 64, None, wait_s=0.01):
                    await self.end(agent, order)
                self.clock.advance(SWEEP_S)

    async def end(self, agent: Agent, order: Order) -> None:
        """A task ends; a reducer takes all that it is fed first."""
        work, name = order.task.work, order.task.work.name
        if work.reducer is not None:
            got: list[str] = []
            after, whole = 0, False
            while not whole:
                feeds, whole = await self.lead.feed(order.job.id, work.phase, work.reducer, after, 2)
                got += [feed.name for feed in feeds]
                after = feeds[-1].number if feeds else after
                await asyncio.sleep(0)
            name = f"({'+'.join(sorted(got))})"
        await self.lead.results(agent, [Result(order.task.attempt, [Made(f"{name}.{work.phase}")])])

    async def until(self, job: uuid.UUID, **wanted: object) -> Job:
        async with asyncio.timeout(BOUND_S):
            while True:
                row = await self.jobs.look(job)
                if all(getattr(row, name) == value for name, value in wanted.items()):
                    return row
                await asyncio.sleep(0.001)

    def names(self, job: uuid.UUID, stage: int) -> list[str]:
        return sorted(item.name for item in self.jobs.names(job, stage))


@contextlib.asynccontextmanager
async def led(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.lead.work())
    try:
        async with asyncio.timeout(BOUND_S):
            while not world.lead.leads:
                await asyncio.sleep(0)
        yield world
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})


def attempts(orders: Sequence[Order]) -> list[Attempt]:
    return [order.task.attempt for order in orders]


async def test_a_map_runs_once_on_each_input_that_is_there() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/d/s/1", "/d/s/missing", "/d/s/empty"])
        await world.work_off(A, job)
        row = await world.jobs.look(job)
        assert world.names(job, 1) == ["/d/s/1.0", "/d/s/empty.0"]
        assert (row.tasks, row.tasks_done, row.errors, row.retries) == (2, 2, 1, 0)
        assert [error.message for error in world.jobs.errors(job)] == ['no such object: "/d/s/missing"']


async def test_a_reducer_without_inputs_runs_once() -> None:
    async with led(World()) as world:
        job = await world.job({"exec": "wc", "type": "reduce"})
        await world.work_off(A, job)
        assert world.names(job, 1) == ["().0"]


async def test_phases_hand_on_what_they_put_out() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, REDUCE, MAP, names=[f"/{n}" for n in range(9)])
        await world.work_off(A, job)
        found = "".join(world.names(job, 3))
        assert sorted(x for x in found if x.isdigit()) == sorted([*"012345678", *"0" * 9, *"11", *"22"])


async def test_a_reducer_that_is_not_there_is_an_error() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, REDUCE, names=["/1"])
        (order,) = [o for o in await world.orders(A) if o.task.work.reducer is None]
        await world.lead.results(A, [Result(order.task.attempt, [Made("/o", 2), Made("/p", 1)])])
        await world.work_off(A, job)
        assert [error.message for error in world.jobs.errors(job)] == [
            'reducer "2" specified, but only 2 reducers exist'
        ]
        assert world.names(job, 2) == ["().1", "(/p).1"]


async def test_an_agent_has_as_many_as_it_has_room_for() -> None:
    async with led(World()) as world:
        await world.job(MAP, names=[f"/{n}" for n in range(9)])
        first = await world.orders(A, 4)
        assert len(first) == 3  # one slot stays free for another job
        assert await world.lead.orders(A, 4, None, wait_s=0.01) == []
        await world.lead.results(A, [Result(first[0].task.attempt)])
        assert len(await world.orders(A, 4)) == 1


async def test_a_silent_agents_tasks_are_done_by_another_and_what_it_says_later_does_not_count() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1", "/2"])
        lost = await world.orders(A)
        world.later(SILENCE_S + 1)
        again = await world.orders(B)
        assert attempts(again) == [replace(attempt, number=1) for attempt in attempts(lost)]
        assert world.lead.strangers(A, attempts(lost)) == attempts(lost)
        await world.lead.results(A, [Result(order.task.attempt, [Made("/late")]) for order in lost])
        for order in again:
            await world.end(B, order)
        row = await world.until(job, state=State.DONE)
        assert world.names(job, 1) == ["/1.0", "/2.0"]
        assert (row.retries, row.tasks, row.tasks_done, row.errors) == (2, 4, 4, 0)


async def test_a_task_that_was_lost_goes_back_to_who_lost_it_only_if_nobody_else_is_there() -> None:
    async with led(World()) as world:
        await world.job(MAP, names=["/1"])
        (lost,) = await world.orders(A)
        await world.lead.orders(B, 64, None, wait_s=0)
        again = Agent(A.host, "2")
        assert await world.lead.orders(again, 64, None, wait_s=0.05) == []  # B is there
        world.clock.advance(SILENCE_S - 1)
        await world.lead.orders(again, 64, None, wait_s=0)
        world.later(2)
        assert attempts(await world.orders(again)) == [replace(lost.task.attempt, number=1)]


async def test_an_agent_that_started_again_has_lost_what_it_had() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1"])
        (lost,) = await world.orders(A)
        (again,) = await world.orders(Agent(A.host, "2"))
        assert again.task.attempt == replace(lost.task.attempt, number=1)
        assert (await world.jobs.look(job)).retries == 1


async def test_a_task_that_is_lost_three_times_is_an_internal_error() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1"])
        for generation in "123":
            await world.orders(Agent(A.host, generation))
        await world.lead.orders(Agent(A.host, "4"), 64, None, wait_s=0)
        row = await world.until(job, state=State.DONE)
        assert (row.errors, row.retries, row.tasks, row.tasks_done) == (1, 2, 3, 3)
        assert [(e.code, e.message) for e in world.jobs.errors(job)] == [("InternalError", "internal error")]


async def test_orders_that_did_not_arrive_are_given_again() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1"])
        world.jobs.fails = 1
        with pytest.raises(Unavailable):
            await world.orders(A)
        assert await world.lead.orders(A, 64, [], wait_s=0) == []  # it may be on its way
        world.clock.advance(AGAIN_S)
        (order,) = await world.orders(A, held=[])
        assert await world.lead.orders(A, 64, [order.task.attempt], wait_s=0) == []
        await world.end(A, order)
        row = await world.until(job, state=State.DONE)
        assert (row.tasks, row.retries) == (1, 0)


async def test_a_dispatch_of_which_nobody_heard_is_found() -> None:
    async with led(World()) as world:
        world.jobs.unknown = 1
        job = await world.job(MAP, names=["/1"])
        await world.work_off(A, job)
        assert world.names(job, 1) == ["/1.0"]


async def test_a_task_that_ended_while_open_ones_were_read_takes_nobodys_slot() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1"], end=False)
        (first,) = await world.orders(A)
        world.jobs.asked.clear()
        world.jobs.answers.clear()
        await world.jobs.add(job, ["/2"])
        world.lead.wake(job)
        await asyncio.wait_for(world.jobs.asked.wait(), BOUND_S)
        await world.end(A, first)
        world.jobs.answers.set()
        assert [order.task.work.name for order in await world.orders(A, slots=1)] == ["/2"]


async def test_another_supervisor_goes_on_where_the_first_one_was() -> None:
    world = World()
    async with led(world):
        job = await world.job(MAP, REDUCE, names=["/1", "/2", "/3"])
        first, *others = [order for order in await world.orders(A) if order.task.work.reducer is None]
        await world.end(A, first)
        await world.until(job, tasks_done=1)
    world.lead = Lead(world.jobs, Places(), world.clock)
    async with led(world):
        for order in others:
            await world.end(A, order)
        await world.work_off(A, job)
        row = await world.jobs.look(job)
        assert (row.retries, row.errors, row.tasks) == (0, 0, 5)


async def test_what_an_agent_had_that_no_supervisor_has_met_is_given_up_in_the_end() -> None:
    world = World()
    async with led(world):
        job = await world.job(MAP, names=["/1"])
        await world.orders(A)
    world.lead = Lead(world.jobs, Places(), world.clock)
    async with led(world):
        assert await world.lead.orders(B, 64, None, wait_s=0.01) == []
        world.later(SILENCE_S + 1)
        (order,) = await world.orders(B)
        await world.end(B, order)
        assert (await world.until(job, state=State.DONE)).retries == 1


async def test_a_cancelled_job_is_nobodys_any_more() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=["/1", "/2"])
        (order,) = await world.orders(A, 2)
        other = await world.job(MAP, names=["/3"])
        await world.jobs.cancel(job)
        world.lead.wake(job)
        await world.until(job, state=State.DONE)
        assert len(world.jobs.errors(job)) == 2
        assert [o.job.id for o in await world.orders(A)] == [other]
        assert world.lead.strangers(A, [order.task.attempt]) == [order.task.attempt]


async def test_a_task_whose_copies_have_moved_goes_where_they_are_now() -> None:
    async with led(World()) as world:
        await world.job(MAP, names=["/1"])
        assert await world.lead.orders(Agent("s-c", "1"), 64, None, wait_s=0.05) == []
        world.places.where, world.places.moved = ("s-c",), True
        world.later(SWEEP_S)
        assert len(await world.orders(Agent("s-c", "1"))) == 1
        assert await world.lead.orders(A, 64, None, wait_s=0.01) == []


OLD, NEW = Agent("s-a", "1", ("1.0.0",)), Agent("s-b", "1", ("1.0.0", "2.0.0"))


async def test_a_task_goes_to_who_has_its_image() -> None:
    async with led(World()) as world:
        await world.lead.orders(OLD, 64, None, wait_s=0)
        await world.lead.orders(NEW, 64, None, wait_s=0)
        await world.job({**MAP, "image": "2"}, names=["/1", "/empty"])
        assert await world.lead.orders(OLD, 64, None, wait_s=0.05) == []
        assert len(await world.orders(NEW)) == 2


async def test_nobody_says_that_there_is_no_image_before_all_were_heard() -> None:
    async with led(World()) as world:
        await world.job({**MAP, "image": "2"}, names=["/1", "/empty"])
        assert await world.lead.orders(OLD, 64, None, wait_s=0.05) == []
        world.clock.advance(SILENCE_S - 1)
        assert len(await world.orders(NEW)) == 2
        await world.job({**MAP, "image": "2"}, names=["/2", "/empty"])
        assert await world.lead.orders(OLD, 64, None, wait_s=0.05) == []


async def test_an_image_that_nobody_has_is_told_by_whoever_is_given_the_task() -> None:
    async with led(World()) as world:
        await world.job({**MAP, "image": "3"}, names=["/1", "/empty"])
        assert await world.lead.orders(OLD, 64, None, wait_s=0.05) == []
        world.later(SILENCE_S + 1)
        assert len(await world.orders(NEW, 1)) == 1
        assert len(await world.orders(OLD)) == 1


async def test_who_is_followed_by_another_supervisor_ends() -> None:
    world = World()
    task = asyncio.create_task(world.lead.work())
    await world.job(MAP, names=["/1"])
    (order,) = await world.orders(A)
    await world.jobs.lead()
    await world.job(MAP, names=["/2"])
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(Deposed):
            await task
    with pytest.raises(Deposed):
        await world.lead.results(A, [Result(order.task.attempt)])


async def handing_on(world: World, count: int, **options: bool) -> uuid.UUID:
    """A job whose first phase puts out names of its own, and some of the user's."""
    job = uuid.uuid4()
    document = {"phases": [MAP, MAP, REDUCE], "options": options}
    await world.jobs.create(job, OWNER, parse(json.dumps(document).encode(), operator=True))
    await world.jobs.add(job, [f"/dap/jobs/{job}/stor/in{n}" for n in range(count)])
    await world.jobs.end(job)
    world.lead.wake(job)
    return job


async def test_what_was_handed_on_is_deleted_once_it_is_not_needed() -> None:
    async with led(World()) as world:
        job = await handing_on(world, 150)
        base = f"/dap/jobs/{job}/stor/in"
        first = [order for order in await world.orders(A, 256) if order.task.work.reducer is None]
        assert not any(order.task.work.clears for order in first)  # a user's inputs
        await world.lead.results(
            A, [Result(o.task.attempt, [Made(f"{o.task.work.name}.0"), Made("/dap/u")]) for o in first]
        )
        await world.work_off(A, job)
        handed_on = [f"{base}{n}.0" for n in range(150)]
        assert sorted(world.places.deleted) == sorted([*handed_on, *(f"{name}.1" for name in handed_on)])
        row = await world.jobs.look(job)
        assert (row.clearing, row.errors, row.sizes) == (0, 0, (150, 300, 300, 2))


async def test_nothing_is_deleted_of_a_job_that_keeps_it() -> None:
    async with led(World()) as world:
        job = await handing_on(world, 3, keepIntermediate=True)
        await world.work_off(A, job)
        assert world.places.deleted == []


async def test_what_can_not_be_deleted_now_is_later_and_the_job_is_done_then() -> None:
    async with led(World()) as world:
        world.places.away = 2
        job = await handing_on(world, 3)
        await world.work_off(A, job)
        assert len(world.places.deleted) == 6


async def test_what_one_supervisor_did_not_delete_the_next_one_does() -> None:
    world = World()
    world.places.away = 10**9
    async with led(world):
        job = await handing_on(world, 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await world.work_off(A, job)
        assert (await world.jobs.look(job)).clearing
    places = Places()
    world.lead = Lead(world.jobs, places, world.clock)
    async with led(world):
        await world.work_off(A, job)
        assert len(places.deleted) == 6


async def test_an_input_that_nobody_adds_to_is_ended() -> None:
    world = World()
    world.lead = Lead(world.jobs, world.places, world.clock, idle_s=0.2)
    async with led(world):
        job = await world.job(MAP, names=["/1"], end=False)
        world.later(IDLE_LOOK_S)
        (order,) = await world.orders(A)
        await world.end(A, order)
        assert not (await world.until(job, tasks_done=1)).input_ended
        await asyncio.sleep(0.2)
        world.later(IDLE_LOOK_S)
        assert (await world.until(job, state=State.DONE)).input_ended


async def test_a_long_job_keeps_a_window_of_tasks_in_memory() -> None:
    async with led(World()) as world:
        job = await world.job(MAP, names=[f"/{n}" for n in range(5000)])
        row = await world.until(job, tasks=2000)
        assert row.open == (2000,)
        assert world.lead.says.startswith("1 jobs, 2000 open tasks")


async def test_a_term_begins_once_the_shard_has_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead, "BEGIN_AGAIN_S", 0.0)
    world = World()
    begin, away = world.jobs.lead, [Unavailable("no leader"), OutcomeUnknown("it has gone")]

    async def unsteady() -> int:
        if away:
            raise away.pop()
        return await begin()

    monkeypatch.setattr(world.jobs, "lead", unsteady)
    task = asyncio.create_task(world.lead.work())
    async with asyncio.timeout(5):
        assert await world.lead.led() > 0
    task.cancel()
    await asyncio.wait({task})
    assert away == []
