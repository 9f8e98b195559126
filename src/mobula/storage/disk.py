"""Blocking work on the pool, in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_THREADS = 32


class Disk:
    """Call it with what is to be done."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk")

    async def __call__[T](self, call: Callable[[], T]) -> T:
        """What `call` gives, from a thread; a cancelled caller leaves only after the thread has finished."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await work
            raise

    def stop(self) -> None:
        """Finish what was begun."""
        self._threads.shutdown(wait=True)
