"""Names in great number on their way to a supervisor that is away now and then, or has given the attempt to somebody else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from mobula.jobs import posting as postings
from mobula.jobs.posting import Posting
from mobula.metadata.jobs import Attempt, Made
from mobula.metadata.model import Unavailable

ATTEMPT = Attempt(uuid.UUID(int=1), 7, 1)
BATCH = 10
BOUND_S = 5.0


class Emitted:
    """As a door: full from ten names on."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self._full = asyncio.Event()

    def emit(self, count: int) -> None:
        self.made += [Made(f"/o/{n}") for n in range(len(self.made), len(self.made) + count)]
        if len(self.made) >= BATCH:
            self._full.set()

    def take(self) -> list[Made]:
        made, self.made = self.made, []
        self._full.clear()
        return made

    async def full(self) -> None:
        await self._full.wait()


class Keeper:
    """Keeps names as a shard does: by number, the first one counts."""

    def __init__(self) -> None:
        self.kept: dict[int, Made] = {}
        self.away = 0
        self.slow_s = 0.0
        self.counts = True
        self.calls = 0

    async def made(self, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        assert attempt == ATTEMPT
        self.calls += 1
        for number, one in enumerate(made, after + 1):
            self.kept.setdefault(number, one)
        await asyncio.sleep(self.slow_s)
        if self.away:  # it is kept, but nobody learns so
            self.away -= 1
            raise Unavailable("no answer")
        return self.counts


class World:
    def __init__(self) -> None:
        self.emitted, self.keeper, self.killed = Emitted(), Keeper(), asyncio.Event()
        self.posting = Posting(self.keeper, ATTEMPT, self.emitted, self.killed.set)

    async def until_kept(self, count: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.posting.kept < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(postings, "PAUSE_S", 0.001)
    return World()


async def test_few_names_stay_for_the_result(world: World) -> None:
    async with world.posting.running():
        world.emitted.emit(BATCH - 1)
        await asyncio.sleep(0.01)
    assert len(await world.posting.rest()) == BATCH - 1
    assert (world.posting.kept, world.keeper.calls) == (0, 0)


async def test_many_are_kept_as_they_come(world: World) -> None:
    async with world.posting.running():
        for n in range(1, 4):
            world.emitted.emit(BATCH)
            await world.until_kept(n * BATCH)
        world.emitted.emit(3)
    assert len(await world.posting.rest()) == 3
    assert sorted(world.keeper.kept) == list(range(1, 3 * BATCH + 1))
    assert not world.killed.is_set()


async def test_what_a_supervisor_did_not_hear_is_said_again(world: World) -> None:
    world.keeper.away = 3
    async with world.posting.running():
        world.emitted.emit(BATCH)
        await world.until_kept(BATCH)
    assert world.keeper.calls == 4
    assert len(world.keeper.kept) == BATCH


async def test_a_command_that_ends_while_names_are_told_loses_none(world: World) -> None:
    world.keeper.slow_s = 0.05
    async with world.posting.running():
        world.emitted.emit(BATCH)
        await asyncio.sleep(0.01)
        world.emitted.emit(2)
    assert world.posting.kept == 0
    assert len(await world.posting.rest()) == 2
    assert world.posting.kept == len(world.keeper.kept) == BATCH


async def test_an_attempt_that_is_nobodys_any_more_is_killed(world: World) -> None:
    world.keeper.counts = False
    async with asyncio.timeout(BOUND_S), world.posting.running():
        world.emitted.emit(BATCH)
        await world.killed.wait()
    assert not world.posting.counts
    await world.posting.rest()
    assert world.keeper.calls == 1


async def test_an_error_of_ours_is_not_lost(world: World) -> None:
    async def broken(*_: object) -> bool:
        raise RuntimeError("ours")

    world.keeper.made = broken  # type: ignore[method-assign]

    async def command() -> None:
        async with world.posting.running():
            world.emitted.emit(BATCH)
            await asyncio.sleep(0.01)

    with pytest.raises(RuntimeError, match="ours"):
        await command()
