"""HTTP/1.1 client for threads: what `http_client` is to asyncio, with the same failures and the same parser.

A short command starts without asyncio (50 ms of imports), and parallel transfers are threads: each exchange has a connection to
itself, which is kept for the next one when both messages went through whole.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, cast

import httptools

from mobula.wire.http_failures import (
    Address,
    ConnectFailed,
    ConnectionLost,
    InvalidResponse,
    NotTrusted,
    ResponseTimeout,
    Timeouts,
)
from mobula.wire.http_message import Headers, Pairs, allows_body, head

READ_BYTES = 256 * 1024
_HEAD_BYTES_MAX = 256 * 1024
_INTERIM_MAX = 100
_BODYLESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class BlockingResponse:
    """A response whose body is still arriving. Close it (or use `with`): read whole, it keeps its connection."""

    def __init__(self, client: BlockingClient, connection: _Connection) -> None:
        self._client = client
        self._connection: _Connection | None = connection
        self.status = connection.status
        self.headers = connection.headers
        self._release_at_end()

    def next(self) -> bytes:
        """The next chunk of the body; empty at the end. Raises ConnectionLost, ResponseTimeout, InvalidResponse."""
        if self._connection is None:
            return b""
        chunk = self._connection.read()
        self._release_at_end()
        return chunk

    def close(self) -> None:
        """Drop what has not been read."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release_at_end(self) -> None:
        if self._connection is not None and self._connection.exhausted:
            self._client.keep(self._connection)
            self._connection = None


