"""A job through the hands of supervisors and agents that die, stand still and come back: what comes out is what a calm run makes."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mobula.core.job import JobDocument, parse
from mobula.jobs.flow import (
    BATCH,
    WINDOW,
    Abandon,
    Begin,
    ClearHandedOn,
    DispatchItems,
    EndFeed,
    Finish,
    MoveMade,
    Step,
    clears,
    is_whole,
    steps,
)
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import (
    Attempt,
    Deposed,
    Dispatch,
    Feed,
    Job,
    JobError,
    Lost,
    Made,
    Owner,
    Result,
    State,
    Task,
    Work,
)

JOB = uuid.UUID(int=1)
OWNER = Owner(uuid.UUID(int=2), "dap")
OWN = f"/dap/jobs/{JOB}/stor/"
TRIES_MAX = 3
MAP, REDUCE, REDUCE_3 = {"exec": "m"}, {"exec": "r", "type": "reduce"}, {"exec": "r", "type": "reduce", "count": 3}
DOCUMENTS = ([MAP], [REDUCE], [MAP, MAP], [MAP, REDUCE_3], [REDUCE, MAP], [MAP, REDUCE_3, MAP, REDUCE])


def document(phases: list[dict[str, Any]]) -> JobDocument:
    return parse(json.dumps({"phases": phases}).encode())


def job(phases: list[dict[str, Any]], **more: Any) -> Job:
    n = len(phases)
    row = {
        "state": State.RUNNING,
        "cancelled": False,
        "input_ended": True,
        "sizes": (0,) * (n + 1),
        "cursors": (0,) * n,
        "open": (0,) * n,
    }
    return Job(JOB, OWNER, document(phases), **{**row, **more})


def test_a_queued_job_begins() -> None:
    assert steps(job([MAP], state=State.QUEUED, sizes=(3, 0))) == [Begin()]


def test_inputs_are_dispatched_before_they_are_all_there() -> None:
    assert steps(job([MAP], sizes=(3, 0), input_ended=False)) == [DispatchItems(0, 0, 3)]
    assert steps(job([MAP], sizes=(3, 0), cursors=(3,), open=(3,), input_ended=False)) == []


def test_a_long_job_is_dispatched_in_batches_and_keeps_a_window_of_tasks_open() -> None:
    assert steps(job([MAP], sizes=(100_000, 0))) == [DispatchItems(0, 0, BATCH)]
    assert steps(job([MAP], sizes=(100_000, 0), cursors=(5000,), open=(WINDOW - BATCH,))) == [
        DispatchItems(0, 5000, 5000 + BATCH)
    ]
    assert steps(job([MAP], sizes=(100_000, 0), cursors=(5000,), open=(WINDOW - BATCH + 1,))) == []
    assert steps(job([MAP], sizes=(5007, 0), cursors=(5000,), open=(WINDOW - 7,))) == [DispatchItems(0, 5000, 5007)]


def test_the_phase_that_is_further_on_comes_first() -> None:
    running = job([MAP, MAP], sizes=(9, 4, 1), cursors=(5, 2), open=(1, 1))
    assert steps(running) == [DispatchItems(1, 2, 4), DispatchItems(0, 5, 9)]


def test_reducers_are_told_the_end_when_nothing_can_come_any_more() -> None:
    fed = {"sizes": (2, 2, 0), "cursors": (2, 2)}
    assert steps(job([MAP, REDUCE], **fed, open=(1, 1))) == []
    assert steps(job([MAP, REDUCE], **fed, open=(0, 1), input_ended=False)) == []
    assert steps(job([MAP, REDUCE], **fed, open=(0, 1))) == [EndFeed(1)]
    assert steps(job([MAP, REDUCE], sizes=(2, 2, 1), cursors=(2, 2))) == [Finish()]


def test_a_job_without_inputs_runs_its_reducers_once() -> None:
    assert steps(job([REDUCE], open=(1,))) == [EndFeed(0)]
    assert steps(job([MAP])) == [Finish()]


def test_a_cancelled_job_ends() -> None:
    assert steps(job([MAP], cancelled=True, sizes=(9, 0), open=(3,))) == [Abandon(), Finish()]
    assert steps(job([MAP], cancelled=True, state=State.QUEUED)) == [Finish()]
    assert steps(job([MAP], state=State.DONE)) == []


def test_a_job_is_done_when_what_it_handed_on_is_gone_and_what_it_put_out_is_moved() -> None:
    assert steps(job([MAP, MAP], clearing=2)) == [ClearHandedOn()]
    assert steps(job([MAP, MAP], parts=1, clearing=2)) == [MoveMade(), ClearHandedOn()]
    assert steps(job([MAP, MAP], parts=1, open=(1, 0))) == [MoveMade()]
    assert steps(job([MAP], cancelled=True, parts=1, clearing=1)) == [Finish()]


def test_what_is_the_jobs_own_is_deleted_and_nothing_else() -> None:
    running = job([MAP, MAP])
    assert clears(running, 1, f"{OWN}dap/stor/a.0.x")
    assert not clears(running, 0, f"{OWN}dap/stor/a.0.x")
    assert not clears(running, 1, "/dap/stor/a")
    assert not clears(running, 1, f"/dap/jobs/{JOB}/storage/a")
    assert not clears(running, 1, f"/dap/jobs/{uuid.UUID(int=9)}/stor/a")
    keeps = parse(b'{"phases": [{"exec": "m"}], "options": {"keepIntermediate": true}}', operator=True)
    assert not clears(replace(running, document=keeps), 1, f"{OWN}a")


# A world of its own: what each task does follows from its input.


def chance(*what: object) -> int:
    return int.from_bytes(hashlib.md5(repr(what).encode(), usedforsecurity=False).digest()[:4])


def exists(name: str) -> bool:
    return chance("exists", name) % 5 != 0


def done_by(work: Work, fed: list[str]) -> tuple[list[Made], JobError | None]:
    """What the user's command makes of it."""
    on = sorted(fed) if work.reducer is not None else [work.name]
    seed = chance(work.phase, work.reducer, on)
    if seed % 7 == 0:
        return [], JobError(work.phase, "UserTaskError", "user command exited with code 1", work.name)
    below = OWN if seed % 3 else "/dap/o/"
    return [Made(f"{below}{work.phase}.{seed:x}.{n}", seed % 2 if n else None) for n in range(seed % 6)], None


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The memory store never waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


