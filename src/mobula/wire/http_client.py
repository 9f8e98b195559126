"""HTTP/1.1 client: pooled connections, bodies streamed both ways, errors by name.

An exchange is *answered* when the head of a final response has arrived. That may happen while the request's body is
still being sent; its sender is told at once. A connection goes back to the pool when the request was sent whole, its
response has arrived whole, and neither side asked for an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, cast

import httptools

from mobula.wire import socket_copy
from mobula.wire.http_body import BodyBuffer
from mobula.wire.http_failures import (
    Address,
    AnsweredEarly,
    ConnectFailed,
    ConnectionLost,
    InvalidResponse,
    NotTrusted,
    RequestFailed,
    ResponseTimeout,
    Timeouts,
)
from mobula.wire.http_message import Headers, Pairs, allows_body, head
from mobula.wire.tunnel import Tunnel

__all__ = [
    "Address", "AnsweredEarly", "ClientResponse", "ConnectFailed", "ConnectionLost", "HttpClient", "InvalidResponse", "RequestFailed",
    "ResponseTimeout", "Timeouts", "Upload",
]  # fmt: skip
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEAD_BYTES_MAX = 256 * 1024
_SWITCHING = 101
UNACKNOWLEDGED_MS = 5000
"""a host whose kernel has not acknowledged a byte for so long is gone (TCP_USER_TIMEOUT)"""


class ClientResponse:
    """A response whose body is still arriving. Close it (or use `async with`): read whole, it keeps its connection."""

    def __init__(self, connection: _Connection, exchange: _Exchange) -> None:
        self._connection = connection
        self._exchange = exchange
        self.status = exchange.status
        self.headers = exchange.headers
        length = self.headers.get("content-length")
        self.content_length = int(length) if length and length.isdecimal() else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it arrives. Raises ConnectionLost, ResponseTimeout, InvalidResponse."""
        while chunk := await self.next():
            yield chunk

    async def body(self, max_bytes: int = 1 << 20) -> bytes:
        """The whole body, the response is closed then. Raises what `chunks` raises; InvalidResponse beyond `max_bytes`."""
        async with self:
            parts, left = [], max_bytes
            while chunk := await self.next():
                parts.append(chunk)
                left -= len(chunk)
                if left < 0:
                    raise InvalidResponse(
                        f"read a response of {self._connection.address}: more than {max_bytes} bytes found"
                    )
            return b"".join(parts)

    async def close(self) -> None:
        self._connection.release(self._exchange)

    def tunnel(self) -> Tunnel:
        """Of an upgrade that was asked for and granted (status 101): what the connection is now, in place of a body. Close that then."""
        return Tunnel(self._connection, self._exchange.body, RequestFailed)

    # for `mobula.wire.relay`

    @property
    def address(self) -> Address:
        return self._connection.address

    @property
    def idle_s(self) -> float:
        return self._connection.timeouts.idle_s

    @property
    def left_bytes(self) -> int:
        """Of the body, what has not arrived; 0 if its length isn't known."""
        return (self.content_length or 0) - self._exchange.body.received_bytes

    def can_hand_over(self) -> bool:
        return not self._exchange.body.ended and self._connection.can_hand_over()

    def hand_over(self) -> tuple[list[bytes], int]:
        """Stop reading: what has arrived and is unread, and how many bytes of the body the socket will still give."""
        self._connection.hand_over()
        return self._exchange.body.take(), self.left_bytes

    def handed_over(self) -> None:
        """All of it was read from the socket."""
        self._connection.handed_over(self._exchange)

    def fileno(self) -> int:
        return self._connection.fileno()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def next(self) -> bytes:
        """The next chunk of the body; empty at its end. Raises ConnectionLost, ResponseTimeout."""
        body = self._exchange.body
        if body.buffered_bytes or body.ended:
            return await body.next()
        idle_s = self._connection.timeouts.idle_s
        try:
            async with asyncio.timeout(idle_s):
                return await body.next()
        except TimeoutError as error:
            raise ResponseTimeout(
                f"read a response of {self._connection.address}: no byte came for {idle_s:.0f} s"
            ) from error


