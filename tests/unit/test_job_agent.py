"""An agent between a supervisor and tasks that end when the test says so."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from mobula.core.clock import SystemClock
from mobula.core.job import JobDocument, Phase
from mobula.jobs import agent as agents
from mobula.jobs.agent import MOST, YOUNG_MAX, Work
from mobula.jobs.lead import Order
from mobula.jobs.runner import Lost, Runner
from mobula.metadata.jobs import Attempt, Job, Made, Owner, Result, State, Task
from mobula.metadata.jobs import Work as Wanted
from mobula.metadata.model import Unavailable

ROW = Job(
    uuid.UUID(int=1), Owner(uuid.UUID(int=2), "dap"), JobDocument((Phase("wc"),)), State.RUNNING, False, True, (9, 0), (9,), (9,),
)  # fmt: skip
BOUND_S = 5.0


def attempt(number: int, tries: int = 0) -> Attempt:
    return Attempt(ROW.id, number, tries)


class Supervisor:
    """Has some orders, forgets what it was told when it is silent."""

    def __init__(self, count: int) -> None:
        self.left = [attempt(n) for n in range(count)]
        self.given: list[Attempt] = []
        self.results_of: list[Attempt] = []
        self.lost: list[Attempt] = []
        self.calls: list[int] = []
        self.said: list[Attempt] = []
        self.not_yours: list[Attempt] = []
        self.silent = False

    def _answer(self) -> None:
        if self.silent:
            raise Unavailable("nobody leads")

    async def orders(
        self, slots: int, held: Sequence[Attempt] | None, most: int
    ) -> tuple[Sequence[Order], Sequence[Attempt]]:
        assert most >= slots
        self._answer()
        if held is not None:
            self.said = list(held)
        running = len(self.given) - len(self.results_of) - len(self.lost)
        now, self.left = self.left[: max(0, slots - running)], self.left[max(0, slots - running) :]
        self.given += now
        if not now:
            await asyncio.sleep(0.01)
        orders = [Order(Task(one, Wanted(0, "/dap/stor/a")), ROW) for one in now]
        return orders, self.not_yours if held is not None else []

    async def results(self, results: Sequence[Result], lost: Sequence[Attempt]) -> None:
        self._answer()
        self.calls.append(len(results) + len(lost))
        await asyncio.sleep(0.005)
        self.results_of += [result.attempt for result in results]
        self.lost += lost


class Tasks:
    """In the place of a Runner."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[Attempt] = []
        self.killed: list[Attempt] = []
        self.fails: dict[int, Exception] = {}
        self.puts = False
        """they have run, and what they put out is on its way"""

    async def run(self, order: Order, ran: Callable[[], None]) -> Result:
        one = order.task.attempt
        self.begun.append(one)
        if self.puts:
            ran()
        await self.go.wait()
        if one.task in self.fails:
            raise self.fails[one.task]
        return Result(one, [Made("/o")])

    def kill(self, one: Attempt) -> None:
        self.killed.append(one)

    async def expire(self, idle_s: float) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def working(supervisor: Supervisor, tasks: Tasks) -> AsyncIterator[Work]:
    work = Work({1: supervisor}, cast("Runner", tasks), SystemClock())
    running = asyncio.create_task(work.run())
    try:
        yield work
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def until(what: object) -> None:
    assert callable(what)
    async with asyncio.timeout(BOUND_S):
        while not what():
            await asyncio.sleep(0.001)


async def test_what_there_is_is_done_and_told() -> None:
    supervisor, tasks = Supervisor(50), Tasks()
    tasks.go.set()
    async with working(supervisor, tasks) as work:
        await until(lambda: len(supervisor.results_of) == 50)
        assert sorted(one.task for one in supervisor.results_of) == list(range(50))
        assert work.held == 0
    assert len(supervisor.calls) < 50  # several at a time


async def test_few_begin_at_a_time_and_many_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, tasks = Supervisor(40), Tasks()
    monkeypatch.setattr(agents, "YOUNG_S", 60.0)
    async with working(supervisor, tasks):
        await until(lambda: len(tasks.begun) == YOUNG_MAX)
        await asyncio.sleep(0.05)
        assert len(tasks.begun) == YOUNG_MAX
    supervisor, tasks = Supervisor(40), Tasks()
    tasks.puts = True
    async with working(supervisor, tasks):
        await until(lambda: len(tasks.begun) == 40)
    supervisor, tasks = Supervisor(MOST + 40), Tasks()
    monkeypatch.setattr(agents, "YOUNG_S", 0.001)
    async with working(supervisor, tasks):
        await until(lambda: len(tasks.begun) == MOST)
        await asyncio.sleep(0.05)
        assert len(tasks.begun) == MOST


async def test_what_came_to_nothing_is_told_too() -> None:
    supervisor, tasks = Supervisor(3), Tasks()
    tasks.go.set()
    tasks.fails = {0: Lost("the pool is gone"), 1: RuntimeError("ours")}
    async with working(supervisor, tasks):
        await until(lambda: len(supervisor.lost) == 2 and len(supervisor.results_of) == 1)
        assert {one.task for one in supervisor.lost} == {0, 1}


async def test_results_are_kept_until_somebody_has_heard_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.01)
    monkeypatch.setattr(agents, "SAY_ALL_S", 0.0)
    supervisor, tasks = Supervisor(2), Tasks()
    async with working(supervisor, tasks) as work:
        await until(lambda: len(tasks.begun) == 2)
        supervisor.silent = True
        tasks.go.set()
        await until(lambda: work.held == 0)
        await asyncio.sleep(0.05)
        supervisor.silent = False
        await until(lambda: len(supervisor.results_of) == 2)
        await until(lambda: not supervisor.said)


async def test_what_it_has_not_told_the_end_of_it_still_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "SAY_ALL_S", 0.0)
    supervisor, tasks = Supervisor(1), Tasks()

    async def deaf(*_: object) -> None:
        raise Unavailable("not now")

    supervisor.results = deaf  # type: ignore[method-assign, assignment]
    tasks.go.set()
    async with working(supervisor, tasks) as work:
        await until(lambda: tasks.begun and work.held == 0)
        supervisor.said = []
        await until(lambda: supervisor.said == [attempt(0)])


async def test_what_is_not_its_any_more_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "SAY_ALL_S", 0.0)
    supervisor, tasks = Supervisor(2), Tasks()
    async with working(supervisor, tasks):
        await until(lambda: len(tasks.begun) == 2)
        supervisor.not_yours = [attempt(1), attempt(77)]
        await until(lambda: tasks.killed)
        assert set(tasks.killed) == {attempt(1)}


async def test_an_order_that_comes_twice_is_run_once() -> None:
    supervisor, tasks = Supervisor(1), Tasks()
    async with working(supervisor, tasks):
        await until(lambda: len(tasks.begun) == 1)
        supervisor.left = [attempt(0)]
        await until(lambda: not supervisor.left)
        await asyncio.sleep(0.02)
        assert tasks.begun == [attempt(0)]