class Supervisor:
    def __init__(self, jobs: MemoryJobs, deleted: set[str]) -> None:
        self.jobs = jobs
        self.deleted = deleted
        self.epoch = now(jobs.lead())
        self.view: Job | None = None

    def look(self) -> None:
        found = [row for row in now(self.jobs.unfinished()) if row.id == JOB]
        self.view = found[0] if found else None

    def do(self, step: Step) -> None:
        jobs, epoch = self.jobs, self.epoch
        match step:
            case Begin():
                now(jobs.begin(epoch, JOB))
            case DispatchItems():
                now(jobs.dispatch(epoch, self.dispatched(step)))
            case MoveMade():
                now(jobs.move_made(epoch, JOB, 2))
            case ClearHandedOn():
                found = now(jobs.to_clear(JOB, 2))
                now(jobs.cleared(epoch, JOB, found))
                self.deleted |= {one.name for one in found}
            case Abandon():
                now(jobs.abandon(epoch, JOB))
            case Finish():
                now(jobs.finish(epoch, JOB))

    def dispatched(self, step: DispatchItems) -> Dispatch:
        assert self.view is not None
        phase = self.view.document.phases[step.phase]
        works, feeds, errors = [], [], []
        for item in now(self.jobs.items(JOB, step.phase, step.after, step.upto - step.after)):
            if not exists(item.name):
                errors.append(
                    JobError(step.phase, "ResourceNotFoundError", f'no such object: "{item.name}"', item.name)
                )
            elif phase.reduces:
                wanted = item.reducer if item.reducer is not None else chance(item.name)
                feeds.append(
                    Feed(wanted % phase.reducers, item.name, None, clears=clears(self.view, step.phase, item.name))
                )
            else:
                own = clears(self.view, step.phase, item.name)
                works.append(Work(step.phase, item.name, item.first_input, clears=own))
        return Dispatch(JOB, step.phase, step.after, step.upto, works, feeds, errors)


