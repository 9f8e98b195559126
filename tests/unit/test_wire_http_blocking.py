"""The blocking client against servers that send exactly what a test says, hostile ones among them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobula.wire.http_blocking import BlockingClient
from mobula.wire.http_failures import (
    Address,
    ConnectFailed,
    ConnectionLost,
    InvalidResponse,
    RequestFailed,
    ResponseTimeout,
    Timeouts,
)

QUICK = Timeouts(connect_s=2.0, response_s=0.3, idle_s=0.3, keep_s=0.5)
Play = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(*plays: Play) -> Iterator[tuple[Address, list[int]]]:
    """Plays one connection after the other; the list counts them."""
    accepted: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for number, play in enumerate(plays):
                with contextlib.suppress(OSError), listener.accept()[0] as peer:
                    accepted.append(number)
                    peer.settimeout(5)
                    play(peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Address("127.0.0.1", listener.getsockname()[1]), accepted
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def head_of(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = peer.recv(65_536)
        if not part:
            raise OSError("gone")
        data += part
    return data


def saying(*answers: bytes, then: Play = lambda _: None) -> Play:
    """Answers a request with each of `answers`."""

    def play(peer: socket.socket) -> None:
        for answer in answers:
            head_of(peer)
            peer.sendall(answer)
        then(peer)

    return play


def whole(client: BlockingClient, address: Address, method: str = "GET") -> tuple[int, bytes]:
    with client.request(address, method, "/x") as response:
        parts = []
        while chunk := response.next():
            parts.append(chunk)
        return response.status, b"".join(parts)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nT: 1\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),  # until the end of the connection
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_a_response_is_read_whole_however_it_is_framed(answer: bytes, body: bytes) -> None:
    with server(saying(answer)) as (address, _), contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
        assert whole(client, address)[1] == body


def test_a_connection_is_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    headed = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    with server(saying(answer, headed, answer)) as (address, accepted):
        with contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
            assert [whole(client, address, method)[1] for method in ("GET", "HEAD", "GET")] == [b"a", b"", b"a"]
        assert len(accepted) == 1


@pytest.mark.parametrize(
    "first",
    [
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),  # ended by the server, unseen
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na"),
        saying(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nX"
        ),  # one too many
    ],
)
def test_a_connection_that_can_not_be_trusted_is_not_used_again(first: Play) -> None:
    second = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
    with server(first, second) as (address, accepted):
        with contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
            assert whole(client, address) == (200, b"a")
            time.sleep(0.05)
            assert whole(client, address) == (200, b"b")
        assert len(accepted) == 2


def test_a_connection_that_waited_too_long_is_not_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    timeouts = Timeouts(keep_s=0.0)
    with server(saying(answer), saying(answer)) as (address, accepted):
        with contextlib.closing(BlockingClient(timeouts=timeouts)) as client:
            whole(client, address)
            whole(client, address)
        assert len(accepted) == 2


@pytest.mark.parametrize(
    ("play", "failure"),
    [
        (lambda _: None, ConnectionLost),
        (saying(b"SSH-2.0\r\n"), InvalidResponse),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), ConnectionLost),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", then=lambda _: time.sleep(1)), ResponseTimeout),
        (saying(b"", then=lambda _: time.sleep(1)), ResponseTimeout),
        (saying(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 600_000 + b"\r\n\r\n"), InvalidResponse),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), InvalidResponse),
        (saying(b"HTTP/1.1 102 Wait\r\n\r\n" * 1000), InvalidResponse),
        (saying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), RequestFailed),
    ],
)
def test_what_goes_wrong_has_a_name(play: Play, failure: type[RequestFailed]) -> None:
    with (
        server(play) as (address, _),
        contextlib.closing(BlockingClient(timeouts=QUICK)) as client,
        pytest.raises(failure),
    ):
        whole(client, address)


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_junk_is_a_named_failure_at_worst(junk: bytes) -> None:
    with server(saying(junk)) as (address, _), contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
        try:
            whole(client, address)
        except RequestFailed as error:
            assert str(address) in str(error)  # noqa: PT017 (both ways are right)


def test_no_server_and_no_name_are_connect_failures() -> None:
    client = BlockingClient(timeouts=QUICK)
    for address in (Address("127.0.0.1", 1), Address("no-such-host.invalid", 80), Address("x" * 70 + ".invalid", 80)):
        with pytest.raises(ConnectFailed, match="connect to"):
            client.request(address, "GET", "/")


# uploads


def upload(address: Address, chunks: list[bytes], length: int | None) -> int:
    with contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
        return client.upload(address, "PUT", "/x", chunks, content_length=length).status


@pytest.mark.parametrize("length", [5, None])
def test_a_body_follows_when_it_is_wanted(length: int | None) -> None:
    received = []

    def play(peer: socket.socket) -> None:
        received.append(head_of(peer))
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = b""
        while not data.endswith((b"hello", b"0\r\n\r\n")):
            data += peer.recv(1000)
        received.append(data)
        peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with server(play) as (address, _):
        assert upload(address, [b"he", b"", b"llo"], length) == 204
    assert b"\r\nExpect: 100-continue\r\n" in received[0]
    assert received[1] == (b"hello" if length else b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")


def test_no_body_follows_a_refusal() -> None:
    rest = []

    def play(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        rest.append(peer.recv(10))

    with server(play) as (address, _):
        assert upload(address, [b"hello"], 5) == 404
    assert rest == [b""]


def test_a_refusal_in_the_middle_of_a_body_is_heard() -> None:
    def play(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.recv(10)
        peer.sendall(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(OSError):
            while peer.recv(1 << 20):
                pass

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000
            time.sleep(0.01)

    with server(play) as (address, _), contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
        assert client.upload(address, "PUT", "/x", chunks(), content_length=100_000).status == 507


def test_a_server_that_takes_no_byte_is_a_timeout() -> None:
    def play(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(1.5)

    with server(play) as (address, _), pytest.raises(ResponseTimeout):
        upload(address, [b"x" * (1 << 20)] * 64, 64 << 20)


def test_a_kept_connection_that_died_costs_an_upload_nothing() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def dies(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(answer)
        head_of(peer)  # of the upload: and then the end

    def takes(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert peer.recv(10) == b"hello"
        peer.sendall(answer)

    begun = []

    def chunks() -> Iterator[bytes]:
        begun.append(1)
        yield b"hello"

    with server(dies, takes) as (address, _), contextlib.closing(BlockingClient(timeouts=QUICK)) as client:
        whole(client, address)
        with client.upload(address, "PUT", "/x", chunks(), content_length=5) as response:
            assert response.status == 200
    assert begun == [1]
