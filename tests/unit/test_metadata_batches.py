"""Calls that go to a shard together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import pytest

from mobula.metadata.batches import ITEMS_MAX, Batches
from mobula.metadata.model import Unavailable

LATER = 100.0


class Shard:
    """Answers `item + 1`, when it is let."""

    def __init__(self, fails: Callable[[Sequence[int]], Exception | None] = lambda _: None) -> None:
        self.sent: list[tuple[Sequence[int], float]] = []
        self.let = asyncio.Event()
        self._fails = fails

    async def send(self, items: Sequence[int], deadline: float) -> Sequence[int]:
        self.sent.append((items, deadline))
        await self.let.wait()
        error = self._fails(items)
        if error:
            raise error
        return [item + 1 for item in items]

    @property
    def sizes(self) -> list[int]:
        return [len(items) for items, _ in self.sent]


def run[T](test: Coroutine[None, None, T]) -> T:
    return asyncio.run(asyncio.wait_for(test, 5))


async def asked(batches: Batches[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    """These items, each asked by a task of its own, in that order; all have got as far as they can."""
    tasks = []
    for item in items:
        tasks.append(asyncio.create_task(batches.ask(item, LATER + item)))
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_the_first_goes_at_once_and_who_comes_meanwhile_goes_together() -> None:
    async def test() -> None:
        shard = Shard()
        batches = Batches(shard.send)
        tasks = await asked(batches, range(10))
        assert shard.sizes == [1]
        shard.let.set()
        assert await asyncio.gather(*tasks) == list(range(1, 11))
        assert shard.sizes == [1, 9]
        assert shard.sent[-1][1] == LATER + 1, "the earliest deadline counts for all"

    run(test())


def test_a_batch_is_bounded() -> None:
    async def test() -> None:
        shard = Shard()
        tasks = await asked(Batches(shard.send), range(ITEMS_MAX + 2))
        shard.let.set()
        await asyncio.gather(*tasks)
        assert max(shard.sizes) == ITEMS_MAX

    run(test())


def test_a_shard_that_is_away_fails_all_that_went_together_each_with_an_error_of_its_own() -> None:
    async def test() -> None:
        shard = Shard(lambda _: Unavailable("no lease"))
        tasks = await asked(Batches(shard.send), range(6))
        shard.let.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in errors)
        assert len({id(error) for error in errors}) == len(errors)

    run(test())


def test_an_item_that_the_shard_chokes_on_fails_alone() -> None:
    async def test() -> None:
        shard = Shard(lambda items: ValueError("7") if 7 in items else None)
        tasks = await asked(Batches(shard.send), range(10))
        shard.let.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [item for item, answer in enumerate(answers) if isinstance(answer, Exception)] == [7]

    run(test())


def test_who_gave_up_while_waiting_is_left_out_and_harms_nobody() -> None:
    async def test() -> None:
        shard = Shard()
        tasks = await asked(Batches(shard.send), range(4))
        tasks[0].cancel()  # on its way already
        tasks[1].cancel()
        await asyncio.sleep(0)
        shard.let.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert shard.sizes[-1] == 2
        assert [a for a in answers if isinstance(a, int)] == [n + 1 for n in range(1, 4) if n != 1]

    run(test())


def test_batches_go_on_after_an_error() -> None:
    async def test() -> None:
        shard = Shard(lambda items: Unavailable("once") if items == [0] else None)
        shard.let.set()
        batches = Batches(shard.send)
        with pytest.raises(Unavailable):
            await batches.ask(0, LATER)
        for item in (1, 2):
            assert await batches.ask(item, LATER) == item + 1

    run(test())
