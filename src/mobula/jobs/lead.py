"""The jobs of one shard, while we lead them: what each needs next (flow.py), who does it (board.py), and what came of it.

Rows are the truth. What is in memory here follows them: every write names our epoch, so nobody else moves anything while ours counts; and
what we are not sure of is read again. A wake-up may be missed: a sweep every two seconds finds what it would have said.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from msgspec import UNSET

from mobula.core.clock import Clock
from mobula.jobs.board import Board, eligible
from mobula.jobs.clearing import Clearing
from mobula.jobs.flow import (
    Abandon,
    Begin,
    ClearHandedOn,
    DispatchItems,
    EndFeed,
    Finish,
    MoveMade,
    clears,
    steps,
)
from mobula.jobs.presence import SILENCE_S as SILENCE_S  # noqa: PLC0414 (part of this module's interface)
from mobula.jobs.presence import Agent as Agent  # noqa: PLC0414
from mobula.jobs.presence import Presence
from mobula.metadata.jobs import (
    Attempt,
    Cleared,
    Deposed,
    Dispatch,
    Feed,
    Item,
    Job,
    JobError,
    Jobs,
    Lost,
    Made,
    Result,
    State,
    Task,
    Version,
    Work,
)
from mobula.metadata.model import MetadataError, NotFound

log = structlog.get_logger()

SWEEP_S = 2.0
BEGIN_AGAIN_S = 0.5
IDLE_S = 3600.0
"""a job to which nobody adds inputs for so long gets no more"""
IDLE_LOOK_S = 30.0
TRIES_MAX = 3
TURNS_MAX = 8
"""steps of one job before others have theirs"""
PART = 2000
"""names of those that a task put out in great number which are moved in one transaction"""
AGAIN_S = 5.0
"""what an agent does not say that it has, so long after it was given to it, is given to it again"""


@dataclass(frozen=True, slots=True)
class Located:
    """An input that may be worked on. `version` None: it is empty, and may be worked on anywhere."""

    name: str
    version: Version | None


class Places(Protocol):
    """Names to versions, versions to hosts."""

    async def locate(self, job: Job, phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        """In the order of the items: what the job's owner may read, or why not. Raises MetadataError: try again later."""

    def hosts(self, version: Version) -> Sequence[str]:
        """Those that have a copy, as known since `follow`."""

    async def follow(self) -> bool:
        """Learn where copies are now; whether that is something else than before. Raises MetadataError."""

    async def delete(self, job: Job, cleared: Sequence[Cleared]) -> None:
        """`clearing.Deletes`."""


@dataclass(frozen=True, slots=True)
class Order:
    """A task for an agent."""

    task: Task
    job: Job
    shard: int = 0
    """whose supervisor gave it, as the agent counts them"""


