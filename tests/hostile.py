"""Requests as no honest client sends them, and what they come to: at the webapi itself, and through the loadbalancer in front of it.

Each is sent on a connection of its own. `{auth}` stands for the headers of a signed request, `{stor}` for the account's directory; the
object `{stor}/o` is there, with the body ``x``. Expected are the statuses of all answers on the connection, in their order, without 100.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

CLOSED: tuple[int, ...] = ()
"""no answer: the connection ends"""
ANSWER_BOUND_S = 5.0
SILENCE_S = 0.4
"""so long after an answer nothing more comes"""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@dataclass(frozen=True, slots=True)
class Hostile:
    """`proxied` None: the same through the loadbalancer. `hang_up`: the client ends its side when it has sent all."""

    name: str
    data: bytes
    direct: tuple[int, ...]
    proxied: tuple[int, ...] | None = None
    hang_up: bool = False
    large: bool = False
    """refused before all was taken: a reset may overtake the answer"""

    @property
    def through(self) -> tuple[int, ...]:
        """What it comes to behind the loadbalancer."""
        return self.direct if self.proxied is None else self.proxied

    def allows(self, found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """What came is what was expected."""
        return found == wanted or (self.large and found == CLOSED)


def _get(target: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"GET " + target + b" " + version, b"Host: a", b"{auth}", *lines, b"", b""])


def _put(name: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"PUT {stor}/" + name + b" HTTP/1.1", b"Host: a", b"{auth}", *lines, b"", b""]) + body


NEXT = b"GET {stor}/o HTTP/1.1\r\nHost: a\r\n{auth}\r\n\r\n"
"""what is smuggled: only where nobody takes it for a request of its own, it is none"""
CHUNKED = b"Transfer-Encoding: chunked"
ENDED = b"0\r\n\r\n" + NEXT
"""no chunk, and one request more for whoever goes by chunks"""

TABLE = [
    # the request line
    Hostile("nonsense", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, (400,)),
    Hostile("an empty method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    Hostile("a method that nobody knows", b"BREW {stor}/o HTTP/1.1\r\nHost: a\r\n{auth}\r\n\r\n", (400,)),
    Hostile("a method that we don't have", b"PATCH {stor}/o HTTP/1.1\r\nHost: a\r\n{auth}\r\n\r\n", (405,)),
    Hostile("HTTP/0.9", b"GET {stor}/o\r\n\r\n", (505,), (400,)),
    Hostile("HTTP/1.0", _get(b"{stor}/o", version=b"HTTP/1.0"), (200,)),
    Hostile("HTTP/3.0", _get(b"{stor}/o", version=b"HTTP/3.0"), (400,), (200,)),
    Hostile("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,), CLOSED),
    Hostile("no Host", b"GET {stor}/o HTTP/1.1\r\n{auth}\r\n\r\n", (400,)),
    Hostile("two Hosts", _get(b"{stor}/o", b"Host: b"), (400,)),
    Hostile("the whole URL", _get(b"http://a{stor}/o"), (200,)),
    Hostile("an authority", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", (405,)),
    Hostile("an asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n{auth}\r\n\r\n", (302,)),
    Hostile("a target without a slash", _get(b"o"), (400,)),
    Hostile("a space in the target", _get(b"{stor}/o o"), (400,)),
    Hostile("a control byte in the target", _get(b"{stor}/o\x01"), (400,)),
    Hostile("bytes beyond ASCII in the target", _get("{stor}/\u00e9".encode()), (400,)),
    Hostile("a target of 70 KB", _get(b"{stor}/" + b"a" * 70_000), (431,), (400,), large=True),
    # paths
    Hostile("a dot", _get(b"{stor}/./o"), (400,)),
    Hostile("two dots", _get(b"{stor}/../stor/o"), (400,)),
    Hostile("two dots, escaped", _get(b"{stor}/%2e%2e/%2E%2E/etc/passwd"), (400,)),
    Hostile("an escaped slash", _get(b"{stor}/d%2Fo"), (400,)),
    Hostile("NUL, escaped", _get(b"{stor}/o%00"), (400,)),
    Hostile("half an escape", _get(b"{stor}/o%4"), (400,)),
    Hostile("an escape of nothing", _get(b"{stor}/o%zz"), (400,)),
    Hostile("no UTF-8", _get(b"{stor}/%ff"), (400,)),
    Hostile("UTF-8 that is too long", _get(b"{stor}/%c0%af"), (400,)),
    Hostile("many slashes", _get(b"/{stor}//o/"), (200,)),
    Hostile("a name of 1,025 bytes", _get(b"{stor}/" + b"a" * 1025), (400,)),
    Hostile("a path of 3,000 bytes", _get(b"{stor}/" + b"/".join([b"a" * 500] * 6)), (400,)),
    Hostile("a fragment", _get(b"{stor}/o#x"), (200,), (400,)),
    # headers
    Hostile("a header without a colon", _get(b"{stor}/o", b"nonsense"), (400,)),
    Hostile("a header without a name", _get(b"{stor}/o", b": x"), (400,)),
    Hostile("a space before the colon", _get(b"{stor}/o", b"Content-Length : 0"), (400,)),
    Hostile("a folded header", _get(b"{stor}/o", b"X-A: b", b" c"), (400,), (200,)),
    Hostile("NUL in a header", _get(b"{stor}/o", b"X-A: b\0c"), (400,)),
    Hostile("a control byte in a name", _get(b"{stor}/o", b"X\x01A: b"), (400,)),
    Hostile("bare line feeds", b"GET {stor}/o HTTP/1.1\nHost: a\n\n", (400,), (403,)),
    Hostile("a bare carriage return", _get(b"{stor}/o", b"X-A: b\rX-B: c"), (400,)),
    Hostile("a header of 70 KB", _get(b"{stor}/o", b"X-A: " + b"a" * 70_000), (431,), (400,), large=True),
    Hostile("5,000 headers", _get(b"{stor}/o", *[b"X-%d: a" % n for n in range(5000)]), (200,), (400,), large=True),
    Hostile("another expectation", _put(b"p", b"Expect: 200-ok", b"Content-Length: 1", body=b"x"), (204,)),
    Hostile("an upgrade", _get(b"{stor}/o", b"Connection: Upgrade", b"Upgrade: websocket"), (200,), (400,)),
    # lengths
    *(
        Hostile(f"a length of {value.decode()!r}", _put(b"p", b"Content-Length: " + value, body=b"xxxxx"), (411,), (400,))
        for value in (b"-1", b"+5", b"0x5", b"5 5", b"5,6", b"5a")
    ),
    Hostile("a length of 20 digits", _put(b"p", b"Content-Length: 99999999999999999999", body=b"xxxxx"), (400,)),
    Hostile("a length that is empty", _put(b"p", b"Content-Length:", body=b"x"), (400,)),
    Hostile("the same length in a list", _put(b"p", b"Content-Length: 5,5", body=b"xxxxx"), (411,), (204,)),
    Hostile("two lengths", _put(b"p", b"Content-Length: 5", b"Content-Length: 6", body=b"xxxxxx"), (400,)),
    Hostile("a body that ends early", _put(b"p", b"Content-Length: 10", body=b"xxxxx"), CLOSED, hang_up=True),
    Hostile("a head that ends early", b"PUT {stor}/p HTTP/1.1\r\nHost: a\r\nContent-Len", CLOSED, hang_up=True),
    Hostile("a chunk that ends early", _put(b"p", CHUNKED, body=b"5\r\nxx"), CLOSED, hang_up=True),
    Hostile("bodies where none belong", _get(b"{stor}/o", b"Content-Length: 5", )+ b"xxxxx" + NEXT, (200, 200)),
    # chunks
    Hostile("a chunk's size is no number", _put(b"p", CHUNKED, body=b"zz\r\nxx\r\n0\r\n\r\n"), (400,)),
    Hostile("a chunk's size is negative", _put(b"p", CHUNKED, body=b"-1\r\nxx\r\n0\r\n\r\n"), (400,)),
    Hostile("a chunk's size is huge", _put(b"p", CHUNKED, body=b"fffffffffffffffff\r\nxx\r\n0\r\n\r\n"), (400,)),
    Hostile("a chunk is longer than it says", _put(b"p", CHUNKED, body=b"1\r\nxxx\r\n0\r\n\r\n"), (400,)),
    Hostile("chunks with bare line feeds", _put(b"p", CHUNKED, body=b"1\nx\n0\n\n"), (400,)),
    Hostile("an unknown coding", _put(b"p", b"Transfer-Encoding: xchunked", body=b"1\r\nx\r\n0\r\n\r\n"), (400,)),
    Hostile("no coding", _put(b"p", b"Transfer-Encoding: identity", b"Content-Length: 1", body=b"x"), (400,)),
    Hostile("a coding twice", _put(b"p", CHUNKED, CHUNKED, body=b"1\r\nx\r\n0\r\n\r\n"), (400,)),
    Hostile("a coding that is not the last", _put(b"p", b"Transfer-Encoding: chunked, gzip", body=b"1\r\nx\r\n0\r\n\r\n"), (400,)),
    # requests within requests
    Hostile("length and chunks, CL.TE", _put(b"p", b"Content-Length: 4", CHUNKED, body=ENDED), (400,), (204,)),
    Hostile("chunks and length, TE.CL", _put(b"p", CHUNKED, b"Content-Length: 200", body=ENDED), (400,), (204,)),
    Hostile("a coding in disguise", _put(b"p", b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5", body=ENDED), (400,)),
    Hostile("a tab and a coding", _put(b"p", b"Transfer-Encoding:\tchunked", b"Content-Length: 5", body=ENDED), (400,), (204,)),
    Hostile("a request in an underscore", _put(b"p", b"Content_Length: 500", b"Content-Length: 1", body=b"x" + NEXT), (204, 200)),
    Hostile("a request after a body that was refused", _put(b"no/p", b"Content-Length: 3", body=b"xxx" + NEXT), (404, 200)),
    Hostile("chunk extensions", _put(b"p", CHUNKED, body=b"1;a=b\r\nx\r\n0\r\nX-Trailer: a\r\n\r\n" + NEXT), (204, 200)),
]  # fmt: skip


def filled(hostile: Hostile, stor: str, headers: Mapping[str, str]) -> bytes:
    """Its bytes, for an account."""
    auth = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
    return hostile.data.replace(b"{auth}", auth.encode()).replace(b"{stor}", stor.encode())


def answers(connection: socket.socket, data: bytes, *, hang_up: bool) -> tuple[int, ...]:
    """Statuses of what comes back, until the connection ends or has nothing more to say."""
    got, end_s = b"", time.monotonic() + ANSWER_BOUND_S
    try:
        connection.sendall(data)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(SILENCE_S)
        while time.monotonic() < end_s:
            try:
                piece = connection.recv(65_536)
            except TimeoutError:
                if _statuses(got):
                    break
                continue
            if not piece:
                break
            got += piece
    except (ConnectionError, ssl.SSLEOFError):
        pass  # the server had enough
    return _statuses(got)


def _statuses(got: bytes) -> tuple[int, ...]:
    return tuple(status for status in map(int, _STATUS.findall(got)) if status >= 200)