class BlockingClient:
    """Connections to any number of servers, pooled by address, for any number of threads."""

    def __init__(self, *, timeouts: Timeouts | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._tls = tls
        self._lock = threading.Lock()
        self._kept: dict[Address, list[_Connection]] = {}
        self._closed = False

    def request(self, address: Address, method: str, target: str, *, headers: Pairs = ()) -> BlockingResponse:
        """Send a request without a body and wait for the head of its response.

        Raises ConnectFailed, ConnectionLost, ResponseTimeout, InvalidResponse.
        """
        length = [] if method in _BODYLESS else [("Content-Length", "0")]
        message = head(f"{method} {target} HTTP/1.1", [("Host", str(address)), *headers, *length])
        return self._exchange(address, lambda connection: connection.begin(method, message))

    def upload(
        self, address: Address, method: str, target: str, chunks: Iterable[bytes], *, headers: Pairs = (), content_length: int | None
    ) -> BlockingResponse:  # fmt: skip
        """Send a request whose body is `chunks`, once the server wants it; chunked if its length is None.

        Raises what `request` raises, and whatever `chunks` raises: the server then sees a body that is cut off.
        """
        framing = (
            ("Transfer-Encoding", "chunked") if content_length is None else ("Content-Length", str(content_length))
        )
        fields = [("Host", str(address)), *headers, ("Expect", "100-continue"), framing]
        message = head(f"{method} {target} HTTP/1.1", fields)
        return self._exchange(
            address,
            lambda connection: connection.begin(method, message, wait_for_continue=True),
            chunks,
            content_length,
        )

    def close(self) -> None:
        """Drop the connections that are kept; those at work end with their exchange."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, {}
        for connections in kept.values():
            for connection in connections:
                connection.close()

    def keep(self, connection: _Connection) -> None:
        with self._lock:
            if connection.reusable and not self._closed:
                connection.idle_since_s = time.monotonic()
                self._kept.setdefault(connection.address, []).append(connection)
                return
        connection.close()

    def _exchange(
        self, address: Address, begin: Callable[[_Connection], None], chunks: Iterable[bytes] = (), length: int | None = 0
    ) -> BlockingResponse:  # fmt: skip
        connection, fresh = self._connect(address)
        try:
            try:
                begin(connection)
            except ConnectionLost:
                if fresh:
                    raise
                connection.close()  # the server had ended a kept one: of a body, nothing was sent
                connection = self._open(address)
                begin(connection)
            connection.finish(chunks, chunked=length is None)
        except BaseException:
            connection.close()
            raise
        return BlockingResponse(self, connection)

    def _connect(self, address: Address) -> tuple[_Connection, bool]:
        while True:
            with self._lock:
                kept = self._kept.get(address)
                connection = kept.pop() if kept else None
            if connection is None:
                return self._open(address), True
            if connection.usable():
                return connection, False
            connection.close()

    def _open(self, address: Address) -> _Connection:
        sock = None
        try:
            # As bytes, a name is spared the codec for international ones, whose tables take 3 ms to import.
            host = cast(str, address.host.encode()) if address.host.isascii() else address.host
            sock = socket.create_connection((host, address.port), self.timeouts.connect_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=host)
        except (OSError, ValueError) as error:  # a name that is none is a ValueError
            if sock is not None:
                sock.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise NotTrusted(f"connect to {address}: {error.verify_message}") from error
            raise ConnectFailed(f"connect to {address}: {getattr(error, 'strerror', None) or error}") from error
        return _Connection(address, sock, self.timeouts)


class _Connection:
    """One connection with at most one exchange at a time: `begin`, `finish`, then `read` until `exhausted`."""

    def __init__(self, address: Address, sock: socket.socket, timeouts: Timeouts) -> None:
        self.address = address
        self.idle_since_s = 0.0
        self._socket = sock
        self._timeouts = timeouts
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._reset("")

    def _reset(self, method: str) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._continued = False
        self._sent = False
        self._ended = False
        self._until_eof = False
        self._in_head = True
        self._interim = 0
        self._excess = False
        """more came than one response"""
        self.status = 0
        self.headers = Headers([])

    @property
    def exhausted(self) -> bool:
        """The whole response has arrived and was read."""
        return self._ended and not self._chunks

    @property
    def reusable(self) -> bool:
        asked_to_close = (self.headers.get("connection") or "").lower() == "close"
        return self._sent and self._ended and not self._until_eof and not self._excess and not asked_to_close

    def usable(self) -> bool:
        """A kept connection may carry another exchange: not too old, and the server said nothing, not even that it ends."""
        if time.monotonic() - self.idle_since_s > self._timeouts.keep_s:
            return False
        try:
            return self._arrived() is None
        except OSError:
            return False

    def begin(self, method: str, message: bytes, *, wait_for_continue: bool = False) -> None:
        """Send a request's head; return when a body is wanted, or when the answer is there."""
        self._reset(method)
        self._send(message)
        while wait_for_continue and not (self._continued or self.status):
            self._receive(self._timeouts.response_s)
        self._sent = not wait_for_continue

    def finish(self, chunks: Iterable[bytes], *, chunked: bool) -> None:
        """Send the body, unless an answer comes first, and wait for the head of the response."""
        if not self._sent and not self.status:
            self._send_body(chunks, chunked=chunked)
        while not self.status:
            self._receive(self._timeouts.response_s)

    def _send_body(self, chunks: Iterable[bytes], *, chunked: bool) -> None:
        for chunk in chunks:
            if not chunk:
                continue
            self._look()
            if self.status:
                return
            try:
                self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            except ConnectionLost:
                self._look_for_last_words()
                return
        if chunked:
            self._send(b"0\r\n\r\n")
        self._sent = True

    def read(self) -> bytes:
        while not self._chunks and not self._ended:
            self._receive(self._timeouts.idle_s)
        return self._chunks.popleft() if self._chunks else b""

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._timeouts.idle_s)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise ResponseTimeout(f"send to {self.address}: it took no byte for {self._timeouts.idle_s:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"send to {self.address}: {error.strerror or error}") from error

    def _receive(self, timeout_s: float) -> None:
        try:
            self._socket.settimeout(timeout_s)
            size = self._socket.recv_into(self._buffer)
        except TimeoutError as error:
            raise ResponseTimeout(f"wait for {self.address}: nothing came in {timeout_s:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"receive from {self.address}: {error.strerror or error}") from error
        self._feed(size)

    def _look(self) -> None:
        """Parse what has arrived, without waiting."""
        try:
            size = self._arrived()
        except OSError as error:
            raise ConnectionLost(f"receive from {self.address}: {error.strerror or error}") from error
        if size is not None:
            self._feed(size)

    def _look_for_last_words(self) -> None:
        """The server takes no more of a body: perhaps it has said why."""
        while not self.status:
            self._receive(self._timeouts.response_s)

    def _arrived(self) -> int | None:
        """How many bytes were there to be read; 0 at the end of the connection, None if nothing is there now."""
        self._socket.settimeout(0)
        try:
            return self._socket.recv_into(self._buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def _feed(self, size: int) -> None:
        if size == 0:
            if self._until_eof:
                self._ended = True
                return
            raise ConnectionLost(f"receive from {self.address}: it ended the connection")
        try:
            self._parser.feed_data(self._buffer[:size])
            if self._in_head:
                self._count_head(size)
        except InvalidResponse:
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise InvalidResponse(f"read a response of {self.address}: {error}") from error

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self._excess = self._ended
        self._interim += 1
        if self._interim > _INTERIM_MAX:
            raise InvalidResponse(f"read a response of {self.address}: nothing but interim ones")
        self._fields = []
        self._head_bytes = 0
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            self._fields.append((name, value or b""))

    def on_headers_complete(self) -> None:
        self._in_head = False
        status = self._parser.get_status_code()
        if status < 200 or self.status:
            return
        self.status = status
        self.headers = Headers(self._fields)
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._ended = self._method == "HEAD" or not allows_body(status)
        self._until_eof = not framed and not self._ended

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _HEAD_BYTES_MAX:
            raise InvalidResponse(f"read a response of {self.address}: a head of more than {_HEAD_BYTES_MAX} bytes")

    def on_body(self, data: bytes) -> None:
        if not self._ended:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self.status:
            self._ended = True
        elif self._parser.get_status_code() == 100:
            self._continued = True
