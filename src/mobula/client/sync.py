"""The blocking driver: does what operations ask for, with threads where they ask for several things at once."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

from mobula.client import download, jobs, operations, tree
from mobula.client.effects import Emit, Operation, Pause, Read, Send, Stream, Together
from mobula.client.errors import MobulaError
from mobula.client.model import Answer, Request
from mobula.client.session import Session
from mobula.client.settings import Settings, from_environment
from mobula.client.signer import find_signer
from mobula.client.tls import Trust
from mobula.wire.http_blocking import BlockingClient, BlockingResponse
from mobula.wire.http_failures import NotTrusted, RequestFailed, Timeouts

TIMEOUTS = Timeouts(connect_s=5.0, response_s=60.0, idle_s=60.0, keep_s=30.0)
"""a loadbalancer ends a connection without work after 60 s"""


class _Method[**P, T]:
    """An operation as a method that does it."""

    def __init__(self, operation: Callable[P, Operation[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    def __get__(self, client: Client | None, owner: type) -> Callable[P, T] | Self:
        if client is None:
            return self
        return lambda *args, **kwargs: client.run(self._operation(*args, **kwargs))


class _Iterating[**P, T]:
    """An operation that emits values, as a method that iterates over them."""

    def __init__(self, operation: Callable[P, Stream[T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, client: Client | None, owner: type) -> Callable[P, Iterator[T]] | Self:
        if client is None:
            return self
        return lambda *args, **kwargs: client.iterate(self._operation(*args, **kwargs))


class Client:
    """The service, for threads: any number of them may share one.

    Every method is an operation of `operations`, `tree`, `download` or `jobs`, where it is described.
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
        self._http = BlockingClient(timeouts=TIMEOUTS, tls=self._trust.context)

    def run[T](self, operation: Operation[T]) -> T:
        """Do an operation. Raises MobulaError."""
        steps = _drive(self, operation)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast(T, end.value)

    def iterate[T](self, stream: Stream[T]) -> Iterator[T]:
        """The values that an operation emits, as it goes on. Raises MobulaError."""
        return _drive(self, stream.operation)

    def send(self, request: Request) -> BlockingResponse:
        """Sign and send one request, once. Raises RequestFailed, MobulaError."""
        whole = self._trust.whole
        try:
            return self._send(request)
        except NotTrusted:  # nothing was sent
            if whole:
                raise
            self._trust.widen()
            return self._send(request)

    def _send(self, request: Request) -> BlockingResponse:
        session = self.session
        target = session.target(request)
        headers = session.headers(request, dt.datetime.now(dt.UTC))
        address = session.settings.address
        if request.body is None or request.body.size_bytes == 0:
            return self._http.request(address, request.method, target, headers=headers)
        chunks, length = request.body.chunks(), request.body.size_bytes
        return self._http.upload(address, request.method, target, chunks, headers=headers, content_length=length)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Whom it trusts, for connections beside its own; None: clear text. Known once a request was answered."""
        return self._trust.context

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _drive(client: Client, operation: Operation[Any]) -> Generator[Any, None, Any]:
    performer = _Performer(client)
    with contextlib.closing(operation), contextlib.closing(performer):
        result, failure = None, None
        while True:
            try:
                effect = operation.throw(failure) if failure is not None else operation.send(result)
            except StopIteration as end:
                return end.value
            result, failure = None, None
            if isinstance(effect, Emit):
                yield effect.value
                continue
            try:
                result = performer.perform(effect)
            except (RequestFailed, MobulaError) as error:
                failure = error


class _Performer:
    """Performs the effects of one operation; holds the response whose body it is reading."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._response: BlockingResponse | None = None

    def perform(self, effect: Send | Read | Pause | Together) -> Any:
        """What the operation is to be sent. Raises RequestFailed, MobulaError."""
        match effect:
            case Read():
                return self._response.next() if self._response is not None else b""
            case Send(request):
                self.close()
                self._response = response = self._client.send(request)
                return Answer(response.status, {name.lower(): value for name, value in response.headers})
            case Pause(seconds):
                self.close()
                time.sleep(seconds)
                return None
            case Together(running, parallel):
                return _together(self._client, running, parallel)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _together(client: Client, running: Sequence[Operation[Any]], parallel: int) -> list[Any]:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (most commands do without)

    if len(running) == 1:
        return [client.run(running[0])]
    with ThreadPoolExecutor(min(parallel, len(running)), thread_name_prefix="mobula") as executor:
        futures = [executor.submit(client.run, operation) for operation in running]
        try:
            return [future.result() for future in futures]
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