class Upload:
    """A request whose body is being sent: `write`..., then `response`. Abort it, or ask for its response."""

    def __init__(self, connection: _Connection, exchange: _Exchange, *, chunked: bool) -> None:
        self._connection = connection
        self._exchange = exchange
        self._chunked = chunked
        self._thread_socket: socket.socket | None = None

    @property
    def answered(self) -> bool:
        return self._exchange.answered.done()

    async def write(self, data: bytes) -> None:
        """Part of the body; returns when there is room for more. Raises AnsweredEarly, ConnectionLost, ResponseTimeout."""
        self._check()
        if data:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            await self._connection.drain()

    async def thread_writer(self) -> Callable[[memoryview], None]:
        """A blocking `write` for a thread to use until `response` or `abort`, while nobody else writes. Not over TLS."""
        self._check()
        await self._connection.flush()
        sock = self._thread_socket = socket_copy.duplicate(self._connection.fileno())
        idle_s = self._connection.timeouts.idle_s

        def write(data: memoryview) -> None:
            self._check()
            try:
                socket_copy.send_all(sock, [b"%x\r\n" % len(data), data, b"\r\n"] if self._chunked else [data], idle_s)
            except socket_copy.Stalled as error:
                raise ResponseTimeout(f"send a body to {self._connection.address}: {error}") from error
            except socket_copy.PeerGone as error:
                self._check()
                raise ConnectionLost(f"send a body to {self._connection.address}: {error}") from error

        return write

    async def response(self) -> ClientResponse:
        """End the body and wait for the answer. Raises ConnectionLost, ResponseTimeout, InvalidResponse."""
        self._leave_thread()
        if not self.answered:
            if self._chunked:
                self._connection.write(b"0\r\n\r\n")
            self._exchange.sent = True
        return await self._connection.response(self._exchange)

    def abort(self) -> None:
        """Drop the connection: the server sees a body that is cut off. Nothing if the exchange is over: it may carry another one now."""
        self._leave_thread()
        self._connection.release(self._exchange)

    def _leave_thread(self) -> None:
        if self._thread_socket is not None:
            self._thread_socket.close()
            self._thread_socket = None

    def _check(self) -> None:
        if self.answered:
            self._exchange.answered.result()
            raise AnsweredEarly(f"send a body to {self._connection.address}: it answered {self._exchange.status}")


