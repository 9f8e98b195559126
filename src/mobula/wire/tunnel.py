"""A connection that was upgraded (101): no HTTP any more, but bytes both ways, with backpressure."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mobula.wire.http_body import BodyBuffer


class TunnelClosed(Exception):
    """The other end is gone: nothing more can be sent."""


class Wire(Protocol):
    """The connection below."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None:
        """What was written is sent first."""


class Tunnel:
    """One end."""

    def __init__(self, wire: Wire, arriving: BodyBuffer, failure: type[Exception]) -> None:
        """`failure`: what the wire and its buffer raise when the other end is gone."""
        self._wire = wire
        self._arriving = arriving
        self._failure = failure

    async def read(self) -> bytes:
        """What has arrived; empty once the other end has sent its last, or is gone."""
        try:
            return await self._arriving.next()
        except self._failure:
            return b""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises TunnelClosed."""
        try:
            self._wire.write(data)
            await self._wire.drain()
        except self._failure as error:
            raise TunnelClosed(str(error)) from error

    def close(self, last: bytes = b"") -> None:
        """End it, after these last bytes and what was written before. Closing twice is no error."""
        if last:
            try:
                self._wire.write(last)
            except self._failure:
                return
        self._wire.close()


async def join(one: Tunnel, other: Tunnel) -> None:
    """Give each what the other sends, until either ends: then both are closed."""
    carrying = [asyncio.create_task(_carry(one, other)), asyncio.create_task(_carry(other, one))]
    try:
        await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in carrying:
            task.cancel()
        one.close()
        other.close()
        await asyncio.gather(*carrying, return_exceptions=True)


async def _carry(source: Tunnel, sink: Tunnel) -> None:
    try:
        while data := await source.read():
            await sink.write(data)
    except TunnelClosed:
        return
