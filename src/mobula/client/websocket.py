"""A websocket to the service, as its client, on asyncio: whole texts and pieces of bytes, pings, and how it fails.

The frames, and the handshake, are `wsproto`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from mobula.client import model
from mobula.client.effects import read_refusal
from mobula.client.errors import MobulaError
from mobula.core.medusa import IDLE_S, MESSAGE_BYTES_MAX, PING_S
from mobula.wire.http_failures import Address
from mobula.wire.http_message import Pairs

READ_BYTES = 64 * 1024
CONNECT_S = 15.0
CLOSE_S = 2.0


class WebSocket:
    """Made by `connect`; used with `async with`, which pings meanwhile and closes in the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader = reader
        self._writer = writer
        self._where = where
        self._frames = WSConnection(ConnectionType.CLIENT)
        self._text = ""
        self._came: list[Event] = []
        """together with the handshake's answer"""
        self._pinging: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, address: Address, host: str, target: str, headers: Pairs = (), tls: ssl.SSLContext | None = None
    ) -> Self:
        """`host`: what the request says; `target`: path and query, encoded.

        Raises:
            MobulaError: what the service says against it; ConnectionFailed, InvalidAnswer.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                name = address.host if tls is not None else None
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=tls, server_hostname=name
                )
                made = cls(reader, writer, str(address))
                try:
                    await made._shake(host, target, headers)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, TimeoutError, ssl.SSLError) as error:
            why = str(error) or f"no answer in {CONNECT_S:.0f} s"
            raise MobulaError("ConnectionFailed", f"connect to {address}: {why}") from error
        return made

    async def _shake(self, host: str, target: str, headers: Pairs) -> None:
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        await self._send(Request(host=host, target=target, extra_headers=fields))
        refusal, body = None, b""
        while True:
            came = await self._events()
            for number, event in enumerate(came):
                match event:
                    case AcceptConnection():
                        self._came = came[number + 1 :]
                        return
                    case RejectConnection():
                        refusal = event
                    case RejectData():
                        body += event.data
                if refusal is not None and (not refusal.has_body or getattr(event, "body_finished", False)):
                    raise _refused(target, refusal, body)

    async def _events(self) -> list[Event]:
        """What has come, once something has. Raises MobulaError."""
        if self._came:
            came, self._came = self._came, []
            return came
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            raise self._lost(str(error)) from error
        if not data:
            raise self._lost("it ended the connection")
        try:
            self._frames.receive_data(data)
            return list(self._frames.events())
        except ProtocolError as error:
            raise MobulaError("InvalidAnswer", f"read from {self._where}: {error}") from error

    def _lost(self, why: str) -> MobulaError:
        return MobulaError("ConnectionFailed", f"talk with {self._where}: {why}")

    async def _send(self, event: Event) -> None:
        self._writer.write(self._frames.send(event))
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._lost(str(error)) from error

    async def _answer(self, event: Event) -> None:
        """To a ping or an end. Who said so may have gone since: what it has sent is read to the end all the same."""
        with contextlib.suppress(MobulaError):
            await self._send(event)

    async def send(self, message: str | bytes) -> None:
        """A text, or bytes; returns when there is room for more, at once if it is being closed. Raises MobulaError (ConnectionFailed)."""
        if self._frames.state is ConnectionState.OPEN:
            await self._send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Whole texts, and bytes in pieces as they come, until either side has closed it.

        Raises:
            MobulaError: ConnectionFailed (it broke off, or nothing came for 30 s), InvalidAnswer.
        """
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    events = await self._events()
            except TimeoutError as error:
                raise self._lost(f"nothing came for {IDLE_S:.0f} s") from error
            for event in events:
                match event:
                    case BytesMessage():
                        yield bytes(event.data)
                    case TextMessage():
                        if (text := self._whole(event)) is not None:
                            yield text
                    case Ping():
                        await self._answer(event.response())
                    case CloseConnection():
                        if self._frames.state is ConnectionState.REMOTE_CLOSING:
                            await self._answer(event.response())
                        return

    def _whole(self, event: TextMessage) -> str | None:
        """Raises MobulaError: it is too long."""
        self._text += event.data
        if len(self._text) > MESSAGE_BYTES_MAX:
            raise MobulaError(
                "InvalidAnswer", f"read from {self._where}: a text of more than {MESSAGE_BYTES_MAX} bytes"
            )
        if not event.message_finished:
            return None
        text, self._text = self._text, ""
        return text

    async def close(self) -> None:
        """Say that there is no more; `messages` ends when the other side has said so, too."""
        if self._frames.state is ConnectionState.OPEN:
            await self._send(CloseConnection(code=1000))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            if self._frames.state is ConnectionState.OPEN:
                await self._send(Ping())

    async def __aenter__(self) -> Self:
        self._pinging = asyncio.create_task(self._ping())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)
        with contextlib.suppress(MobulaError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.close()
                self._writer.close()
                await self._writer.wait_closed()


def _refused(target: str, refusal: RejectConnection, body: bytes) -> MobulaError:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in refusal.headers}
    path = target.partition("?")[0]
    return read_refusal(model.Request("GET", path), model.Answer(refusal.status_code, headers), body)