class Lead:
    """mobula.workers.app.Duty, and what agents ask while it works. Of one term: the next one has another object."""

    wrong = ""

    def __init__(self, jobs: Jobs, places: Places, clock: Clock, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._idle_looked_s = float("-inf")
        self._jobs = jobs
        self._places = places
        self._clock = clock
        self._epoch = 0
        self._begun = asyncio.Event()
        self.on_done: Callable[[uuid.UUID], None] = _nobody_hears
        """told of each job that is done (`archive.Archive`)"""
        self._since_s = 0.0
        self._met_all = False
        """of agents that are there: whoever was not met for so long is not"""
        self._knows_all = False
        """every job that is not done has been looked at in this term"""
        self._rows: dict[uuid.UUID, Job] = {}
        self._stale: set[uuid.UUID] = set()
        """jobs of which something else may be open than we know"""
        self._tasks: dict[tuple[uuid.UUID, int], Task] = {}
        """those that are open, with who has them"""
        self._over: set[Attempt] | None = None
        """while open tasks are being read: those that have ended since, and may be among what comes"""
        self._given_s: dict[Attempt, float] = {}
        self._lost_on: dict[tuple[uuid.UUID, int], set[str]] = defaultdict(set)
        self._whole: set[tuple[uuid.UUID, int]] = set()
        """reduce phases that have been fed all"""
        self._board = Board()
        self._agents = Presence()
        self._clearing = Clearing(jobs, places, self.wake)
        self._woken: set[uuid.UUID] = set()
        self._nudge = asyncio.Event()
        self._more = asyncio.Condition()
        """the board has more than before"""
        self._pick = random.Random()  # noqa: S311 (spreads load, guards nothing)

    @property
    def says(self) -> str:
        return f"{len(self._rows)} jobs, {len(self._tasks)} open tasks of which {len(self._board)} wait, {len(self._agents)} agents"

    @property
    def leads(self) -> bool:
        """The term has begun."""
        return self._epoch > 0

    async def led(self) -> int:
        """The term's epoch, once it has begun."""
        await self._begun.wait()
        return self._epoch

    async def work(self) -> None:
        """Until cancelled. Raises Deposed: another supervisor leads."""
        self._epoch = await self._begin()
        self._begun.set()
        self._since_s = self._clock.monotonic_s()
        clearing = asyncio.create_task(self._clearing.work(self._epoch))
        try:
            await self._lead()
        finally:
            clearing.cancel()
            await asyncio.wait({clearing})

    async def _begin(self) -> int:
        """The epoch of this term; a shard without a leader is waited for."""
        while True:
            try:
                return await self._jobs.lead()
            except MetadataError as error:
                log.info("a term can't begin yet", why=str(error))
                await asyncio.sleep(BEGIN_AGAIN_S)

    async def _lead(self) -> None:
        swept_s = float("-inf")
        while True:
            self._nudge.clear()
            try:
                if self._clock.monotonic_s() - swept_s >= SWEEP_S:
                    swept_s = self._clock.monotonic_s()
                    await self._sweep()
                while self._woken:
                    job = self._woken.pop()
                    try:
                        await self._turn(job)
                    except MetadataError:
                        self._stale.add(job)  # it may have been done all the same
                        raise
                self._knows_all = True
            except Deposed:
                raise
            except MetadataError as error:
                log.info("jobs wait", why=str(error))
            try:
                await asyncio.wait_for(self._nudge.wait(), SWEEP_S)
            except TimeoutError:
                continue

    def wake(self, job: uuid.UUID) -> None:
        """Something has happened to it."""
        self._woken.add(job)
        self._nudge.set()

    async def _sweep(self) -> None:
        if await self._places.follow():
            self._show_again()
        await self._give_up_silent()
        if self._clock.monotonic_s() - self._idle_looked_s >= IDLE_LOOK_S:
            self._idle_looked_s = self._clock.monotonic_s()
            for job in await self._jobs.end_idle(self._epoch, self._idle_s):
                log.info("input ended, as nobody adds any", job=str(job))
        found = {job.id for job in await self._jobs.unfinished()}
        for job in self._rows.keys() - found:
            self._forget(job)
        self._woken |= found

    # a job

    async def _turn(self, job: uuid.UUID) -> None:
        """Do what it needs next, and again, as long as that leads to more."""
        for _ in range(TURNS_MAX):
            try:
                row = await self._jobs.look(job)
            except NotFound:
                self._forget(job)
                return
            if row.state == State.DONE:
                self._forget(job)
                self.on_done(job)
                return
            is_stale = job in self._stale or job not in self._rows
            self._rows[job] = row
            if is_stale:
                await self._load(row)
                self._stale.discard(job)
            if not await self._do_steps(row):
                return
        self.wake(job)

    async def _do_steps(self, row: Job) -> bool:
        """Whether there may be more to do now."""
        moved = False
        for step in steps(row):
            new_tasks = False
            match step:
                case Begin():
                    await self._jobs.begin(self._epoch, row.id)
                    new_tasks = True
                case DispatchItems():
                    new_tasks = await self._dispatch(row, step)
                case EndFeed():
                    self._whole.add((row.id, step.phase))
                    await self._show_reducers(row.id, step.phase)
                    continue
                case MoveMade():
                    await self._jobs.move_made(self._epoch, row.id, PART)
                case ClearHandedOn():
                    self._clearing.wake(row)
                    continue
                case Abandon():
                    await self._jobs.abandon(self._epoch, row.id)
                    self._drop(row.id)
                case Finish():
                    await self._jobs.finish(self._epoch, row.id)
            moved = True
            if new_tasks:
                await self._load(row)
        return moved

    async def _load(self, row: Job) -> None:
        """Learn of tasks that are open and that we don't know."""
        over: set[Attempt] = set()
        self._over = over
        try:
            found = await self._jobs.open_tasks(row.id)
        finally:
            self._over = None
        for task in found:
            key = (row.id, task.attempt.task)
            if key in self._tasks or task.attempt in over:
                continue
            self._tasks[key] = task
            if task.agent:
                self._board.runs(task, task.agent.partition("/")[0])
                self._given_s.setdefault(task.attempt, self._clock.monotonic_s())
            elif task.work.reducer is None or (row.id, task.work.phase) in self._whole or row.cursors[task.work.phase]:
                self._show(task)
        await self._say_more()

    def _show(self, task: Task) -> None:
        """It is ready: on the board with it."""
        hosts: Sequence[str] | None = None
        if task.work.version is not None:
            lost_on = self._lost_on.get((task.attempt.job, task.attempt.task), set())
            hosts = eligible(self._places.hosts(task.work.version), lost_on, self._agents.hosts)
        row = self._rows.get(task.attempt.job)
        if row is not None and row.document.phases[task.work.phase].image is not UNSET:
            image = row.document.phases[task.work.phase].image_range
            hosts = self._agents.fit(hosts, image, knows_all=self._met_all)
        self._board.put(task, hosts)

    def _show_again(self) -> None:
        """What waits is shown to those that may have it now: where copies are, and who is up, has changed."""
        for task in self._board.waiting():
            self._board.withdraw(task.attempt)
            self._show(task)

    async def _show_reducers(self, job: uuid.UUID, phase: int) -> None:
        for (of_job, _), task in self._tasks.items():
            if of_job == job and task.work.phase == phase and not task.agent:
                self._show(task)
        await self._say_more()

    async def _say_more(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def _dispatch(self, row: Job, step: DispatchItems) -> bool:
        """Whether it made tasks. A reducer is fed item by item: to read all that is open after each would be most of the work."""
        items = await self._jobs.items(row.id, step.phase, step.after, step.upto - step.after)
        works: list[Work] = []
        feeds: list[Feed] = []
        errors: list[JobError] = []
        reducers = row.document.phases[step.phase].reducers
        for item, found in zip(items, await self._places.locate(row, step.phase, items), strict=True):
            if isinstance(found, JobError):
                errors.append(found)
                continue
            own = clears(row, step.phase, found.name)
            if not reducers:
                works.append(Work(step.phase, found.name, item.first_input, found.version, clears=own))
            elif item.reducer is not None and item.reducer >= reducers:
                errors.append(_no_such_reducer(step.phase, item, reducers))
            else:
                reducer = self._pick.randrange(reducers) if item.reducer is None else item.reducer
                feeds.append(Feed(reducer, found.name, found.version, clears=own))
        await self._jobs.dispatch(
            self._epoch, Dispatch(row.id, step.phase, step.after, step.upto, works, feeds, errors)
        )
        if feeds:
            await self._show_reducers(row.id, step.phase)
        return bool(works)

    def _drop(self, job: uuid.UUID) -> None:
        """None of its tasks is anybody's any more."""
        self._board.forget(job)
        for key, task in list(self._tasks.items()):
            if key[0] == job:
                self._end(task.attempt)

    def _end(self, attempt: Attempt) -> None:
        key = (attempt.job, attempt.task)
        if self._over is not None:
            self._over.add(attempt)
        self._board.over(attempt)
        self._given_s.pop(attempt, None)
        if key in self._tasks and self._tasks[key].attempt == attempt:
            del self._tasks[key]
            self._lost_on.pop(key, None)

    def _forget(self, job: uuid.UUID) -> None:
        self._drop(job)
        self._rows.pop(job, None)
        self._stale.discard(job)
        self._whole = {key for key in self._whole if key[0] != job}

    # agents

    async def orders(
        self, agent: Agent, slots: int, held: Sequence[Attempt] | None, *, most: int = 0, wait_s: float = SWEEP_S
    ) -> Sequence[Order]:
        """Work for an agent, which is there as long as it asks: waits for some. `slots`, `most`: see `Board.take`. `held`, now and then:
        all that it has.

        Raises MetadataError.
        """
        await self._meet(agent)
        if held is not None and (again := self._unheld(agent, held)):
            return await self._hand_out(agent, again)
        end_s = self._clock.monotonic_s() + wait_s
        while True:
            used = len(self._board.running(agent.host))
            if tasks := self._board.take(agent.host, slots, used, most):
                return await self._hand_out(agent, tasks)
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0 or not await self._until_more(left_s):
                return []

    async def _until_more(self, bound_s: float) -> bool:
        async with self._more:
            try:
                await asyncio.wait_for(self._more.wait(), bound_s)
            except TimeoutError:
                return False
        return True

    async def _meet(self, agent: Agent) -> None:
        if self._agents.meet(agent, self._clock.monotonic_s()):
            # What an earlier start of it had is lost.
            older = [
                t for t in self._tasks.values() if t.agent.partition("/")[0] == agent.host and t.agent != str(agent)
            ]
            await self._give_up([task.attempt for task in older])
            self._show_again()
            await self._say_more()

    def _unheld(self, agent: Agent, held: Sequence[Attempt]) -> list[Task]:
        """What it should have and doesn't: the answer with it was lost on its way."""
        has, now_s = set(held), self._clock.monotonic_s()
        return [
            task
            for attempt in self._board.running(agent.host)
            if attempt not in has
            and now_s - self._given_s.get(attempt, now_s) >= AGAIN_S
            and (task := self._tasks.get((attempt.job, attempt.task))) is not None
        ]

    def strangers(self, agent: Agent, held: Sequence[Attempt]) -> list[Attempt]:
        """What it has and should not: given up, cancelled, or done."""
        if not self._knows_all:
            return []
        ours = set(self._board.running(agent.host))
        return [attempt for attempt in held if attempt not in ours]

    async def _hand_out(self, agent: Agent, tasks: Sequence[Task]) -> Sequence[Order]:
        """Written down before it is said. If that fails they are its all the same: it won't say that it has them, and gets them again."""
        now_s = self._clock.monotonic_s()
        for task in tasks:
            self._given_s[task.attempt] = now_s
            self._tasks[task.attempt.job, task.attempt.task] = replace(task, agent=str(agent))
        begun = set(await self._jobs.hand_out(self._epoch, [task.attempt for task in tasks], str(agent)))
        for task in tasks:
            if task.attempt not in begun:
                self._end(task.attempt)
                self.wake(task.attempt.job)
        return [
            Order(t, self._rows[t.attempt.job]) for t in tasks if t.attempt in begun and t.attempt.job in self._rows
        ]

    async def results(self, agent: Agent, results: Sequence[Result], lost: Sequence[Attempt] = ()) -> None:
        """What an agent's attempts came to, and those that came to nothing there; decided when this returns.

        Raises MetadataError: it may say so again.
        """
        self._agents.heard(agent, self._clock.monotonic_s())
        if results:
            await self._jobs.commit(self._epoch, results)
        await self._give_up([attempt for attempt in lost if self._is_of(agent, attempt)])
        for result in results:
            self._end(result.attempt)
            self.wake(result.attempt.job)
        await self._say_more()  # there is room for others

    def _is_of(self, agent: Agent, attempt: Attempt) -> bool:
        task = self._tasks.get((attempt.job, attempt.task))
        return task is not None and task.attempt == attempt and task.agent == str(agent)

    async def made(self, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        """`posting.Keeper`."""
        return await self._jobs.keep_made(self._epoch, attempt, after, made)

    async def feed(
        self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int
    ) -> tuple[Sequence[Feed], bool]:
        """What a reducer gets beyond that number, and whether that is all that it will get."""
        is_whole = (job, phase) in self._whole  # before the look
        found = [self._with_hosts(feed) for feed in await self._jobs.feeds(job, phase, reducer, after, limit)]
        return found, is_whole and len(found) < limit

    def _with_hosts(self, feed: Feed) -> Feed:
        return feed if feed.version is None else replace(feed, hosts=tuple(self._places.hosts(feed.version)))

    async def _give_up_silent(self) -> None:
        now_s = self._clock.monotonic_s()
        if silent := self._agents.drop_silent(now_s):
            log.warning("agents silent", hosts=silent)
            self._show_again()
        if now_s - self._since_s <= SILENCE_S:
            return  # those that we have not met may not have met us
        if not self._met_all:
            self._met_all = True
            self._show_again()
            await self._say_more()
        lost = [task.attempt for task in self._tasks.values() if task.agent and not self._agents.has(task.agent)]
        await self._give_up(lost)

    async def _give_up(self, attempts: Sequence[Attempt]) -> None:
        if not attempts:
            return
        lost = [Lost(attempt, last=attempt.number + 1 >= TRIES_MAX) for attempt in attempts]
        await self._jobs.give_up(self._epoch, lost)
        for one in lost:
            key = (one.attempt.job, one.attempt.task)
            task = self._tasks.get(key)
            lost_on = self._lost_on.pop(key, set())
            self._end(one.attempt)
            if task is not None and not one.last:
                self._lost_on[key] = lost_on | {task.agent.partition("/")[0]}
            # What became of it is read again: it may have been decided meanwhile.
            self._stale.add(one.attempt.job)
            self.wake(one.attempt.job)


def _nobody_hears(_job: uuid.UUID) -> None: ...


def _no_such_reducer(phase: int, item: Item, reducers: int) -> JobError:
    message = f'reducer "{item.reducer}" specified, but only {reducers} reducers exist'
    return JobError(phase, "InvalidArgumentError", message, item.name, item.first_input)
