"""How long a request may stay undecided, whatever its steps wait for: accounts, the metadata tier, storage servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Self

from mobula.core.errors import unavailable

DECIDE_S = 6.0
"""so that 503 is there within 10 s whatever a loadbalancer tried before (up to 3.8 s), and what was stored is dropped"""


class Bound:
    """The time that is left to decide one request. It stands still while the client is waited for, and ends when the answer begins."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, seconds: float) -> AsyncIterator[Self]:
        """Of what is done in the block. Raises ApiError (503) there when the time is up."""
        try:
            async with asyncio.timeout(seconds) as timeout:
                yield cls(timeout)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise unavailable(f"this could not be decided within {seconds:g} s; try again") from error

    def lift(self) -> None:
        """It is decided: from now on only the client can make it last."""
        self._set(None)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While the client sends."""
        loop = asyncio.get_running_loop()
        until_s = self._timeout.when()
        left_s = None if until_s is None else until_s - loop.time()
        self._set(None)
        try:
            yield
        finally:
            self._set(None if left_s is None else loop.time() + left_s)

    def _set(self, until_s: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # the time is up already, or the block has ended
            self._timeout.reschedule(until_s)
