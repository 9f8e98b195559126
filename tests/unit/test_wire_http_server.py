from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobula.wire.http_exchange import BodyTimeout, BodyTooLarge, ClientAborted, Request, Response
from mobula.wire.http_server import Handler, HttpServer, Limits

BOUND_S = 5.0
QUICK = Limits(body_idle_s=0.2, idle_s=0.3, linger_s=0.3)


class Conversation:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), BOUND_S)).decode("latin-1")
        first, *lines = text[:-4].split("\r\n")
        return int(first.split(" ")[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if "content-length" in headers:
            return (
                status,
                headers,
                await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), BOUND_S),
            )
        body = b""
        while headers.get("transfer-encoding") == "chunked":
            size = int(await asyncio.wait_for(self.reader.readline(), BOUND_S), 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                break
        return status, headers, body

    async def rest(self) -> bytes:
        """All until the server ends the connection."""
        return await asyncio.wait_for(self.reader.read(-1), BOUND_S)


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, limits: Limits | None = None
) -> AsyncIterator[Callable[[], Awaitable[Conversation]]]:
    server = HttpServer(handler, limits=limits, identity=[("Server", "Manta")])
    port = await server.listen("127.0.0.1", 0)
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Conversation:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        opened.append(writer)
        return Conversation(reader, writer)

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
        await server.stop(1.0)
        for writer in opened:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def echo(request: Request, response: Response) -> None:
    body = await request.body(1 << 20)
    await response.send(200, [("x-method", request.method), ("x-path", request.path.decode())], body)


async def ignore(request: Request, response: Response) -> None:
    await response.send_error(403, "Forbidden", "no")


async def receive(request: Request, response: Response) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    await request.receive_into(digest.update)
    await response.send(200, [], digest.hexdigest().encode())


async def test_a_request_is_answered_and_the_connection_is_used_again() -> None:
    async with serving(echo) as connect:
        client = await connect()
        for _ in range(3):
            await client.say(b"PUT /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
            status, headers, body = await client.answer()
            assert (status, headers["x-path"], body) == (200, "/a%20b", b"abc")
            assert headers["server"] == "Manta"
            assert "date" in headers
            assert headers["x-response-time"].isdecimal()


async def test_a_request_id_is_echoed_or_made_up() -> None:
    async with serving(echo) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\n\r\n")
        assert (await client.answer())[1]["x-request-id"] == "mine"
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: " + b"x" * 500 + b"\r\n\r\n")
        assert len((await client.answer())[1]["x-request-id"]) == 36


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def slow_first(request: Request, response: Response) -> None:
        if request.path == b"/0":
            await asyncio.sleep(0)
        await response.send(200, [], request.path)

    async with serving(slow_first) as connect:
        client = await connect()
        await client.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(50)))
        assert [(await client.answer())[2] for _ in range(50)] == [b"/%d" % i for i in range(50)]


