"""What every implementation of `JobDoor` and `Jobs` promises: run on the one in memory and on PostgreSQL of the base image."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from mobula.core.job import JobDocument, parse
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.job_store import PostgresJobDoor, PostgresJobs
from mobula.metadata.jobs import (
    Archives,
    Attempt,
    Cleared,
    Deposed,
    Dispatch,
    Due,
    Feed,
    InvalidState,
    Item,
    Job,
    JobDoor,
    JobError,
    Jobs,
    Lost,
    Made,
    Owner,
    Result,
    State,
    Task,
    Version,
    Work,
)
from mobula.metadata.model import NotFound, Refusal
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client
from tests.probe import shard

MAP = {"exec": "wc"}
REDUCE = {"exec": "sort", "type": "reduce", "count": 2}
SOME = Version(uuid.UUID(int=5), uuid.UUID(int=6), 4096, bytes(range(16)), 3, 2)
FAILED = JobError(0, "UserTaskError", "user command exited with code 1", "/dap/stor/a", "", "/dap/e", "")


@dataclass(frozen=True)
class Tier:
    """An implementation; on PostgreSQL of one shard, which has the jobs of all tests."""

    door: JobDoor
    jobs: Jobs
    archives: Archives


@pytest.fixture(scope="session")
def one_shard() -> Iterator[shard.Shards]:
    with shard.shards(1) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.probe)])
def running(request: pytest.FixtureRequest) -> shard.Shards | None:
    """The shard to run on, None for memory."""
    return None if request.param == "memory" else request.getfixturevalue("one_shard")


@pytest_asyncio.fixture
async def tier(running: shard.Shards | None) -> AsyncIterator[Tier]:
    if running is None:
        memory = MemoryJobs()
        yield Tier(memory, memory, memory)
        return
    client = Client([running.zookeeper.address])
    client.start()
    store = PostgresMetadata(client, running.postgres)
    store.start()
    try:
        await client.wait_connected(10)
        await store.region_init([], 1)
        await store.wait_mapped()
        jobs = PostgresJobs(store, 1)
        yield Tier(PostgresJobDoor(store), jobs, jobs)
    finally:
        store.stop()
        await client.stop()


def document(*phases: dict[str, Any]) -> JobDocument:
    return parse(json.dumps({"name": "n", "phases": phases}).encode())


OWNER = Owner(uuid.UUID(int=2), "dap", uuid.UUID(int=3))


async def made(tier: Tier, *phases: dict[str, Any], names: Sequence[str] = ()) -> uuid.UUID:
    job = uuid.uuid4()
    await tier.door.create(job, OWNER, document(*phases))
    if names:
        await tier.door.add(job, names)
    return job


async def running_tasks(tier: Tier, epoch: int, job: uuid.UUID, names: Sequence[str]) -> list[Attempt]:
    """Inputs of phase 0, handed to agent `a`."""
    await tier.door.add(job, names)
    await tier.jobs.begin(epoch, job)
    works = [Work(0, name, "", SOME) for name in names]
    assert await tier.jobs.dispatch(epoch, Dispatch(job, 0, 0, len(names), works))
    attempts = [task.attempt for task in await tier.jobs.open_tasks(job) if task.work.reducer is None]
    assert list(await tier.jobs.hand_out(epoch, attempts, "a")) == attempts
    return attempts


async def test_a_new_job_is_queued_and_empty(tier: Tier) -> None:
    job = await made(tier, MAP, REDUCE)
    expected = Job(job, OWNER, document(MAP, REDUCE), State.QUEUED, False, False, (0, 0, 0), (0, 0), (0, 0))
    assert await tier.door.look(job) == expected
    await tier.door.create(job, OWNER, document(MAP))
    assert await tier.door.look(job) == expected
    assert expected in await tier.jobs.unfinished()


async def test_a_job_that_is_not_there_is_not_found(tier: Tier) -> None:
    nobody = uuid.uuid4()
    for call in (
        tier.door.look(nobody),
        tier.door.add(nobody, ["/a"]),
        tier.door.end(nobody),
        tier.door.cancel(nobody),
    ):
        with pytest.raises(NotFound):
            await call


async def test_inputs_are_numbered_as_they_come(tier: Tier) -> None:
    job = await made(tier, MAP, names=["/dap/stor/a", "//dap/ä b"])
    await tier.door.add(job, [])
    await tier.door.add(job, ["/dap/stor/a"])
    assert (await tier.door.look(job)).sizes == (3, 0)
    expected = [Item(1, "/dap/stor/a"), Item(2, "//dap/ä b"), Item(3, "/dap/stor/a")]
    assert await tier.jobs.items(job, 0, 0, 9) == expected
    assert await tier.jobs.items(job, 0, 1, 1) == expected[1:2]
    assert await tier.jobs.items(job, 0, 3, 9) == []
    assert await tier.jobs.items(job, 1, 0, 9) == []


async def test_inputs_that_come_at_once_are_all_numbered_without_a_gap(tier: Tier) -> None:
    job = await made(tier, MAP)
    await asyncio.gather(*(tier.door.add(job, [f"/{n}/{m}" for m in range(5)]) for n in range(12)))
    found = await tier.jobs.items(job, 0, 0, 100)
    assert [item.number for item in found] == list(range(1, 61))
    assert {item.name for item in found} == {f"/{n}/{m}" for n in range(12) for m in range(5)}


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ((), {}),
        (("end",), {"add": "inputDone"}),
        (("cancel",), {"add": "cancelled", "end": "cancelled", "cancel": "cancelled"}),
        (("end", "cancel"), {"add": "cancelled", "end": "cancelled", "cancel": "cancelled"}),
        (("end", "finish"), {"add": "done", "end": "done", "cancel": "done"}),
        (("cancel", "finish"), {"add": "done", "end": "done", "cancel": "done"}),
    ],
)
async def test_what_a_client_may_still_do(tier: Tier, before: tuple[str, ...], refused: dict[str, str]) -> None:
    epoch = await tier.jobs.lead()
    for then in ("add", "end", "cancel"):
        job = await made(tier, MAP)
        await tier.jobs.begin(epoch, job)
        calls: dict[str, Callable[[], Awaitable[None]]] = {
            "add": lambda job=job: tier.door.add(job, ["/a"]),  # type: ignore[misc]
            "end": lambda job=job: tier.door.end(job),  # type: ignore[misc]
            "cancel": lambda job=job: tier.door.cancel(job),  # type: ignore[misc]
            "finish": lambda job=job: tier.jobs.finish(epoch, job),  # type: ignore[misc]
        }
        for step in before:
            await calls[step]()
        if then not in refused:
            await calls[then]()
            continue
        with pytest.raises(InvalidState) as caught:
            await calls[then]()
        assert caught.value.found == refused[then]


async def test_a_job_that_begins_has_its_reducers(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, REDUCE, MAP, REDUCE)
    for _ in range(2):
        await tier.jobs.begin(epoch, job)
        found = await tier.door.look(job)
        assert (found.state, found.open, found.tasks) == (State.RUNNING, (0, 2, 0, 2), 4)
    tasks = await tier.jobs.open_tasks(job)
    assert [task.work for task in tasks] == [Work(p, reducer=r) for p in (1, 3) for r in (0, 1)]
    assert [task.attempt for task in tasks] == [Attempt(job, n) for n in (1, 2, 3, 4)]


async def test_items_are_dispatched_once(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, REDUCE, names=["/a", "/b", "/c"])
    work = Work(0, "/a", "", SOME)
    what = Dispatch(job, 0, 0, 2, [work, Work(0, "/b")], [], [replace(FAILED, name="/c")])
    assert not await tier.jobs.dispatch(epoch, what)  # it has not begun
    await tier.jobs.begin(epoch, job)
    for first in (True, False):
        assert await tier.jobs.dispatch(epoch, what) is first
        found = await tier.door.look(job)
        assert (found.cursors, found.open, found.tasks, found.errors) == ((2, 0), (2, 2), 4, 1)
    assert not await tier.jobs.dispatch(epoch, replace(what, after=1, upto=3))
    assert await tier.jobs.dispatch(epoch, Dispatch(job, 0, 2, 3))
    assert [task.work for task in await tier.jobs.open_tasks(job)][2:] == [work, Work(0, "/b")]


async def test_an_attempt_is_one_agents(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    first, second = await running_tasks(tier, epoch, job, ["/a", "/b"])
    assert await tier.jobs.hand_out(epoch, [first, second], "b") == []
    assert await tier.jobs.hand_out(epoch, [second, replace(first, number=1), first], "a") == [second, first]
    assert {task.agent for task in await tier.jobs.open_tasks(job)} == {"a"}


async def test_what_tasks_made_is_the_next_stage_in_the_order_of_the_results(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, MAP)
    a, b, c = await running_tasks(tier, epoch, job, ["/a", "/b", "/c"])
    results = [Result(b, [Made("/o/1", 7), Made("/o/2")]), Result(a, error=FAILED), Result(c)]
    assert sorted(x.task for x in await tier.jobs.commit(epoch, results)) == [1, 2, 3]
    assert await tier.jobs.items(job, 1, 0, 9) == [Item(1, "/o/1", "/b", 7), Item(2, "/o/2", "/b")]
    found = await tier.door.look(job)
    assert (found.sizes, found.open, found.tasks, found.tasks_done, found.errors) == ((3, 2, 0), (0, 0), 3, 3, 1)
    assert await tier.jobs.commit(epoch, results) == []
    assert await tier.door.look(job) == found
    # What comes of it further on still says what it came from.
    await tier.jobs.dispatch(epoch, Dispatch(job, 1, 0, 1, [Work(1, "/o/1", "/b")]))
    (task,) = await tier.jobs.open_tasks(job)
    await tier.jobs.hand_out(epoch, [task.attempt], "a")
    await tier.jobs.commit(epoch, [Result(task.attempt, [Made("/p")])])
    assert await tier.jobs.items(job, 2, 0, 9) == [Item(1, "/p", "/b")]


async def test_only_what_was_handed_out_counts(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, REDUCE)
    await tier.jobs.begin(epoch, job)
    assert await tier.jobs.commit(epoch, [Result(Attempt(job, 1), [Made("/o")])]) == []
    assert (await tier.door.look(job)).sizes == (0, 0)


async def test_a_lost_attempt_counts_no_more(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    (lost,) = await running_tasks(tier, epoch, job, ["/a"])
    for _ in range(2):
        await tier.jobs.give_up(epoch, [Lost(lost)])
    found = await tier.door.look(job)
    assert (found.retries, found.tasks, found.tasks_done, found.open, found.errors) == (1, 2, 1, (1,), 0)
    assert await tier.jobs.commit(epoch, [Result(lost, [Made("/late")])]) == []
    again = replace(lost, number=1)
    assert await tier.jobs.open_tasks(job) == [Task(again, Work(0, "/a", "", SOME))]
    assert await tier.jobs.hand_out(epoch, [lost], "a") == []
    assert await tier.jobs.hand_out(epoch, [again], "b") == [again]
    assert await tier.jobs.commit(epoch, [Result(again, [Made("/right")])]) == [again]
    assert [item.name for item in await tier.jobs.items(job, 1, 0, 9)] == ["/right"]


async def test_the_last_try_of_a_task_is_an_error(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    lost, other = await running_tasks(tier, epoch, job, ["/a", "/b"])
    await tier.jobs.give_up(epoch, [Lost(lost, last=True), Lost(other)])
    found = await tier.door.look(job)
    assert (found.errors, found.retries, found.open, found.tasks, found.tasks_done) == (1, 1, (1,), 3, 2)
    assert await tier.jobs.commit(epoch, [Result(lost)]) == []


async def test_a_job_is_done_when_nothing_is_left(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)

    async def finished() -> bool:
        await tier.jobs.finish(epoch, job)
        return (await tier.door.look(job)).state == State.DONE

    assert not await finished()
    await tier.door.add(job, ["/a"])
    await tier.jobs.begin(epoch, job)
    await tier.door.end(job)
    assert not await finished()
    await tier.jobs.dispatch(epoch, Dispatch(job, 0, 0, 1, [Work(0, "/a")]))
    assert not await finished()
    await tier.jobs.hand_out(epoch, [Attempt(job, 1)], "a")
    await tier.jobs.commit(epoch, [Result(Attempt(job, 1))])
    assert await finished()
    assert job not in [row.id for row in await tier.jobs.unfinished()]


async def test_what_a_cancelled_job_has_open_ends(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, REDUCE)
    first, _second = await running_tasks(tier, epoch, job, ["/a", "/b"])
    await tier.jobs.abandon(epoch, job)  # it is not cancelled: nothing happens
    await tier.door.cancel(job)
    assert (await tier.door.look(job)).input_ended
    assert await tier.jobs.commit(epoch, [Result(first, [Made("/o")])]) == []
    assert not await tier.jobs.dispatch(epoch, Dispatch(job, 0, 2, 2))
    await tier.jobs.finish(epoch, job)
    assert (await tier.door.look(job)).state == State.RUNNING
    for _ in range(2):
        await tier.jobs.abandon(epoch, job)
        await tier.jobs.finish(epoch, job)
        found = await tier.door.look(job)
        assert (found.state, found.errors, found.tasks, found.tasks_done, found.open) == (State.DONE, 4, 4, 4, (0, 0))


async def test_a_supervisor_that_was_followed_by_another_moves_nothing(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    (attempt,) = await running_tasks(tier, epoch, job, ["/a"])
    assert await tier.jobs.lead() == epoch + 1
    before = await tier.door.look(job)
    calls: list[Awaitable[Any]] = [
        tier.jobs.begin(epoch, job),
        tier.jobs.dispatch(epoch, Dispatch(job, 0, 1, 1)),
        tier.jobs.hand_out(epoch, [attempt], "a"),
        tier.jobs.give_up(epoch, [Lost(attempt)]),
        tier.jobs.commit(epoch, [Result(attempt)]),
        tier.jobs.abandon(epoch, job),
        tier.jobs.finish(epoch, job),
        tier.jobs.keep_made(epoch, attempt, 0, [Made("/o")]),
        tier.jobs.move_made(epoch, job, 9),
        tier.jobs.cleared(epoch, job, [Cleared(1, "/a", None)]),
        tier.jobs.end_idle(epoch, 0.0),
        tier.archives.begin_archive(epoch, job),
        tier.archives.end_archive(epoch, job, dt.datetime.now(dt.UTC)),
        tier.archives.close(epoch, job),
        tier.archives.purge(epoch, job, 9),
    ]
    for call in calls:
        with pytest.raises(Deposed):
            await call
    assert await tier.door.look(job) == before


# The same program on both: what they answer, and what is there after each step.


def program(rng: random.Random, job: uuid.UUID, phases: int) -> Iterator[Callable[[Tier, int], Awaitable[Any]]]:
    """Steps that somebody might do, most of them at a wrong moment."""

    def attempt() -> Attempt:
        return Attempt(job, rng.randint(1, 8), rng.randint(0, 1))

    def result() -> Result:
        kept = [Made(f"/o/{rng.randint(0, 99)}", rng.choice([None, 0, 1])) for _ in range(rng.randint(0, 3))]
        return Result(attempt(), kept, rng.choice([None, None, FAILED]))

    for _ in range(90):
        phase, after = rng.randrange(phases), rng.randint(0, 4)
        upto, agent = after + rng.randint(0, 3), rng.choice("ab")
        works = [
            Work(phase, f"/o/{n}", rng.choice(["", "/first"]), rng.choice([None, SOME]), clears=rng.random() < 0.5)
            for n in range(rng.randint(0, 3))
        ]
        feeds = [
            Feed(n % 2, f"/f/{n}", rng.choice([None, SOME]), clears=rng.random() < 0.5)
            for n in range(rng.randint(0, upto - after))
        ]
        much = [Made(f"/o/{rng.randint(0, 9)}", rng.choice([None, 1])) for _ in range(rng.randint(1, 4))]
        names = [f"/n/{rng.randint(0, 9)}" for _ in range(rng.randint(0, 3))]
        attempts, results = [attempt() for _ in range(3)], [result() for _ in range(3)]
        lost = [Lost(attempt(), rng.random() < 0.3) for _ in range(2)]
        what = Dispatch(job, phase, after, upto, works, feeds, [FAILED] * rng.randint(0, 2))
        yield rng.choices(
            [
                lambda t, _e, names=names: t.door.add(job, names),
                lambda t, e: t.jobs.begin(e, job),
                lambda t, e, what=what: t.jobs.dispatch(e, what),
                lambda t, e, a=attempts, agent=agent: t.jobs.hand_out(e, list(dict.fromkeys(a)), agent),
                lambda t, e, lost=lost: t.jobs.give_up(e, lost),
                lambda t, e, r=results: t.jobs.commit(e, list({x.attempt: x for x in r}.values())),
                lambda t, e: t.jobs.finish(e, job),
                lambda t, _e: t.door.end(job),
                lambda t, _e: t.door.cancel(job),
                lambda t, e: t.jobs.abandon(e, job),
                lambda t, _e: t.jobs.lead(),
                lambda t, e, one=attempts[0], after=after, much=much: t.jobs.keep_made(e, one, after, much),
                lambda t, e, limit=upto + 1: t.jobs.move_made(e, job, limit),
                lambda t, e, some=upto: clear(t, e, job, some),
                lambda t, e: t.archives.begin_archive(e, job),
                lambda t, e: t.archives.end_archive(e, job, NOW),
                lambda t, e: t.archives.close(e, job),
            ],
            [6, 4, 8, 8, 4, 10, 2, 1, 0.3, 1, 0.2, 6, 5, 4, 0.3, 0.3, 0.3],
        )[0]


NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


async def clear(tier: Tier, epoch: int, job: uuid.UUID, some: int) -> Sequence[Cleared]:
    """Some of what is to be deleted."""
    found = await tier.jobs.to_clear(job, some)
    await tier.jobs.cleared(epoch, job, found)
    return list(found)


async def answer(call: Awaitable[Any]) -> object:
    try:
        found = await call
    except Refusal as error:
        return type(error).__name__, getattr(error, "found", "")
    return sorted(found, key=str) if isinstance(found, list) else found


async def everything(tier: Tier, job: uuid.UUID, phases: int) -> list[object]:
    stages = [await tier.jobs.items(job, stage, 0, 1000) for stage in range(phases + 1)]
    row, errors = await tier.door.look(job), await tier.archives.errors_after(job, 0, 1000)
    to_clear = list(await tier.jobs.to_clear(job, 1000)) if row.clearing else []
    since = (row.archive_started is None, row.archived)
    return [row, since, *stages, errors, list(await tier.jobs.open_tasks(job)), to_clear]


@pytest.mark.parametrize("seed", range(12))
async def test_any_program_goes_as_in_memory(tier: Tier, seed: int) -> None:
    rng, memory = random.Random(seed), MemoryJobs()  # noqa: S311 (any will do)
    other, job = Tier(memory, memory, memory), uuid.uuid4()
    phases = rng.choice([(MAP,), (MAP, REDUCE), (REDUCE, MAP, MAP)])
    for each in (tier, other):
        await each.door.create(job, OWNER, document(*phases))
    ours, theirs = await tier.jobs.lead(), await other.jobs.lead()
    for number, step in enumerate(program(rng, job, len(phases))):
        here, there = await answer(step(tier, ours)), await answer(step(other, theirs))
        if isinstance(here, int) and not isinstance(here, bool):
            here, there = here - ours, there - theirs  # type: ignore[operator]  # an epoch
        assert here == there, (seed, number)
        assert await everything(tier, job, len(phases)) == await everything(other, job, len(phases)), (seed, number)


async def test_what_is_put_out_in_great_number_is_handed_on_in_parts_once_it_counts(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, MAP)
    first, second = await running_tasks(tier, epoch, job, ["/a", "/b"])
    names = [Made(f"/o/{n}", n % 2) for n in range(7)]
    for after, batch in ((0, names[:3]), (3, names[3:5]), (3, names[3:5])):  # the last one comes twice
        assert await tier.jobs.keep_made(epoch, first, after, batch)
    assert not await tier.jobs.keep_made(epoch, replace(first, number=1), 0, names)
    assert not await tier.jobs.keep_made(epoch, replace(first, task=99), 0, names)
    assert await tier.jobs.items(job, 1, 0, 99) == []
    assert (await tier.door.look(job)).parts == 0
    assert await tier.jobs.commit(epoch, [Result(first, names[5:]), Result(second, [Made("/p")])]) == [first, second]
    assert not await tier.jobs.keep_made(epoch, first, 7, names)
    await tier.door.end(job)
    sizes = []
    while (row := await tier.door.look(job)).parts:
        sizes.append((row.sizes[1], row.open[0], row.tasks_done))
        assert first not in [task.attempt for task in await tier.jobs.open_tasks(job)]
        await tier.jobs.move_made(epoch, job, 3)
    assert sizes == [(1, 1, 1), (4, 1, 1), (7, 1, 1)]
    assert (row.sizes[1], row.open, row.tasks_done, row.errors) == (8, (0, 0), 2, 0)
    expected = [Item(1, "/p", "/b"), *(Item(n + 2, made.name, "/a", made.reducer) for n, made in enumerate(names))]
    assert await tier.jobs.items(job, 1, 0, 99) == expected
    await tier.jobs.move_made(epoch, job, 3)
    assert await tier.door.look(job) == row


@pytest.mark.parametrize("how", ["lost", "lost for ever", "failed"])
async def test_of_an_attempt_that_does_not_count_what_it_has_put_out_goes(tier: Tier, how: str) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    (first,) = await running_tasks(tier, epoch, job, ["/a"])
    await tier.jobs.keep_made(epoch, first, 0, [Made(f"/o/{n}") for n in range(5)])
    if how == "failed":
        await tier.jobs.commit(epoch, [Result(first, [], FAILED)])
    else:
        await tier.jobs.give_up(epoch, [Lost(first, last=how != "lost")])
    assert (await tier.door.look(job)).parts == 1
    for _ in range(3):
        await tier.jobs.move_made(epoch, job, 2)
    row = await tier.door.look(job)
    assert (row.parts, row.sizes, row.open, row.errors) == (0, (1, 0), (int(how == "lost"),), int(how != "lost"))
    if how == "lost":
        again = replace(first, number=1)
        await tier.jobs.hand_out(epoch, [again], "b")
        await tier.jobs.commit(epoch, [Result(again, [Made("/right")])])
    assert [item.name for item in await tier.jobs.items(job, 1, 0, 9)] == ["/right"] * (how == "lost")


async def test_a_job_is_not_done_before_all_is_moved(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    (first,) = await running_tasks(tier, epoch, job, ["/a"])
    await tier.door.end(job)
    await tier.jobs.keep_made(epoch, first, 0, [Made("/o")])
    await tier.jobs.commit(epoch, [Result(first)])
    for state in (State.RUNNING, State.DONE):
        await tier.jobs.finish(epoch, job)
        assert (await tier.door.look(job)).state == state
        await tier.jobs.move_made(epoch, job, 9)


async def test_what_was_handed_on_is_to_be_deleted_when_its_task_is_done(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, MAP, REDUCE, names=["/a"])
    await tier.jobs.begin(epoch, job)
    names = ["/x/1", "/x/2", "/x/3", "/x/4"]
    works = [Work(1, name, "/a", None if name == "/x/2" else SOME, clears=name != "/x/3") for name in names]
    await tier.jobs.dispatch(epoch, Dispatch(job, 1, 0, 0, works))
    tasks = {task.work.name: task.attempt for task in await tier.jobs.open_tasks(job)}
    await tier.jobs.hand_out(epoch, [tasks[name] for name in names], "a")
    assert await tier.jobs.to_clear(job, 9) == []
    results = [Result(tasks["/x/1"], error=FAILED), Result(tasks["/x/2"]), Result(tasks["/x/3"])]
    # What a task hands on itself is still needed.
    await tier.jobs.commit(epoch, [*results, Result(tasks["/x/4"], [Made("/x/4")])])
    expected = [Cleared(tasks["/x/1"].task, "/x/1", SOME.object_id), Cleared(tasks["/x/2"].task, "/x/2", None)]
    assert await tier.jobs.to_clear(job, 9) == expected
    assert (await tier.door.look(job)).clearing == 2
    assert await tier.jobs.to_clear(job, 1) == expected[:1]
    for _ in range(2):
        await tier.jobs.cleared(epoch, job, expected[:1])
        assert await tier.jobs.to_clear(job, 9) == expected[1:]
        assert (await tier.door.look(job)).clearing == 1


async def test_what_a_reducer_was_fed_is_to_be_deleted_when_it_is_done(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, REDUCE)
    await tier.jobs.begin(epoch, job)
    feeds = [Feed(n % 2, f"/x/{n}", SOME, clears=n != 2) for n in range(5)]
    await tier.jobs.dispatch(epoch, Dispatch(job, 1, 0, 5, [], feeds))
    assert [feed.clears for feed in await tier.jobs.feeds(job, 1, 0, 0, 9)] == [True, False, True]
    zero, one = [task.attempt for task in await tier.jobs.open_tasks(job)]
    await tier.jobs.hand_out(epoch, [zero, one], "a")
    await tier.jobs.commit(epoch, [Result(zero)])
    first, last = [Cleared(zero.task, f"/x/{n}", SOME.object_id, n + 1) for n in (0, 4)]
    assert await tier.jobs.to_clear(job, 9) == [first, last]
    await tier.jobs.cleared(epoch, job, [first])
    assert await tier.jobs.to_clear(job, 9) == [last]
    assert (await tier.door.look(job)).clearing == 1
    await tier.jobs.give_up(epoch, [Lost(one, last=True)])
    assert [one.name for one in await tier.jobs.to_clear(job, 9)] == ["/x/4", "/x/1", "/x/3"]
    await tier.jobs.cleared(epoch, job, await tier.jobs.to_clear(job, 9))
    assert await tier.jobs.to_clear(job, 9) == []
    assert (await tier.door.look(job)).clearing == 0


async def test_a_job_is_not_done_before_all_is_deleted(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    await tier.door.add(job, ["/a"])
    await tier.door.end(job)
    await tier.jobs.begin(epoch, job)
    await tier.jobs.dispatch(epoch, Dispatch(job, 0, 0, 1, [Work(0, "/a", clears=True)]))
    await tier.jobs.hand_out(epoch, [Attempt(job, 1)], "a")
    await tier.jobs.commit(epoch, [Result(Attempt(job, 1))])
    for state in (State.RUNNING, State.DONE):
        await tier.jobs.finish(epoch, job)
        assert (await tier.door.look(job)).state == state
        await tier.jobs.cleared(epoch, job, [Cleared(1, "/a", None)])


async def test_an_input_that_nobody_adds_to_is_ended(tier: Tier) -> None:
    epoch = await tier.jobs.lead()
    queued, running = await made(tier, MAP), await made(tier, MAP, names=["/a"])
    await tier.jobs.begin(epoch, running)
    assert await tier.jobs.end_idle(epoch, 60) == []
    await asyncio.sleep(0.3)
    await tier.door.add(running, ["/b"])
    found = await tier.jobs.end_idle(epoch, 0.2)
    assert queued in found
    assert running not in found
    assert [(await tier.door.look(job)).input_ended for job in (queued, running)] == [True, False]
    assert running in await tier.jobs.end_idle(epoch, 0)
    assert await tier.jobs.end_idle(epoch, 0) == []


async def test_errors_say_whose_they_are(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP)
    failed, lost, left = await running_tasks(tier, epoch, job, ["/a", "/b", "/c"])
    await tier.jobs.hand_out(epoch, [failed, lost], "a")
    await tier.jobs.give_up(epoch, [Lost(lost), Lost(left)])
    lost, left = replace(lost, number=1), replace(left, number=1)
    await tier.jobs.hand_out(epoch, [lost], "s-b/3")
    await tier.jobs.give_up(epoch, [Lost(lost, last=True)])
    await tier.jobs.commit(epoch, [Result(failed, error=FAILED)])
    await tier.door.cancel(job)
    await tier.jobs.abandon(epoch, job)
    found = await tier.archives.errors_after(job, 0, 9)
    said = [(error.name, error.task, error.attempt, error.server) for error in found]
    assert said == [("/b", 2, 1, "s-b"), ("/dap/stor/a", 1, 0, "a"), ("/c", 3, 1, "")]
    assert await tier.archives.errors_after(job, 1, 1) == found[1:2]
    assert await tier.archives.errors_after(job, 3, 9) == await tier.archives.errors_after(uuid.uuid4(), 0, 9) == []


async def test_a_job_is_archived_closed_and_purged(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, REDUCE)
    attempts = await running_tasks(tier, epoch, job, [f"/{n}" for n in range(5)])
    for attempt in attempts[:2]:
        await tier.jobs.keep_made(epoch, attempt, 0, [Made("/o")])
    feed = Feed(0, "/f", None)
    await tier.jobs.dispatch(epoch, Dispatch(job, 1, 0, 1, [], [feed], [FAILED]))
    archives, at = tier.archives, dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)

    async def due() -> dict[Due, bool]:
        return {what: job in await archives.due(what, 0, 1000) for what in Due}

    async def after(*steps: Awaitable[object]) -> dict[Due, bool]:
        for step in steps:
            await step
        return await due()

    nothing = dict.fromkeys(Due, False)
    assert await after(archives.begin_archive(epoch, job), archives.end_archive(epoch, job, at)) == nothing
    await tier.door.cancel(job)
    await tier.jobs.abandon(epoch, job)
    assert await after(tier.jobs.finish(epoch, job)) == {**nothing, Due.ARCHIVE: True}
    assert job not in await archives.due(Due.ARCHIVE, 600, 1000)
    assert await after(archives.close(epoch, job), archives.begin_archive(epoch, job)) == {**nothing, Due.ARCHIVE: True}
    assert (await archives.look(job)).archive_started is not None
    assert await after(archives.end_archive(epoch, job, at)) == {**nothing, Due.CLOSE: True}
    row = await archives.look(job)
    assert (row.archived, row.live) == (at, True)
    assert job not in await archives.due(Due.CLOSE, 301, 1000)
    assert job in await archives.due(Due.CLOSE, 299, 1000)
    assert not await archives.purge(epoch, job, 3)  # it is still live
    assert [row.id for row in await tier.door.of_account(OWNER.account, name=None, running=False, limit=1)] == [job]
    assert await after(archives.close(epoch, job)) == {**nothing, Due.PURGE: True}
    assert not (await archives.look(job)).live
    assert job not in [
        row.id for row in await tier.door.of_account(OWNER.account, name=None, running=False, limit=1000)
    ]
    for _ in range(40):
        if await archives.purge(epoch, job, 2):
            break
    assert await due() == nothing
    with pytest.raises(NotFound):
        await archives.look(job)
    assert await archives.purge(epoch, job, 2)


async def test_the_newest_names_and_errors_are_told_in_their_order(tier: Tier) -> None:
    epoch, job = await tier.jobs.lead(), await made(tier, MAP, names=[f"/{n}" for n in range(12)])
    await tier.jobs.begin(epoch, job)
    errors = [replace(FAILED, name=f"/{n}") for n in range(4)]
    await tier.jobs.dispatch(epoch, Dispatch(job, 0, 0, 12, [], [], errors))
    assert await tier.door.newest(job, 0, 3) == ["/9", "/10", "/11"]
    assert await tier.door.newest(job, 1, 3) == []
    assert await tier.door.newest_errors(job, 2) == errors[2:]
    assert await tier.door.newest(uuid.uuid4(), 0, 3) == await tier.door.newest_errors(uuid.uuid4(), 3) == []


async def test_an_accounts_jobs_are_found_by_name_and_by_whether_they_run(tier: Tier) -> None:
    epoch, owner = await tier.jobs.lead(), Owner(uuid.uuid4(), "ann")
    jobs = [uuid.uuid4() for _ in range(3)]
    for job, name in zip(jobs, ("a", "b", "a"), strict=True):
        await tier.door.create(job, owner, replace_name(document(MAP), name))
    await tier.door.cancel(jobs[0])
    await tier.jobs.finish(epoch, jobs[0])

    async def found(name: str | None = None, *, running: bool = False, limit: int = 9) -> list[uuid.UUID]:
        return [row.id for row in await tier.door.of_account(owner.account, name=name, running=running, limit=limit)]

    assert await found() == jobs[::-1]
    assert await found(limit=2) == [jobs[2], jobs[1]]
    assert await found("a") == [jobs[2], jobs[0]]
    assert await found("a", running=True) == [jobs[2]]
    assert await found("x") == []
    row = await tier.door.look(jobs[0])
    assert row.created is not None
    assert row.done is not None
    assert row.created <= row.done
    assert (await tier.door.look(jobs[1])).done is None


def replace_name(job: JobDocument, name: str) -> JobDocument:
    return msgspec.structs.replace(job, name=name)