class HttpClient:
    """Connections to any number of servers, pooled by address."""

    def __init__(
        self, *, timeouts: Timeouts | None = None, tls: ssl.SSLContext | None = None, kept_per_server: int = 64
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self._tls = tls
        self._kept_per_server = kept_per_server
        self._kept: dict[Address, deque[_Connection]] = {}
        self._open: dict[Address, set[_Connection]] = {}
        self._closed = False

    async def request(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        headers: Pairs = (),
        body: bytes = b"",
        repeatable: bool | None = None,
    ) -> ClientResponse:
        """Send a request whole and wait for the head of its response.

        Asks once more over a new connection if a kept one turns out to be dead and the request is `repeatable` (None: a safe method is).
        Raises ConnectFailed, ConnectionLost, ResponseTimeout, InvalidResponse.
        """
        fields = [("Host", str(address)), *headers]
        if body or method not in _SAFE:
            fields.append(("Content-Length", str(len(body))))
        message = head(f"{method} {target} HTTP/1.1", fields) + body
        connection, fresh = await self._connect(address, fresh=False)
        try:
            return await connection.ask(method, message)
        except ConnectionLost:
            if fresh or not (method in _SAFE if repeatable is None else repeatable):
                raise
        connection, _ = await self._connect(address, fresh=True)
        return await connection.ask(method, message)

    async def open(
        self, address: Address, method: str, target: str, *, headers: Pairs = (), content_length: int | None
    ) -> Upload:
        """Begin a request whose body follows, chunked if its length is None, once the server wants it.

        Check `answered`: a server may have answered instead. Raises what `request` raises.
        """
        fields = [("Host", str(address)), *headers, ("Expect", "100-continue")]
        if content_length is None:
            fields.append(("Transfer-Encoding", "chunked"))
        else:
            fields.append(("Content-Length", str(content_length)))
        message = head(f"{method} {target} HTTP/1.1", fields)
        connection, fresh = await self._connect(address, fresh=False)
        try:
            exchange = await connection.offer(method, message)
        except ConnectionLost:
            if fresh:
                raise
            connection, _ = await self._connect(address, fresh=True)  # of the body, nothing was sent
            exchange = await connection.offer(method, message)
        return Upload(connection, exchange, chunked=content_length is None)

    async def close(self) -> None:
        """Drop the connections that are kept; those at work end with their exchange."""
        self._closed = True
        for kept in self._kept.values():
            for connection in kept:
                connection.abort()
        self._kept.clear()

    def drop(self, address: Address) -> None:
        """The server is known to be gone: end every connection to it, also those at work. Their exchanges fail with ConnectionLost."""
        for connection in tuple(self._open.get(address, ())):
            connection.cut()

    def opened(self, connection: _Connection) -> None:
        self._open.setdefault(connection.address, set()).add(connection)

    def keep(self, connection: _Connection) -> None:
        kept = self._kept.setdefault(connection.address, deque())
        if self._closed or len(kept) >= self._kept_per_server:
            connection.abort()
        else:
            kept.append(connection)

    def forget(self, connection: _Connection) -> None:
        kept = self._kept.get(connection.address)
        if kept is not None and connection in kept:
            kept.remove(connection)
        self._open.get(connection.address, set()).discard(connection)

    async def _connect(self, address: Address, *, fresh: bool) -> tuple[_Connection, bool]:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(address)
        while kept and not fresh:
            connection = kept.pop()
            if connection.usable(loop.time()):
                return connection, False
            connection.abort()
        connection = _Connection(self, address)
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                await connection.open(self._tls)
        except TimeoutError as error:
            raise ConnectFailed(f"connect to {address}: no answer in {self.timeouts.connect_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(f"connect to {address}: {error.verify_message}") from error
        except (OSError, ssl.SSLError) as error:
            raise ConnectFailed(f"connect to {address}: {error}") from error
        return connection, True


class _Exchange:
    """One request and its response, on one connection."""

    def __init__(
        self, method: str, message: bytes, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]
    ) -> None:
        self.method = method
        self._message = message
        self.status = 0
        self.headers = Headers([])
        self.sent = False
        self.released = False
        self.until_eof = False
        self.answered: asyncio.Future[None] = loop.create_future()
        self.continued: asyncio.Future[None] = loop.create_future()
        self.body = BodyBuffer(changed)

    @property
    def asks_upgrade(self) -> bool:
        return b"\r\nUpgrade: " in self._message.partition(b"\r\n\r\n")[0]

    def fail(self, error: RequestFailed) -> None:
        for future in (self.answered, self.continued):
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting
        self.body.fail(error)


class _Connection(asyncio.Protocol):
    """One connection to a server, with at most one exchange at a time."""

    def __init__(self, client: HttpClient, address: Address) -> None:
        self.address = address
        self.timeouts = client.timeouts
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: _Exchange | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = True
        self._handed_over = False
        """a thread reads the socket"""
        self._lost = False
        self._idle_since_s = 0.0
        self._writable: asyncio.Event | None = None

    async def open(self, tls: ssl.SSLContext | None) -> None:
        """Connect; of one that fails, or is given up, nothing is left."""
        try:
            await self._loop.create_connection(lambda: self, self.address.host, self.address.port, ssl=tls)
        except BaseException:
            self.connection_lost(None)  # uvloop tells nobody if it was made already when its maker gave up
            raise

    # exchanges

    async def ask(self, method: str, message: bytes) -> ClientResponse:
        exchange = self._begin(method, message)
        exchange.sent = True
        return await self.response(exchange)

    async def offer(self, method: str, message: bytes) -> _Exchange:
        exchange = self._begin(method, message)
        await self._wait(exchange, exchange.continued)
        return exchange

    async def response(self, exchange: _Exchange) -> ClientResponse:
        if not exchange.answered.done():
            await self._wait(exchange, exchange.answered)
        else:
            exchange.answered.result()
        return ClientResponse(self, exchange)

    def release(self, exchange: _Exchange) -> None:
        """The exchange is over for whoever began it."""
        exchange.released = True
        if (
            self._exchange is exchange and not self._transport.is_closing()
        ):  # else it is kept, gone, or sends its last bytes
            self.abort()

    def usable(self, now_s: float) -> bool:
        return not self._ended and now_s - self._idle_since_s < self.timeouts.keep_s

    def abort(self) -> None:
        self._transport.abort()

    def cut(self) -> None:
        """End it at once, also for a thread that uses its socket."""
        if not self._ended:
            with socket_copy.duplicate(self.fileno()) as sock, contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.abort()

    @property
    def _ended(self) -> bool:
        """Its socket is closed, or about to be: the number may be another one's by now."""
        return self._lost or self._transport.is_closing()

    def _begin(self, method: str, message: bytes) -> _Exchange:
        self._exchange = exchange = _Exchange(method, message, self._loop, self._set_reading)
        self._set_reading()
        self.write(message)
        return exchange

    async def _wait(self, exchange: _Exchange, future: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self.timeouts.response_s):
                await future
        except TimeoutError as error:
            self.release(exchange)
            raise ResponseTimeout(
                f"wait for an answer of {self.address}: none came in {self.timeouts.response_s:g} s"
            ) from error
        except asyncio.CancelledError:
            self.release(exchange)  # if it was over at that moment, the connection may carry another one now
            raise

    def close(self) -> None:
        self._transport.close()

    def write(self, data: bytes) -> None:
        if self._lost:
            raise ConnectionLost(f"send to {self.address}: the connection is gone")
        self._transport.write(data)

    async def drain(self) -> None:
        if self._writable is not None:
            try:
                async with asyncio.timeout(self.timeouts.idle_s):
                    await self._writable.wait()
            except TimeoutError as error:
                self.abort()
                raise ResponseTimeout(
                    f"send to {self.address}: it took no byte for {self.timeouts.idle_s:g} s"
                ) from error
        if self._lost:
            raise ConnectionLost(f"send to {self.address}: the connection is gone")

    async def flush(self) -> None:
        """Wait until everything written is with the kernel."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        self._transport.set_write_buffer_limits()

    def fileno(self) -> int:
        if self._ended:
            raise ConnectionLost(f"send to {self.address}: the connection is gone")
        return cast(int, self._transport.get_extra_info("socket").fileno())

    def can_hand_over(self) -> bool:
        return not self._ended and self._transport.get_extra_info("sslcontext") is None

    def hand_over(self) -> None:
        self._handed_over = True
        self._set_reading()

    def handed_over(self, exchange: _Exchange) -> None:
        self._handed_over = False
        self._parser = httptools.HttpResponseParser(self)  # the old one still waits for this body
        if self._exchange is exchange:
            self._complete(exchange)
            self._set_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client.opened(self)
        with socket_copy.duplicate(self.fileno()) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._client.forget(self)
        if self._writable is not None:
            self._writable.set()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exchange.until_eof and error is None:
            exchange.body.end()
        exchange.fail(ConnectionLost(f"read a response of {self.address}: the connection ended ({error or 'closed'})"))

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
        self._writable = None

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # nothing was asked
            return
        if self._exchange.status == _SWITCHING:
            self._exchange.body.feed(data)
            return
        try:
            self._parser.feed_data(data)
            if self._in_head:
                self._count_head(len(data))
        except InvalidResponse as error:
            self._refuse(str(error))
        except httptools.HttpParserUpgrade as error:
            if self._exchange.status != _SWITCHING:
                self._refuse("an upgrade that was not asked for")
            elif rest := data[error.args[0] :]:
                self._exchange.body.feed(rest)
        except httptools.HttpParserError as error:
            self._refuse(str(error))
        if self._exchange is not None and self._exchange.method == "HEAD" and self._exchange.status:
            self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body that doesn't come
            self._complete(self._exchange)

    def _refuse(self, found: str) -> None:
        if self._exchange is not None:
            self._exchange.fail(InvalidResponse(f"read a response of {self.address}: {found}"))
        self.abort()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self._fields = []
        self._head_bytes = 0
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if self._in_head:  # else it is a trailer
            self._fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        self._in_head = False
        exchange, status = self._exchange, self._parser.get_status_code()
        if exchange is None or exchange.answered.done():
            return
        upgraded = status == _SWITCHING and self._parser.should_upgrade() and exchange.asks_upgrade
        if status < 200 and not upgraded:
            return
        exchange.status = status
        exchange.headers = Headers(self._fields)
        framed = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        exchange.until_eof = upgraded or (not framed and allows_body(status) and exchange.method != "HEAD")
        exchange.answered.set_result(None)
        if not exchange.continued.done():
            exchange.continued.set_result(None)
        if self._writable is not None:
            self._writable.set()

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > _HEAD_BYTES_MAX:
            raise InvalidResponse(f"a head of more than {_HEAD_BYTES_MAX} bytes")

    def on_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.body.feed(data)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.status == _SWITCHING:
            return
        if exchange.status:
            self._complete(exchange)
        elif self._parser.get_status_code() == 100 and not exchange.continued.done():
            exchange.continued.set_result(None)

    def _complete(self, exchange: _Exchange) -> None:
        exchange.body.end()
        self._exchange = None
        self._in_head = True
        asked_to_close = (exchange.headers.get("connection") or "").lower() == "close"
        if exchange.sent and not asked_to_close and not exchange.until_eof and not self._lost:
            self._idle_since_s = self._loop.time()
            self._client.keep(self)
        else:
            self._transport.close()

    def _set_reading(self) -> None:
        if self._ended:
            return
        if self._handed_over or (self._exchange is not None and self._exchange.body.full):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
