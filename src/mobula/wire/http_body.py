"""A message body on its way from a parser to whoever reads it, with backpressure. Used by server and client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

HIGH_WATER_BYTES = 512 * 1024


class BodyBuffer:
    """Chunks fed by a protocol, read by a coroutine. Over HIGH_WATER_BYTES unread, `full` is true and `changed` is called."""

    __slots__ = (
        "_changed",
        "_chunks",
        "_error",
        "_waiter",
        "buffered_bytes",
        "ended",
        "full",
        "received_bytes",
        "waiting_since_s",
    )

    def __init__(self, changed: Callable[[], None]) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = changed
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.buffered_bytes = 0
        self.received_bytes = 0
        self.ended = False
        """all of it has arrived (not: has been read)"""
        self.full = False
        self.waiting_since_s: float | None = None
        """loop time since which a reader waits for bytes, None if none does"""

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        size = len(data)
        self.buffered_bytes += size
        self.received_bytes += size
        if self.buffered_bytes > HIGH_WATER_BYTES and not self.full:
            self.full = True
            self._changed()
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Whoever reads gets `error`, after what has arrived before it. Nothing happens once the body has ended."""
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    def take(self) -> list[bytes]:
        """What has arrived and is unread, without waiting."""
        chunks = list(self._chunks)
        self._chunks.clear()
        self._release(self.buffered_bytes)
        return chunks

    async def next(self) -> bytes:
        """The next chunk; empty at the end. Raises what `fail` was given."""
        while not self._chunks:
            if self.ended:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        chunk = self._chunks.popleft()
        self._release(len(chunk))
        return chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.next():
            yield chunk

    def _release(self, size_bytes: int) -> None:
        self.buffered_bytes -= size_bytes
        if self.full and self.buffered_bytes <= HIGH_WATER_BYTES // 2:
            self.full = False
            self._changed()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("read a body: another task is reading it")
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self.waiting_since_s = loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.waiting_since_s = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
