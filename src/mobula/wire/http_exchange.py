"""What a handler works with: a request, and the response to it. The connection below is in `http_server`."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from mobula.wire.http_body import BodyBuffer
from mobula.wire.http_message import Headers, Pairs, allows_body, error_body, head, status_line
from mobula.wire.socket_copy import Progress
from mobula.wire.tunnel import Tunnel

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SWITCHING = 101
LARGE_BYTES = 256 * 1024
"""from here on a thread moves a body's bytes"""


class ClientAborted(Exception):
    """The client went away before the exchange was over."""


class BodyTimeout(Exception):
    """No byte of a request's body arrived for `body_idle_s`. -> 408"""


class BodyMalformed(Exception):
    """A request's body breaks the protocol (a bad chunk). -> 400"""


class BodyTooLarge(Exception):
    """A request's body is larger than its reader wants. -> 413"""


class Carrier(Protocol):
    """The connection, as requests and responses see it."""

    peer: str
    lost: bool

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    def arriving(self) -> BodyBuffer | None:
        """What comes after a request that has asked for an upgrade; None: none has."""

    async def send_file(self, prefix: bytes, fd: int, offset: int, size_bytes: int) -> None: ...

    async def receive(self, request: Request, consume: Callable[[memoryview], None]) -> None: ...

    async def in_thread(self, call: Callable[[], None]) -> None: ...

    def can_hand_over(self) -> bool: ...

    async def send_from(self, source_fd: int, progress: Progress, source_idle_s: float) -> None: ...

    def body_changed(self) -> None: ...

    def reusable(self, request: Request) -> bool: ...

    def common_headers(self) -> Pairs: ...