async def test_a_close_behind_pipelined_requests_loses_none_of_them() -> None:
    async with serving(echo) as connect:
        client = await connect()
        await client.say(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        text = await client.rest()
        assert text.count(b"HTTP/1.1 200") == 2
        assert b"/3" not in text


async def test_a_chunked_body_comes_whole_and_its_trailers_are_ignored() -> None:
    async with serving(echo) as connect:
        client = await connect()
        await client.say(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Evil: 1\r\n\r\n"
        )
        assert (await client.answer())[2] == b"abcde"
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_continue_is_sent_only_when_the_body_is_wanted() -> None:
    async with serving(echo) as connect:
        client = await connect()
        await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await client.head() == (100, {})
        await client.say(b"abc")
        assert (await client.answer())[2] == b"abc"
    async with serving(ignore) as connect:
        client = await connect()
        await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (403, "close")
        assert headers["content-type"] == "application/json"
        assert json.loads(body) == {"code": "Forbidden", "message": "no"}
        assert await client.rest() == b""


async def test_another_expectation_is_ignored() -> None:
    async with serving(echo) as connect:
        client = await connect()
        await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: application/json\r\nContent-Length: 2\r\n\r\n{}")
        assert (await client.answer())[2] == b"{}"


async def test_a_small_unread_body_is_drained_and_the_connection_survives() -> None:
    async with serving(ignore) as connect:
        client = await connect()
        for framing in (b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"):
            await client.say(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
            status, headers, _ = await client.answer()
            assert (status, headers.get("connection")) == (403, None)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
        await client.say(head)
        assert (await client.answer())[0] == 403
        await client.say(b"GET /", head)  # the first five bytes are that body
        assert (await client.answer())[0] == 403


async def test_a_large_unread_body_ends_the_connection_after_the_answer() -> None:
    async with serving(ignore) as connect:
        client = await connect()
        await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", b"x" * 300_000)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (403, "close")
        assert await client.rest() == b""


@pytest.mark.parametrize("size", [0, 10, 300_000, 5_000_000])
async def test_a_body_is_received_in_a_thread(size: int) -> None:
    data = os.urandom(size)
    async with serving(receive) as connect:
        client = await connect()
        for _ in range(2):
            await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, data)
            assert (await client.answer())[2].decode() == hashlib.md5(data, usedforsecurity=False).hexdigest()
        await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, size, 70_000):
            piece = data[start : start + 70_000]
            await client.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.say(b"0\r\n\r\n")
        assert (await client.answer())[2].decode() == hashlib.md5(data, usedforsecurity=False).hexdigest()


async def test_a_failing_consumer_of_a_large_body_gives_an_answer_and_no_desync() -> None:
    def fail(_piece: memoryview) -> None:
        raise OSError("disk full")

    async def handler(request: Request, response: Response) -> None:
        try:
            await request.receive_into(fail)
        except OSError:
            await response.send_error(507, "NotEnoughSpace", "full")

    async with serving(handler, QUICK) as connect:
        client = await connect()
        await client.say(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 60_000,
        )
        text = await client.rest()
        assert text.startswith(b"HTTP/1.1 507")
        assert text.count(b"HTTP/1.1 ") == 1


async def test_a_body_that_stalls_times_out_whichever_way_it_is_read() -> None:
    seen: list[str] = []

    async def handler(request: Request, response: Response) -> None:
        try:
            await (request.receive_into(lambda _: None) if request.path == b"/t" else request.body(1 << 30))
        except BodyTimeout:
            seen.append(request.path.decode())
            raise

    async with serving(handler, QUICK) as connect:
        for path in (b"/t", b"/b"):
            client = await connect()
            await client.say(b"PUT %b HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\nabc" % path)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (408, "close")
    assert seen == ["/t", "/b"]


async def test_a_client_that_goes_away_is_visible_to_the_handler() -> None:
    gone: asyncio.Queue[str] = asyncio.Queue()

    async def handler(request: Request, response: Response) -> None:
        try:
            if request.path == b"/read":
                await request.body(1 << 20)
            elif request.path == b"/thread":
                await request.receive_into(lambda _: None)
            else:
                await response.start(200, [], None)
                while True:
                    await response.write(b"x" * 65536)
        except ClientAborted:
            await gone.put(request.path.decode())
            raise

    async with serving(handler) as connect:
        for path in ("/read", "/thread", "/write"):
            client = await connect()
            await client.say(b"PUT %b HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\nabc" % path.encode())
            if path == "/write":
                await client.head()
            client.writer.transport.abort()
            assert await asyncio.wait_for(gone.get(), BOUND_S) == path


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nab", 411),
        (b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"b" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400),
    ],
)
async def test_a_malformed_request_is_refused_and_nothing_behind_it_is_read(message: bytes, status: int) -> None:
    async with serving(echo, QUICK) as connect:
        client = await connect()
        await client.say(
            b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n", message, b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert (await client.answer())[1]["x-path"] == "/before"
        got, headers, body = await client.answer()
        assert (got, headers["content-type"], headers["connection"]) == (status, "application/json", "close")
        assert set(json.loads(body)) == {"code", "message"}
        assert await client.rest() == b""


async def test_head_and_204_have_no_body() -> None:
    async def handler(request: Request, response: Response) -> None:
        await response.send(200 if request.method == "HEAD" else 204, [], b"abc")

    async with serving(handler) as connect:
        client = await connect()
        await client.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, "3")
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers = await client.head()
        assert status == 204
        assert "content-length" not in headers
        await client.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.head())[0] == 200


async def test_a_response_of_unknown_length_is_chunked_and_cut_off_for_http_1_0() -> None:
    async def handler(request: Request, response: Response) -> None:
        await response.start(200)
        await response.write(b"abc")
        await response.write(b"de")
        await response.finish()

    async with serving(handler) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[2] == b"abcde"
        await client.say(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\nabcde")


async def test_a_response_shorter_than_announced_ends_the_connection() -> None:
    async def handler(request: Request, response: Response) -> None:
        await response.start(200, [], 10)
        await response.write(b"abc")

    async with serving(handler) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert (await client.rest()).count(b"HTTP/1.1") <= 1


async def test_a_handler_that_fails_gives_500_and_tells_nothing() -> None:
    async def handler(request: Request, response: Response) -> None:
        raise RuntimeError("secret")

    async with serving(handler) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, _, body = await client.answer()
        assert status == 500
        assert b"secret" not in body


async def test_a_body_beyond_its_readers_limit_gives_413() -> None:
    async def handler(request: Request, response: Response) -> None:
        with pytest.raises(BodyTooLarge):
            await request.body(2)
        await request.body(2)

    async with serving(handler) as connect:
        for framing in (b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):
            client = await connect()
            await client.say(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing)
            status = (await client.answer())[0]
            assert status in (413, 500)


async def test_a_line_break_in_a_header_is_not_sent() -> None:
    async def handler(request: Request, response: Response) -> None:
        await response.send(200, [("x-a", "b\r\nx-evil: 1")], b"")

    async with serving(handler) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers, _ = await client.answer()
        assert status == 500
        assert "x-evil" not in headers


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
async def test_a_file_is_sent_from_any_offset(tmp_path: Path, size: int) -> None:
    data = os.urandom(size + 7)
    path = tmp_path / "f"
    path.write_bytes(data)

    async def handler(request: Request, response: Response) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            await response.send_file(206, [], fd, 7, size)
        finally:
            os.close(fd)

    async with serving(handler) as connect:
        client = await connect()
        for _ in range(2):
            await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer())[2] == data[7:]


