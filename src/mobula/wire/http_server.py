"""HTTP/1.1 server: httptools parses, uvloop moves the bytes, a handler decides.

What a connection does is told by three fields of `_Connection`:

    _receiving   the request whose body is arriving (its handler may run already), else None
    _queue       what is complete enough to be handled, in order: exchanges, and at the end perhaps one refusal
    _task        handles the queue, one after the other; None while the connection is idle

Reading pauses while a body's buffer is full or a pipelined request waits, so a client can't make us hold more than
one read of it. Nothing after a malformed message is ever parsed: it is refused in its turn, and the connection ends.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from typing import cast

import httptools

from mobula.core import log
from mobula.wire import socket_copy
from mobula.wire.http_body import BodyBuffer
from mobula.wire.http_exchange import (
    LARGE_BYTES,
    BodyMalformed,
    BodyTimeout,
    BodyTooLarge,
    ClientAborted,
    Request,
    Response,
    feed,
)
from mobula.wire.http_message import Headers, Pairs, error_body, head, status_line

_log = log.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a client may take up."""

    head_bytes: int = 64 * 1024
    body_idle_s: float = 45.0
    idle_s: float = 120.0
    """between requests, for a whole request head, and for a client that doesn't take its response"""
    drain_bytes: int = 256 * 1024
    """of an unread body, read and dropped to keep the connection"""
    linger_s: float = 2.0
    """how long a connection that ends early is read on, so that its client sees the response and not a reset"""


Handler = Callable[[Request, Response], Awaitable[None]]
Observer = Callable[[Request, Response, float], None]
"""is told of each exchange when it is over, with its duration in seconds"""


