"""Pairs the two websockets of a job's terminal, and forwards frames. The supervisor of the job's shard does it: so both meet.

Nothing is kept: an end whose peer takes nothing is not read either. A session ends with its supervisor's term.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import structlog
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError, generate_accept_token

from mobula.jobs.session import Said, Session, Side
from mobula.wire.http_exchange import Request, Response
from mobula.wire.tunnel import Tunnel, TunnelClosed

log = structlog.get_logger()

TICK_S = 0.5


class _End:
    """One websocket, as its server."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.frames = Connection(ConnectionType.SERVER)

    async def send(self, event: Event) -> None:
        """Raises TunnelClosed."""
        if self.frames.state is ConnectionState.OPEN:
            await self.tunnel.write(self.frames.send(event))

    def close(self, why: str) -> None:
        """Say why, unless the peer has closed it (that is answered then), and end it."""
        last = b""
        if self.frames.state in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}:
            last = self.frames.send(CloseConnection(CloseReason.NORMAL_CLOSURE, why[:120]))
        self.tunnel.close(last)


class _Pair:
    """A session and its sockets."""

    def __init__(self) -> None:
        self.session = Session()
        self.ends: dict[Side, _End] = {}

    async def tell(self, said: Said) -> None:
        for side, text in said:
            await self.ends[side].send(TextMessage(text))

    def close(self) -> None:
        for end in self.ends.values():
            end.close(self.session.over)


class Reflector:
    """The sessions of the jobs that a supervisor leads."""

    def __init__(self) -> None:
        self._pairs: dict[uuid.UUID, _Pair] = {}

    @property
    def count(self) -> int:
        return len(self._pairs)

    async def attach(
        self, job: uuid.UUID, side: Side, request: Request, response: Response, leads: Callable[[], bool]
    ) -> None:
        """Make the request (`wire.websocket.is_asked_for`) an end of a job's session, until that is over.

        Raises:
            Taken: the job has that end; the request is not answered.
        """
        pair = self._pairs.get(job) or _Pair()
        said = pair.session.join(side, time.monotonic())
        self._pairs[job] = pair
        try:
            accept = generate_accept_token((request.headers.get("sec-websocket-key") or "").encode("latin-1"))
            headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept.decode("ascii"))]
            pair.ends[side] = _End(response.upgrade(headers))
            await pair.tell(said)
            await self._serve(pair, side, leads)
            pair.session.end(f"its {side} has left")
        except TunnelClosed:
            pair.session.end("one of its ends is gone")
        except RemoteProtocolError as error:
            pair.session.end(f"its {side} sent what is no websocket: {error}")
        finally:
            pair.session.end("it was cut off")
            if self._pairs.get(job) is pair:
                del self._pairs[job]
                log.info("session over", job=str(job), why=pair.session.over)
            pair.close()

    async def _serve(self, pair: _Pair, side: Side, leads: Callable[[], bool]) -> None:
        """Until the session is over, or this end's socket."""
        tunnel, session = pair.ends[side].tunnel, pair.session
        while not session.over:
            data = b""
            try:
                async with asyncio.timeout(TICK_S):
                    if not (data := await tunnel.read()):
                        return
            except TimeoutError:
                pass
            if data and not await self._take(pair, side, data):
                return
            if not leads():
                session.end("another supervisor leads the job")
            await pair.tell(session.due(time.monotonic()))

    async def _take(self, pair: _Pair, side: Side, data: bytes) -> bool:
        """What came from an end; False: it closes. Before both are there only pings are answered, and nothing is forwarded."""
        end = pair.ends[side]
        pair.session.unread(side)
        end.frames.receive_data(data)
        for event in end.frames.events():
            if isinstance(event, CloseConnection):
                return False
            if pair.session.linked and isinstance(event, Message | Ping | Pong):
                await pair.ends[side.other].send(event)
            elif isinstance(event, Ping):
                await end.send(event.response())
        pair.session.heard(side, time.monotonic())
        return True
