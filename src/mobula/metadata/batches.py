"""Calls that go together: while some are on their way to a shard, those that come meanwhile wait, and make the next round trip.

One at a time: two at once were slower (half as many calls in each), and a shard that makes one wait makes all wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mobula.metadata.model import OutcomeUnknown, Unavailable

ITEMS_MAX = 64


@dataclass(slots=True)
class _Waiting[Item, Answer]:
    item: Item
    deadline: float
    answer: asyncio.Future[Answer]


class Batches[Item, Answer]:
    """Sends items by `send`, which gets some of them and a deadline (time.monotonic()), and gives an answer for each, in order.

    Nobody waits for company: an item that finds none on their way goes at once.
    """

    def __init__(self, send: Callable[[Sequence[Item], float], Awaitable[Sequence[Answer]]]) -> None:
        self._send = send
        self._queue: deque[_Waiting[Item, Answer]] = deque()
        self._flight: asyncio.Task[None] | None = None

    async def ask(self, item: Item, deadline: float) -> Answer:
        """One item's answer.

        Raises:
            What `send` raises: Unavailable and OutcomeUnknown for all that went together, any other error for this item alone.
        """
        waiting = _Waiting(item, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._flight is None:
            self._flight = asyncio.create_task(self._fly())
        answer: Answer = await waiting.answer
        return answer

    async def _fly(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), ITEMS_MAX))]
                await self._carry([waiting for waiting in batch if not waiting.answer.done()])
        finally:
            self._flight = None

    async def _carry(self, batch: Sequence[_Waiting[Item, Answer]]) -> None:
        if not batch:
            return
        try:
            answers = await self._send([w.item for w in batch], min(w.deadline for w in batch))
        except Exception as error:  # noqa: BLE001 (whoever waits gets it)
            if len(batch) > 1 and not isinstance(error, Unavailable | OutcomeUnknown):
                # One of them is to blame, and the others shall not suffer: each alone.
                for waiting in batch:
                    await self._carry([waiting])
                return
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(_own(error))
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)


def _own(error: Exception) -> Exception:
    """An error for one of several: each raises its own, as an exception collects the places that it passes."""
    return type(error)(*error.args) if isinstance(error, Unavailable | OutcomeUnknown) else error