class _Refusal(Exception):
    """What is answered instead of a request that can't be parsed; raised to stop the parser."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HttpServer:
    """Serves `handler` on one or more addresses until stopped."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        identity: Pairs = (),
        observe: Observer | None = None,
        threads: int = 32,
    ) -> None:
        """`identity` are headers of every response; `threads` at most move large bodies at the same time."""
        self.handler = handler
        self.limits = limits or Limits()
        self.observe = observe
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="http-body")
        self.connections: set[_Connection] = set()
        self.stopping = False
        self._identity = tuple(identity)
        self.common_headers: Pairs = ()
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._renew_date()

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False) -> int:
        """Accept connections; returns the port (of use when `port` is 0). Raises OSError."""
        listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), host, port, ssl=tls, reuse_port=reuse_port or None, backlog=1024
        )
        self._accept(listener)
        return cast(int, listener.sockets[0].getsockname()[1])

    async def listen_on(self, listening: socket.socket) -> None:
        """Accept connections of a socket that listens already, as in another network namespace. It is closed with the server."""
        self._accept(await asyncio.get_running_loop().create_server(lambda: _Connection(self), sock=listening))

    def _accept(self, listener: asyncio.Server) -> None:
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self, stop_s: float) -> None:
        """Accept nothing more, let running requests finish for `stop_s` at most, end all connections."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.stop()
        running = [connection.task for connection in self.connections if connection.task is not None]
        if running:
            await asyncio.wait(running, timeout=stop_s)
        for connection in list(self.connections):
            connection.kill()
        await asyncio.gather(*running, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.executor.shutdown(wait=False, cancel_futures=True)

    async def _sweep(self) -> None:
        limits = self.limits
        period_s = min(1.0, limits.body_idle_s / 4, limits.idle_s / 4, limits.linger_s / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(period_s)
            self._renew_date()
            now_s = loop.time()
            for connection in list(self.connections):
                connection.sweep(now_s)

    def _renew_date(self) -> None:
        self.common_headers = (("Date", formatdate(usegmt=True)), *self._identity)


class _Connection(asyncio.Protocol):
    """One client. Its life is told at the top of this file."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._tls = False
        self.peer = ""
        self.lost = False
        self.task: asyncio.Task[None] | None = None
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._head_bytes = 0
        self._receiving: Request | None = None
        self._queue: deque[tuple[Request, Response] | _Refusal] = deque()
        self._deaf = False
        """what still arrives is dropped"""
        self._arriving: BodyBuffer | None = None
        """what still arrives after a request that asks for an upgrade, granted or not"""
        self._handed_over = False
        """a thread reads the socket"""
        self._reading = True
        self._idle_until_s = self._loop.time() + self._limits.idle_s
        self._linger_until_s: float | None = None
        self._writable: asyncio.Event | None = None
        self._stuck_since_s: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._server.connections.add(self)
        if self._server.stopping:
            transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        self._deaf = True
        self._server.connections.discard(self)
        self._queue.clear()
        if self._receiving is not None:
            self._receiving.body_failed(ClientAborted("the client went away while it sent a body"))
        if self._arriving is not None:
            self._arriving.end()
        if self._writable is not None:
            self._writable.set()

    def eof_received(self) -> bool:
        """A client may end its side and wait for the answer; but a request cut off will never be whole."""
        self._deaf = True
        if self._arriving is not None:
            self._arriving.end()
        return self.task is not None and self._receiving is None and not self._tls

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._stuck_since_s = self._loop.time()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
        self._writable = self._stuck_since_s = None

    def data_received(self, data: bytes) -> None:
        if self._arriving is not None:
            self._arriving.feed(data)
            return
        if self._deaf:
            return
        in_head, shown_bytes = self._fields is not None, self._head_bytes
        try:
            self._parser.feed_data(data)
            if in_head and self._fields is not None and self._head_bytes == shown_bytes:
                self._count_head(len(data))  # a long header that the parser shows only when it is whole
        except httptools.HttpParserUpgrade as error:
            self._deaf = (
                True  # no further request comes: unless the upgrade is granted, the connection ends with the answer
            )
            self._arriving = BodyBuffer(self._set_reading)
            if rest := data[error.args[0] :]:
                self._arriving.feed(rest)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._reject(cause if isinstance(cause, _Refusal) else _malformed(error))
        except _Refusal as refusal:
            self._reject(refusal)
        except httptools.HttpParserError as error:
            self._reject(_malformed(error))
        self._go_on()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self._fields = []
        self._target = b""
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._count_head(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._fields is not None:  # else it is a trailer, which nobody reads
            self._fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        fields, self._fields = self._fields or [], None
        self._head_bytes = 0
        method = self._parser.get_method().decode("ascii")
        version = self._parser.get_http_version()
        headers = Headers(fields)
        _check(method, version, headers, upgrade=self._parser.should_upgrade())
        request = Request(self, method, self._target, headers, version)
        request.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._receiving = request
        self._queue.append((request, Response(self, request)))

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.body_arrived(data)

    def on_message_complete(self) -> None:
        request, self._receiving = self._receiving, None
        self._head_bytes = 0
        if request is not None:
            request.body_ended()
            if not request.keep_alive:
                self._deaf = True

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.head_bytes:
            raise _Refusal(
                431,
                "RequestHeaderFieldsTooLarge",
                f"read a request head: more than {self._limits.head_bytes} bytes found; send fewer or shorter headers",
            )

    def _reject(self, refusal: _Refusal) -> None:
        self._deaf = True
        if self._receiving is not None:
            self._receiving.body_failed(BodyMalformed(str(refusal)))
        elif not (self._queue and isinstance(self._queue[-1], _Refusal)):
            self._queue.append(refusal)

    # handling

    def _go_on(self) -> None:
        if self._queue:
            if self.task is None:
                self.task = asyncio.Task(self._serve(), loop=self._loop, eager_start=True)
                if self.task.done():
                    self.task = None
            self._set_reading()

    async def _serve(self) -> None:
        try:
            await self._serve_queue()
        finally:
            self.task = None

    async def _serve_queue(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            self._set_reading()
            if isinstance(item, _Refusal):
                self._answer_refusal(item)
                return
            request, response = item
            await self._handle(request, response)
            if not await self._settle(request, response):
                self._end(linger=self._receiving is not None)
                return
        self._idle_until_s = self._loop.time() + self._limits.idle_s
        if self._server.stopping or (self._deaf and not self.lost):
            self._end(linger=False)

    async def _handle(self, request: Request, response: Response) -> None:
        log.bind_request(request.request_id)
        try:
            await self._server.handler(request, response)
        except ClientAborted:
            response.keep_alive = False
        except BodyTimeout as error:
            await self._answer_late(response, 408, "RequestTimeout", str(error))
        except BodyTooLarge as error:
            await self._answer_late(response, 413, "RequestEntityTooLarge", str(error))
        except BodyMalformed as error:
            await self._answer_late(response, 400, "BadRequestError", str(error))
        except Exception as error:  # noqa: BLE001  the outermost loop of every request
            _log.error("request failed", method=request.method, path=request.path.decode("latin-1"), exc_info=error)
            await self._answer_late(response, 500, "InternalError", "an unexpected error; the log has it by request id")
        if not response.started and not self.lost:
            _log.error("request not answered", method=request.method, path=request.path.decode("latin-1"))
            await self._answer_late(response, 500, "InternalError", "the request was not answered")
        if self._server.observe is not None:
            self._server.observe(request, response, time.monotonic() - request.received_s)

    async def _answer_late(self, response: Response, status: int, code: str, message: str) -> None:
        response.keep_alive = False
        if not response.started and not self.lost:
            try:
                await response.send_error(status, code, message)
            except ClientAborted:
                return

    async def _settle(self, request: Request, response: Response) -> bool:
        """After an answer: whether the connection can carry another request."""
        if self.lost:
            return False
        if not response.finished:
            self._transport.abort()  # the only honest end of a body that is shorter than announced
            return False
        if not response.keep_alive or self._server.stopping:
            return False
        if self._receiving is request:
            try:
                async with asyncio.timeout(self._limits.linger_s):
                    return await request.drain_body(self._limits.drain_bytes)
            except (TimeoutError, ClientAborted, BodyMalformed, BodyTimeout):
                return False
        return True

    def _answer_refusal(self, refusal: _Refusal) -> None:
        fields, body = error_body(refusal.code, str(refusal))
        fields += [*self.common_headers(), ("Content-Length", str(len(body))), ("Connection", "close")]
        self.write(head(status_line(refusal.status), fields) + body)
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        """Close; with `linger` only when the client has read our last words."""
        self._deaf = True
        self._queue.clear()
        if self.lost or self._transport.is_closing():
            return
        if linger and not self._tls and self._transport.can_write_eof():
            self._linger_until_s = self._loop.time() + self._limits.linger_s
            self._set_reading()
            self._transport.write_eof()
        else:
            self._transport.close()

    def _set_reading(self) -> None:
        full = bool(self._queue) or (self._receiving is not None and self._receiving.body_full)
        held = full if not self._deaf else self._arriving is not None and self._arriving.full
        wanted = not self._handed_over and not held
        if wanted != self._reading and not self.lost and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # what the server asks for

    def stop(self) -> None:
        if self.task is None:
            self._transport.close()
        elif self._arriving is not None:
            self._arriving.end()

    def kill(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self._transport.abort()

    def sweep(self, now_s: float) -> None:
        receiving = self._receiving
        if receiving is not None and receiving.body_awaited_s(now_s) > self._limits.body_idle_s:
            idle_s = self._limits.body_idle_s
            receiving.body_failed(BodyTimeout(f"read a body: no byte arrived for {idle_s:.0f} s"))
        if (
            (self._linger_until_s is not None and now_s > self._linger_until_s)
            or (self._stuck_since_s is not None and now_s - self._stuck_since_s > self._limits.idle_s)
            or (self.task is None and now_s > self._idle_until_s)
        ):
            self._transport.abort()

    # mobula.wire.http_exchange.Carrier

    def common_headers(self) -> Pairs:
        return self._server.common_headers

    def reusable(self, request: Request) -> bool:
        """Whether the connection can outlive this request: it isn't stopping, and little of a body is left unread."""
        if self._server.stopping or self.lost:
            return False
        if self._receiving is not request:
            return bool(self._queue) or not self._deaf
        if request.expects_continue and not request.continued:
            return False
        left = (request.content_length or 0) - request.received_bytes
        return left <= self._limits.drain_bytes and not self._deaf

    def write(self, data: bytes) -> None:
        if self.lost:
            raise ClientAborted("the client went away before it was answered")
        self._transport.write(data)

    async def drain(self) -> None:
        if self._writable is not None:
            await self._writable.wait()
        if self.lost:
            raise ClientAborted("the client went away while it was answered")

    def close(self) -> None:
        self._transport.close()

    def arriving(self) -> BodyBuffer | None:
        return self._arriving

    def body_changed(self) -> None:
        self._set_reading()

    def can_hand_over(self) -> bool:
        return not self._tls and not self.lost

    async def in_thread(self, call: Callable[[], None]) -> None:
        await self._loop.run_in_executor(self._server.executor, call)

    async def receive(self, request: Request, consume: Callable[[memoryview], None]) -> None:
        self._handed_over = True
        self._set_reading()
        self._deaf = True  # for good, unless all goes well: the parser would lose its place
        left = (request.content_length or 0) - request.received_bytes
        try:
            await self.in_thread(functools.partial(feed, consume, request.body_unread()))
            await socket_copy.receive(self._server.executor, self._fileno(), left, consume, self._limits.body_idle_s)
            request.body_skipped(left)
            self._receiving = None
            self._parser = httptools.HttpRequestParser(self)  # the old one still waits for this body
            self._deaf = not request.keep_alive
        except socket_copy.Stalled as error:
            raise BodyTimeout(f"read a body: {error}") from error
        except socket_copy.PeerGone as error:
            self._transport.abort()
            raise ClientAborted(f"the client went away while it sent a body: {error}") from error
        finally:
            self._handed_over = False
            self._set_reading()

    async def send_file(self, prefix: bytes, fd: int, offset: int, size_bytes: int) -> None:
        if self._tls or size_bytes < LARGE_BYTES:
            await self._send_by_pieces(prefix, fd, offset, offset + size_bytes)
            return
        await self._flush()
        try:
            await socket_copy.send_file(
                self._server.executor,
                self._fileno(),
                prefix=prefix,
                fd=fd,
                offset=offset,
                size_bytes=size_bytes,
                idle_s=self._limits.idle_s,
            )
        except (socket_copy.Stalled, socket_copy.PeerGone) as error:
            self._transport.abort()
            raise ClientAborted(f"the client went away while it was answered: {error}") from error

    async def send_from(self, source_fd: int, progress: socket_copy.Progress, source_idle_s: float) -> None:
        await self._flush()
        await socket_copy.relay(
            self._server.executor,
            source_fd,
            self._fileno(),
            progress,
            source_idle_s=source_idle_s,
            sink_idle_s=self._limits.idle_s,
        )

    async def _send_by_pieces(self, prefix: bytes, fd: int, offset: int, end: int) -> None:
        while offset < end:
            read = functools.partial(os.pread, fd, min(end - offset, LARGE_BYTES), offset)
            piece = await self._loop.run_in_executor(self._server.executor, read)
            if not piece:
                raise OSError(f"send a file: it ends at byte {offset}, {end - offset} bytes early")
            offset += len(piece)
            self.write(prefix + piece)
            prefix = b""
            await self.drain()

    async def _flush(self) -> None:
        """Wait until everything written is with the kernel."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        self._transport.set_write_buffer_limits()

    def _fileno(self) -> int:
        if self.lost:
            raise ClientAborted("the client went away")
        return cast(int, self._transport.get_extra_info("socket").fileno())


def _malformed(error: Exception) -> _Refusal:
    if "Invalid character in Content-Length" in str(error):
        return _Refusal(411, "ContentLengthRequired", "Content-Length must be >= 0")
    return _Refusal(400, "BadRequestError", f"read a request: {error}; send HTTP/1.1")


def _check(method: str, version: str, headers: Headers, *, upgrade: bool) -> None:
    """Refuse what two servers in a row could understand differently. Raises _Refusal."""
    if version not in ("1.0", "1.1"):
        raise _Refusal(505, "HttpVersionNotSupported", f"read a request: HTTP/{version} found; send HTTP/1.1")
    host = headers.get("host")
    if version == "1.1" and (host is None or "," in host):  # of two, each server may take another one
        raise _Refusal(400, "BadRequestError", f"read a request: host {host!r} found; send one")
    if method == "CONNECT":
        raise _Refusal(405, "MethodNotAllowed", "read a request: CONNECT found; this is no proxy")
    encoding = headers.get("transfer-encoding")
    if encoding is not None and (encoding.lower() != "chunked" or version == "1.0"):
        raise _Refusal(400, "BadRequestError", f"read a body: transfer-encoding {encoding!r} found; send chunked")
    length = headers.get("content-length")
    if length is not None and (encoding is not None or not length.isdecimal() or len(length) > 18):
        raise _Refusal(400, "BadRequestError", f"read a body: content-length {length!r} found; send one length")
    if upgrade and (encoding is not None or length not in (None, "0")):
        raise _Refusal(400, "BadRequestError", "read a request: a body and an upgrade found; send one of them")