class Request:
    """One request; its body arrives while it is handled.

    `path` and `query` are the bytes of the target exactly as received, `peer` is the client's address.
    """

    __slots__ = (
        "_body",
        "_connection",
        "chunked",
        "content_length",
        "continued",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "path",
        "peer",
        "query",
        "received_s",
        "request_id",
        "target",
        "version",
    )

    def __init__(self, connection: Carrier, method: str, target: bytes, headers: Headers, version: str) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        origin_form = target if target.startswith(b"/") else b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path, _, query = origin_form.partition(b"#")[0].partition(b"?")
        self.path = path
        self.query = query.decode("latin-1")
        self.headers = headers
        self.version = version
        self.peer = connection.peer
        length = headers.get("content-length")
        self.content_length = None if length is None else int(length)
        self.chunked = "transfer-encoding" in headers
        self.expects_continue = version == "1.1" and (headers.get("expect") or "").lower() == "100-continue"
        self.continued = False
        self.keep_alive = True
        self.request_id = _request_id(headers)
        self.received_s = time.monotonic()
        self._body = BodyBuffer(connection.body_changed)

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def aborted(self) -> bool:
        """The client is gone."""
        return self._connection.lost

    @property
    def received_bytes(self) -> int:
        """Bytes of the body that have arrived so far."""
        return self._body.received_bytes

    def accept_body(self) -> None:
        """Let a client that waits for `100 Continue` send its body. Reading the body does this by itself."""
        if self.expects_continue and not self.continued and not self._body.ended:
            self.continued = True
            self._connection.write(_CONTINUE)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it arrives. Raises ClientAborted, BodyTimeout, BodyMalformed."""
        self.accept_body()
        while chunk := await self._body.next():
            yield chunk

    async def body(self, max_bytes: int) -> bytes:
        """The whole body. Raises BodyTooLarge beyond `max_bytes`, and what `chunks` raises."""
        if self.content_length is not None and self.content_length > max_bytes:
            raise BodyTooLarge(f"read a body: {self.content_length} bytes announced; at most {max_bytes} are taken")
        self.accept_body()
        if self._body.ended and self._body.buffered_bytes <= max_bytes:
            return b"".join(self._body.take())
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                raise BodyTooLarge(f"read a body: more than {max_bytes} bytes found; at most so many are taken")
        return b"".join(parts)

    async def receive_into(self, consume: Callable[[memoryview], None]) -> None:
        """Hand the whole body to `consume`, piece by piece, in a thread: for large bodies and blocking work.

        The view is valid during the call only. Raises what `chunks` and `consume` raise.
        """
        self.accept_body()
        body, carrier = self._body, self._connection
        left = (self.content_length or 0) - body.received_bytes
        if left >= LARGE_BYTES and carrier.can_hand_over():
            await carrier.receive(self, consume)
            return
        while chunk := await body.next():
            await carrier.in_thread(functools.partial(feed, consume, [chunk, *body.take()]))

    async def drain_body(self, max_bytes: int) -> bool:
        """Read and drop what is left of the body, `max_bytes` at most; whether that was all of it."""
        body, left = self._body, max_bytes
        while left >= 0:
            chunk = await body.next()
            if not chunk:
                return True
            left -= len(chunk)
        return False

    # what the connection tells

    @property
    def body_full(self) -> bool:
        return self._body.full

    def body_arrived(self, data: bytes) -> None:
        self._body.feed(data)

    def body_ended(self) -> None:
        self._body.end()

    def body_failed(self, error: Exception) -> None:
        self._body.fail(error)

    def body_unread(self) -> list[bytes]:
        return self._body.take()

    def body_skipped(self, size_bytes: int) -> None:
        """The rest of the body, of this size, did not go through the parser."""
        self._body.received_bytes += size_bytes
        self._body.end()

    def body_awaited_s(self, now_s: float) -> float:
        """For how long someone has waited for the next byte."""
        since_s = self._body.waiting_since_s
        return 0.0 if since_s is None else now_s - since_s


def feed(consume: Callable[[memoryview], None], pieces: list[bytes]) -> None:
    """Hand over each piece; raises what `consume` raises."""
    for piece in pieces:
        consume(memoryview(piece))


def _request_id(headers: Headers) -> str:
    given = headers.get("request-id") or headers.get("x-request-id")
    if given is not None and len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return str(uuid.uuid4())


class Response:
    """The answer to one request: `send`, `send_file`, or `start` + `write`... + `finish`.

    A body given for HEAD, 204 or 304 is not sent. All raise ClientAborted once the client is gone.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_connection",
        "_held",
        "_left",
        "_request",
        "finished",
        "keep_alive",
        "on_start",
        "sent_bytes",
        "status",
    )

    def __init__(self, connection: Carrier, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._bodyless = request.method == "HEAD"
        self._chunked = False
        self._left: int | None = 0
        self._held = b""
        """the head, until it goes out together with the body's first bytes"""
        self.keep_alive = request.keep_alive
        self.on_start: Callable[[], None] = lambda: None
        """called when the answer begins"""
        self.status = 0
        self.sent_bytes = 0
        self.finished = False

    @property
    def started(self) -> bool:
        return self.status != 0

    async def send(self, status: int, headers: Pairs = (), body: bytes = b"") -> None:
        """A whole response at once."""
        prefix = self._head(status, headers, len(body))
        self.finished = True
        if self._bodyless or not body:
            self._connection.write(prefix)
        else:
            self.sent_bytes = len(body)
            self._connection.write(prefix + body)
        await self._connection.drain()

    async def send_error(self, status: int, code: str, message: str, headers: Pairs = ()) -> None:
        """An error as JSON: `{"code": ..., "message": ...}`."""
        error_headers, body = error_body(code, message)
        await self.send(status, [*error_headers, *headers], body)

    async def start(self, status: int, headers: Pairs = (), content_length: int | None = None) -> None:
        """The head of a response; its body follows, chunked if its length isn't known. It is sent with the first bytes of that."""
        self._held = self._head(status, headers, content_length)
        self._left = content_length

    async def write(self, data: bytes) -> None:
        """Part of the body; returns when the client has room for more."""
        if not data or self._bodyless:
            return
        if self._left is not None:
            if len(data) > self._left:
                raise ValueError(f"write to a response: {len(data)} bytes; only {self._left} are left of its length")
            self._left -= len(data)
        self.sent_bytes += len(data)
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await self._connection.drain()

    async def finish(self) -> None:
        """The end of the body. Raises ValueError if it is shorter than announced."""
        if self._left and not self._bodyless:
            raise ValueError(f"finish a response: {self._left} bytes of its length were not written")
        self._send(b"0\r\n\r\n" if self._chunked and not self._bodyless else b"")
        self.finished = True
        await self._connection.drain()

    def _send(self, data: bytes) -> None:
        held, self._held = self._held, b""
        if held or data:
            self._connection.write(held + data)

    async def send_file(self, status: int, headers: Pairs, fd: int, offset: int, size_bytes: int) -> None:
        """A response whose body is part of an open file (which stays open), sent by the kernel where it can be."""
        prefix = self._head(status, headers, size_bytes)
        if self._bodyless or not size_bytes:
            self._connection.write(prefix)
        else:
            await self._connection.send_file(prefix, fd, offset, size_bytes)
            self.sent_bytes = size_bytes
        self.finished = True

    def upgrade(self, headers: Pairs) -> Tunnel:
        """Grant the upgrade that the request asks for: the connection carries bytes of another protocol from now on, and then ends.

        Raises RuntimeError if the request asks for none.
        """
        arriving = self._connection.arriving()
        if arriving is None:
            raise RuntimeError(f"upgrade {self._request.method}: the request asks for none")
        self._connection.write(self._head(_SWITCHING, [("Connection", "Upgrade"), *headers], None))
        self.finished = True
        return Tunnel(self._connection, arriving, ClientAborted)

    # for `mobula.wire.relay`

    def can_hand_over(self) -> bool:
        return not self._chunked and not self._bodyless and self._connection.can_hand_over()

    async def send_from(self, source_fd: int, progress: Progress, source_idle_s: float) -> None:
        self._send(b"")
        await self._connection.send_from(source_fd, progress, source_idle_s)

    def count_sent(self, size_bytes: int) -> None:
        """So much of the body was sent past `write`."""
        self.sent_bytes += size_bytes
        if self._left is not None:
            self._left -= size_bytes

    def _head(self, status: int, headers: Pairs, content_length: int | None) -> bytes:
        if self.started:
            raise RuntimeError(f"answer {self._request.method}: it was answered before, with {self.status}")
        connection, request = self._connection, self._request
        fields = [*headers, *connection.common_headers()]
        fields.append(("x-request-id", request.request_id))
        fields.append(("x-response-time", str(int((time.monotonic() - request.received_s) * 1000))))
        if not allows_body(status):
            self._bodyless = True
        elif content_length is not None:
            fields.append(("Content-Length", str(content_length)))
        elif request.version == "1.1":
            self._chunked = True
            fields.append(("Transfer-Encoding", "chunked"))
        else:
            self.keep_alive = False
        self.keep_alive = self.keep_alive and connection.reusable(request)
        if not self.keep_alive and status != _SWITCHING:
            fields.append(("Connection", "close"))
        elif request.version == "1.0":
            fields.append(("Connection", "keep-alive"))
        prefix = head(status_line(status), fields)
        self.status = status
        self.on_start()
        return prefix