class World:
    def __init__(self, phases: list[dict[str, Any]], names: list[str]) -> None:
        self.jobs = MemoryJobs()
        self.names = names
        self.deleted: set[str] = set()
        now(self.jobs.create(JOB, OWNER, document(phases)))
        self.supervisors = [Supervisor(self.jobs, self.deleted)]
        self.held: list[tuple[str, Task]] = []
        """who runs what, also those that were given up and don't know it"""
        self.agents = 0
        self.given_up = 0

    @property
    def row(self) -> Job:
        found: Job = now(self.jobs.look(JOB))
        return found

    def open(self) -> list[Task]:
        found: list[Task] = now(self.jobs.open_tasks(JOB))
        return found

    def hand_out(self, supervisor: Supervisor, agent: str, task: Task) -> None:
        if now(self.jobs.hand_out(supervisor.epoch, [task.attempt], agent)):
            self.held.append((agent, task))

    def end(self, supervisor: Supervisor, task: Task) -> None:
        """The agent has run it, and says so. A reducer ends once it was fed all."""
        work, row = task.work, self.row
        if work.reducer is not None and not (
            is_whole(row, work.phase) and row.cursors[work.phase] == row.sizes[work.phase]
        ):
            return
        fed = []
        if work.reducer is not None:
            fed = [feed.name for feed in now(self.jobs.feeds(JOB, work.phase, work.reducer, 0, 1000))]
        made, error = done_by(work, fed)
        rest = made[self.put_out(supervisor, task, made) :]
        now(self.jobs.commit(supervisor.epoch, [Result(task.attempt, rest, error)]))

    def put_out(self, supervisor: Supervisor, task: Task, made: list[Made]) -> int:
        """It runs, and has put out so many already, if many."""
        many = len(made) - 1 if len(made) > 2 else 0
        for after in range(0, many, 2):
            now(self.jobs.keep_made(supervisor.epoch, task.attempt, after, made[after : min(after + 2, many)]))
        return many

    def give_up(self, supervisor: Supervisor, task: Task) -> None:
        if task.attempt.number + 1 < TRIES_MAX:
            before = self.row.retries
            now(self.jobs.give_up(supervisor.epoch, [Lost(task.attempt)]))
            self.given_up += self.row.retries - before

    def settle(self) -> None:
        """Everybody well again: one supervisor, one agent, to the end."""
        if not self.row.input_ended:
            now(self.jobs.end(JOB))
        last = Supervisor(self.jobs, self.deleted)
        for _ in range(1000):
            last.look()
            if last.view is None:
                return
            for step in steps(last.view):
                last.do(step)
            for task in self.open():
                if task.agent:
                    self.end(last, task)
                else:
                    self.hand_out(last, "last", task)
        raise AssertionError(f"it never ends: {self.row}")


def outcome(world: World) -> tuple[list[Counter[str]], Counter[tuple[int, str, str]]]:
    stages = [Counter(item.name for item in world.jobs.names(JOB, stage)) for stage in range(len(world.row.sizes))]
    return stages, Counter((error.phase, error.code, error.name) for error in world.jobs.errors(JOB))


def calm(phases: list[dict[str, Any]], names: list[str]) -> World:
    world = World(phases, names)
    now(world.jobs.add(JOB, names))
    world.settle()
    return world


