"""The asyncio driver: does what operations ask for, with tasks where they ask for several things at once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

from mobula.client import download, jobs, operations, tree
from mobula.client.effects import Emit, Operation, Pause, Read, Send, Stream, Together
from mobula.client.errors import MobulaError
from mobula.client.model import Answer, Request
from mobula.client.session import Session
from mobula.client.settings import Settings, from_environment
from mobula.client.signer import find_signer
from mobula.client.sync import TIMEOUTS
from mobula.client.tls import Trust
from mobula.wire.http_client import AnsweredEarly, ClientResponse, HttpClient, RequestFailed
from mobula.wire.http_failures import NotTrusted


class _Method[**P, T]:
    """An operation as a coroutine that does it."""

    def __init__(self, operation: Callable[P, Operation[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: AsyncClient | None, owner: type) -> Callable[P, Awaitable[T]] | Self:
        if client is None:
            return self
        return lambda *args, **kwargs: client.run(self._operation(*args, **kwargs))


class _Iterating[**P, T]:
    """An operation that emits values, as an asynchronous iterator over them."""

    def __init__(self, operation: Callable[P, Stream[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, client: AsyncClient | None, owner: type) -> Callable[P, AsyncIterator[T]] | Self:
        if client is None:
            return self
        return lambda *args, **kwargs: client.iterate(self._operation(*args, **kwargs))


class AsyncClient:
    """The service, for coroutines of one event loop: as many at the same time as you like.

    Every method is an operation of `operations`, `tree`, `download` or `jobs`, where it is described. Files are read on the loop.
    Leave an iteration early only by `contextlib.aclosing`, else its connection is freed when the garbage collector comes.
    """

    put = _Method(operations.put)
    info = _Method(operations.info)
    delete = _Method(operations.delete)
    link = _Method(operations.link)
    update_metadata = _Method(operations.update_metadata)
    refer = _Method(operations.refer)
    mkdir = _Method(operations.mkdir)
    delete_tree = _Method(tree.delete_tree)
    get = _Iterating(download.get)
    list_directory = _Iterating(tree.list_directory)
    walk = _Iterating(tree.walk)
    create_job = _Method(jobs.create_job)
    add_inputs = _Method(jobs.add_inputs)
    end_inputs = _Method(jobs.end_inputs)
    cancel_job = _Method(jobs.cancel_job)
    job_status = _Method(jobs.job_status)
    wait_archived = _Method(jobs.wait_archived)
    live_list = _Method(jobs.live_list)
    wait_job = _Iterating(jobs.wait_job)
    list_jobs = _Iterating(jobs.list_jobs)

    def __init__(self, settings: Settings | None = None) -> None:
        """`settings` None: those of the environment. Raises MobulaError (InvalidSetting)."""
        settings = (settings or from_environment(os.environ)).check()
        self.session = Session(settings, find_signer(settings))
        self.sign_url = self.session.sign_url
        self._trust = Trust(settings)
        self._http = HttpClient(timeouts=TIMEOUTS, tls=self._trust.context)

    async def run[T](self, operation: Operation[T]) -> T:
        """Do an operation. Raises MobulaError."""
        driver = _Driver(self, operation)
        async with contextlib.aclosing(driver):
            async for _ in driver.steps():
                pass
        return cast(T, driver.value)

    async def iterate[T](self, stream: Stream[T]) -> AsyncIterator[T]:
        """The values that an operation emits, as it goes on. Raises MobulaError."""
        driver = _Driver(self, stream.operation)
        async with contextlib.aclosing(driver):
            async for value in driver.steps():
                yield value

    async def send(self, request: Request) -> ClientResponse:
        """Sign and send one request, once. Raises RequestFailed, MobulaError."""
        whole = self._trust.whole
        try:
            return await self._send(request)
        except NotTrusted:  # nothing was sent
            if whole:
                raise
            self._trust.widen()
            return await self._send(request)

    async def _send(self, request: Request) -> ClientResponse:
        session = self.session
        target = session.target(request)
        headers = session.headers(request, dt.datetime.now(dt.UTC))
        address = session.settings.address
        body = request.body
        if body is None or body.size_bytes == 0:
            return await self._http.request(address, request.method, target, headers=headers)
        upload = await self._http.open(
            address, request.method, target, headers=headers, content_length=body.size_bytes
        )  # fmt: skip
        try:
            with contextlib.suppress(AnsweredEarly):
                if not upload.answered:
                    async with contextlib.aclosing(body.chunks_async()) as chunks:
                        async for chunk in chunks:
                            await upload.write(chunk)
            return await upload.response()
        except BaseException:
            upload.abort()
            raise

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Driver:
    """Performs the effects of one operation; holds the response whose body it is reading."""

    def __init__(self, client: AsyncClient, operation: Operation[Any]) -> None:
        self.value: Any = None
        """what the operation gave in the end"""
        self._client = client
        self._operation = operation
        self._response: ClientResponse | None = None

    async def steps(self) -> AsyncIterator[Any]:
        """Does the operation; gives what it emits."""
        result, failure = None, None
        while True:
            try:
                effect = self._operation.throw(failure) if failure is not None else self._operation.send(result)
            except StopIteration as end:
                self.value = end.value
                return
            result, failure = None, None
            if isinstance(effect, Emit):
                yield effect.value
                continue
            try:
                result = await self._perform(effect)
            except (RequestFailed, MobulaError) as error:
                failure = error

    async def aclose(self) -> None:
        self._operation.close()
        await self._drop()

    async def _perform(self, effect: Send | Read | Pause | Together) -> Any:
        match effect:
            case Read():
                return await self._response.next() if self._response is not None else b""
            case Send(request):
                await self._drop()
                self._response = response = await self._client.send(request)
                return Answer(response.status, {name.lower(): value for name, value in response.headers})
            case Pause(seconds):
                await self._drop()
                await asyncio.sleep(seconds)
                return None
            case Together(running, parallel):
                return await _together(self._client, running, parallel)

    async def _drop(self) -> None:
        if self._response is not None:
            await self._response.close()
            self._response = None


async def _together(client: AsyncClient, running: Sequence[Operation[Any]], parallel: int) -> list[Any]:
    limit = asyncio.Semaphore(parallel)

    async def one(operation: Operation[Any]) -> Any:
        async with limit:
            return await client.run(operation)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(operation)) for operation in running]
    except* (RequestFailed, MobulaError) as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