async def test_an_idle_connection_and_an_unfinished_head_are_closed() -> None:
    async with serving(echo, QUICK) as connect:
        silent, partial = await connect(), await connect()
        await partial.say(b"GET / HT")
        assert await silent.rest() == b""
        with contextlib.suppress(ConnectionError):
            assert await partial.rest() == b""


async def test_stopping_finishes_what_runs_and_closes_the_idle() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(request: Request, response: Response) -> None:
        entered.set()
        await leave.wait()
        await response.send(200, [], b"done")

    server = HttpServer(handler)
    port = await server.listen("127.0.0.1", 0)
    busy_reader, busy = await asyncio.open_connection("127.0.0.1", port)
    idle_reader, idle = await asyncio.open_connection("127.0.0.1", port)
    busy.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await entered.wait()
    stopping = asyncio.create_task(server.stop(BOUND_S))
    assert await asyncio.wait_for(idle_reader.read(-1), BOUND_S) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    leave.set()
    text = await asyncio.wait_for(busy_reader.read(-1), BOUND_S)
    assert text.endswith(b"done")
    assert b"Connection: close" in text
    await asyncio.wait_for(stopping, BOUND_S)
    busy.close()
    idle.close()


async def test_stopping_does_not_wait_for_ever() -> None:
    entered: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: Request, response: Response) -> None:
        await entered.put(request.path)
        await (asyncio.Event().wait() if request.path == b"/" else request.receive_into(lambda _: None))

    server = HttpServer(handler)
    port = await server.listen("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as other:
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        other.sendall(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        assert {await entered.get(), await entered.get()} == {b"/", b"/x"}
        await asyncio.wait_for(server.stop(0.05), BOUND_S)


MESSAGES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
        b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        b"HEAD /d HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n",
    ]
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=5), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_where_the_bytes_are_split_changes_nothing(messages: list[bytes], cuts: list[int]) -> None:
    seen: list[bytes] = []

    async def handler(request: Request, response: Response) -> None:
        seen.append(request.path + await request.body(100))
        await response.send(200, [], b"ok")

    async def scenario() -> None:
        stream = b"".join(messages)
        edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        async with serving(handler) as connect:
            client = await connect()
            client.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start, end in itertools.pairwise(edges):
                await client.say(stream[start:end])
                await asyncio.sleep(0)
            for message in messages:
                status, headers = await client.head()
                assert status == 200
                if not message.startswith(b"HEAD"):
                    assert await client.reader.readexactly(int(headers["content-length"])) == b"ok"

    uvloop.run(scenario())
    assert seen == [message.split(b" ")[1] + (b"abcd" if b"abcd" in message else b"") for message in messages]


GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [b"GET ", b"/ HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n", b"\r\n", b"A: b\r\n", b"PUT / HTTP/1.1\r\nHost: a\r\n",
        b"Content-Length: 5\r\n",
         b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"5\r\nabcde\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
         b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"ffffffffff\r\n"]
    ),
)  # fmt: skip


@settings(max_examples=60)
@given(parts=st.lists(GARBAGE, max_size=8))
def test_garbage_never_hangs_or_breaks_the_server(parts: list[bytes]) -> None:
    failures: list[dict[str, object]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        async with serving(echo, QUICK) as connect:
            client = await connect()
            with contextlib.suppress(ConnectionError):
                await client.say(*parts)
                client.writer.write_eof()
                text = await client.rest()
                assert not text or text.startswith(b"HTTP/1.1 ")
                assert b" 500 " not in text
            sane = await connect()
            await sane.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await sane.answer())[0] == 200

    uvloop.run(scenario())
    assert not failures


async def test_a_head_and_the_first_bytes_of_its_body_go_out_together() -> None:
    written: list[bytes] = []

    async def handle(request: Request, response: Response) -> None:
        connection = response._connection
        write = connection.write

        def record(data: bytes) -> None:
            written.append(data)
            write(data)

        connection.write = record  # type: ignore[method-assign]
        await response.start(200, content_length=4)
        await response.write(b"ab")
        await response.write(b"cd")
        await response.finish()

    async with serving(handle) as connect:
        client = await connect()
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[2] == b"abcd"
    assert [data[-2:] for data in written] == [b"ab", b"cd"]


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a, b\r\n"])
async def test_a_request_names_one_host(hosts: bytes) -> None:
    async def handler(_request: Request, response: Response) -> None:
        await response.send(204)

    async with serving(handler) as connect:
        talk = await connect()
        await talk.say(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
        assert (await talk.answer())[0] == 400
        old = await connect()
        await old.say(b"GET / HTTP/1.0\r\n\r\n")
        assert (await old.answer())[0] == 204