@settings(max_examples=300)
@given(st.data())
def test_whoever_dies_each_task_counts_once(data: st.DataObject) -> None:
    phases = data.draw(st.sampled_from(DOCUMENTS))
    names = [f"/dap/stor/{n}" for n in data.draw(st.lists(st.integers(0, 30), max_size=12))]
    world = World(phases, names)
    left = iter(names)
    for _ in range(data.draw(st.integers(0, 60))):
        try:
            act(world, data, left)
        except Deposed:
            world.supervisors = world.supervisors[-1:]
    if rest := list(left):
        now(world.jobs.add(JOB, rest))
    world.settle()
    row, expected = world.row, calm(phases, names)
    assert outcome(world) == outcome(expected)
    assert row.state == State.DONE
    assert row.retries == world.given_up
    assert row.tasks == row.tasks_done == expected.row.tasks + world.given_up
    assert row.errors == sum(outcome(world)[1].values())
    assert not any(row.open)
    assert (row.parts, row.clearing) == (0, 0)
    handed_on = {item.name for stage in range(1, len(phases)) for item in world.jobs.names(JOB, stage)}
    assert world.deleted == {name for name in handed_on if name.startswith(OWN) and exists(name)}


def act(world: World, data: st.DataObject, left: Iterator[str]) -> None:
    """Something that somebody does, or that is done to somebody."""
    what = data.draw(
        st.sampled_from(
            ["add", "look", "step", "step", "take", "take", "end", "end", "put out", "give up", "take over"]
        )
    )
    supervisor = data.draw(st.sampled_from(world.supervisors))
    if what == "add":
        if (name := next(left, None)) is not None:
            now(world.jobs.add(JOB, [name]))
    elif what == "look":
        supervisor.look()
    elif what == "step" and supervisor.view is not None:
        # On a view that may be old, and in any order.
        for step in data.draw(st.permutations(steps(supervisor.view))):
            supervisor.do(step)
    elif what == "take":
        for task in world.open()[:2]:
            world.agents += 1
            world.hand_out(supervisor, f"agent {world.agents}", task)
    elif what == "end" and world.held:
        world.end(supervisor, data.draw(st.sampled_from(world.held))[1])
    elif what == "put out" and world.held:
        task = data.draw(st.sampled_from(world.held))[1]
        if task.work.reducer is None:
            world.put_out(supervisor, task, done_by(task.work, [])[0])
    elif what == "give up" and world.held:
        world.give_up(supervisor, data.draw(st.sampled_from(world.held))[1])
    elif what == "take over":
        world.supervisors.append(Supervisor(world.jobs, world.deleted))


def test_a_cancelled_job_has_an_error_for_each_task_that_was_open() -> None:
    world = World([MAP], [])
    names = [name for name in (f"/dap/stor/{n}" for n in range(9)) if exists(name)]
    now(world.jobs.add(JOB, names))
    supervisor = world.supervisors[0]
    for _ in range(2):
        supervisor.look()
        assert supervisor.view is not None
        for step in steps(supervisor.view):
            supervisor.do(step)
    task = world.open()[0]
    world.hand_out(supervisor, "a", task)
    now(world.jobs.cancel(JOB))
    world.end(supervisor, task)  # it ended too late
    world.settle()
    assert world.row.state == State.DONE
    assert [error.code for error in world.jobs.errors(JOB)] == ["JobCancelledError"] * len(names)
    assert world.row.tasks == world.row.tasks_done == len(names)


def test_a_task_that_was_lost_too_often_is_an_internal_error() -> None:
    world = World([REDUCE], [])
    supervisor = world.supervisors[0]
    supervisor.look()
    supervisor.do(Begin())
    for number in range(TRIES_MAX):
        now(world.jobs.hand_out(supervisor.epoch, [Attempt(JOB, 1, number)], "a"))
        now(world.jobs.give_up(supervisor.epoch, [Lost(Attempt(JOB, 1, number), last=number + 1 == TRIES_MAX)]))
    world.settle()
    assert [(error.code, error.message) for error in world.jobs.errors(JOB)] == [("InternalError", "internal error")]
    assert (world.row.tasks, world.row.tasks_done, world.row.retries) == (3, 3, 2)
