"""The storage API as a task finds it at http://localhost: its requests go on as those of the job's user, and what it emits is noted.

Source: the compute contract, section "In-sandbox HTTP server".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mobula.core.paths import InvalidPath, parse
from mobula.metadata.jobs import Made
from mobula.wire import websocket
from mobula.wire.http_client import AnsweredEarly, ClientResponse, HttpClient, Upload
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address, RequestFailed
from mobula.wire.relay import relay

AT_ONCE = 25
"""requests of a task that are on their way; others wait"""
TAKEN = 1000
"""names emitted, from which on they should be taken; when there are twice as many a task that emits more waits"""
REDUCERS = range(128)
NOT_BUILT = 501
STREAM, REDUCER, REFERENCE = "x-manta-stream", "x-manta-reducer", "x-manta-reference"
OUTPUT = "stdout"
RESERVED = frozenset({"stderr", "core"})
# What is between two neighbours only, or said anew by whoever sends.
OF_CONNECTION = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version",
})  # fmt: skip
NOT_ASKED_ON = OF_CONNECTION | {"authorization", STREAM, REDUCER, REFERENCE}
NOT_ANSWERED_ON = OF_CONNECTION | {"date", "x-request-id", "x-response-time"}


class Refused(Exception):
    """A request that is answered here: status, code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Door:
    """Of one sandbox, for one task at a time."""

    def __init__(self, client: HttpClient, webapi: Callable[[], Address], token: Callable[[], str]) -> None:
        """`webapi`: one that is up now. `token`: of the job's user, good for now."""
        self._client = client
        self._webapi = webapi
        self._token = token
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._made: list[Made] = []
        self._failed = False
        self._full = asyncio.Event()
        self._room = asyncio.Event()

    def failed(self) -> bool:
        """Whether the storage API failed somebody since the last call: what ends in error then may have done so for that reason."""
        failed, self._failed = self._failed, False
        return failed

    def take(self) -> list[Made]:
        """What was emitted since the last call."""
        made, self._made = self._made, []
        self._full.clear()
        self._room.set()
        return made

    async def full(self) -> None:
        """Until there is so much that it should be taken."""
        await self._full.wait()

    async def _emit(self, made: Made) -> None:
        while len(self._made) >= 2 * TAKEN:
            self._room.clear()
            await self._room.wait()
        self._made.append(made)
        if len(self._made) >= TAKEN:
            self._full.set()

    async def handle(self, request: Request, response: Response) -> None:
        """mobula.wire.http_server.Handler."""
        try:
            async with self._slots:
                await self._handle(request, response)
        except Refused as error:
            await response.send_error(error.status, error.code, str(error))
        except RequestFailed as error:
            self._failed = True
            if response.started:
                raise
            await response.send_error(503, "ServiceUnavailable", str(error), [("Retry-After", "1")])

    async def _handle(self, request: Request, response: Response) -> None:
        made = _emits(request)
        if made is not None and request.headers.get(REFERENCE) == "true":
            await self._emit(made)
            await response.send(204)
            return
        async with await self._ask(request) as reply:
            self._failed |= reply.status >= 500 and reply.status != NOT_BUILT
            if made is not None and 200 <= reply.status < 300:
                await self._emit(made)
            if reply.status == websocket.SWITCHING:
                await websocket.pass_on(reply, response)
            else:
                await _answer(reply, response)

    async def _ask(self, request: Request) -> ClientResponse:
        headers = [(name, value) for name, value in request.headers if name.lower() not in NOT_ASKED_ON]
        headers.append(("Authorization", f"Token {self._token()}"))
        headers.append(("x-request-id", request.request_id))
        if websocket.is_asked_for(request.headers):
            headers += websocket.asked_on(request.headers)
        target = request.target.decode("latin-1")
        if not request.has_body:
            return await self._client.request(self._webapi(), request.method, target, headers=headers)
        length = None if request.chunked else request.content_length
        upload = await self._client.open(self._webapi(), request.method, target, headers=headers, content_length=length)
        try:
            await _send_body(request, upload)
            return await upload.response()
        except BaseException:
            upload.abort()
            raise


async def _send_body(request: Request, upload: Upload) -> None:
    """Unless it is answered before: then the task's client is told so, and keeps its body."""
    if upload.answered:
        return
    try:
        async for chunk in request.chunks():
            await upload.write(chunk)
    except AnsweredEarly:
        return


async def _answer(reply: ClientResponse, response: Response) -> None:
    headers = [(name, value) for name, value in reply.headers if name.lower() not in NOT_ANSWERED_ON]
    await response.start(reply.status, headers, reply.content_length)
    await relay(reply, response)
    await response.finish()


def _emits(request: Request) -> Made | None:
    """What a request puts out beside what it does; None for one that is nothing but a request.

    Raises:
        Refused: it says so in a way that it must not.
    """
    stream = request.headers.get(STREAM)
    is_reference = request.headers.get(REFERENCE) == "true"
    if stream in RESERVED:
        raise Refused(409, "InvalidArgumentError", f'{STREAM} "{stream}" is reserved')
    if request.method != "PUT" or not (is_reference or stream == OUTPUT):
        return None
    reducer = request.headers.get(REDUCER)
    if reducer is not None and not (
        reducer.isascii() and reducer.isdigit() and len(reducer) < 4 and int(reducer) in REDUCERS
    ):
        raise Refused(
            409, "InvalidArgumentError", f'{REDUCER} "{reducer[:40]}" is not a number from 0 to {REDUCERS[-1]}'
        )
    try:
        name = str(parse(request.path))
    except InvalidPath as error:
        raise Refused(400, "InvalidResource", f"the name can't be emitted: {error}") from error
    return Made(name, int(reducer) if reducer is not None else None)
