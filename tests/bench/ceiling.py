"""What the load itself can do: it is pointed at a server that does nothing but answer.

python -m tests.bench.ceiling PORT SIZE      answers each GET with SIZE bytes, each PUT with 204 when its body has come
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvloop

from tests.bench.plan import CEILING
from tests.bench.system import BenchError, System

PORT = 7999
START_BOUND_S = 15.0


class _Answerer(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._left_bytes = -1
        """of a body that is arriving; -1: a head is expected"""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._left_bytes < 0:  # the load writes a head in one piece
            head, _, body = data.partition(b"\r\n\r\n")
            _, found, length = head.partition(b"Content-Length: ")
            self._left_bytes = (int(length.split(b"\r\n", 1)[0]) if found else 0) - len(body)
        else:
            self._left_bytes -= len(data)
        if not self._left_bytes:
            self._left_bytes = -1
            self._transport.write(self._answer)


async def _serve(port: int, size_bytes: int) -> None:
    body = bytes(size_bytes)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size_bytes, body)
    server = await asyncio.get_running_loop().create_server(lambda: _Answerer(answer), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


@contextmanager
def running(size_bytes: int) -> Iterator[System]:
    """The server that does nothing, as a system."""
    argv = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tests.bench.ceiling", str(PORT), str(size_bytes)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            _wait()
            yield System(CEILING, "", [PORT], "/", lambda: [""], lambda _: 0, "/", [process.pid])
        finally:
            process.kill()


def _wait() -> None:
    end = time.monotonic() + START_BOUND_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.05)
    raise BenchError("start the server that does nothing: it does not listen")


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
