"""The storage API as an agent uses it for a job: assets are got, outputs are put, as the job's user."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from mobula.core import paths
from mobula.jobs.lead import Order
from mobula.jobs.runner import NoAsset, Source, StoreError
from mobula.metadata.jobs import Job
from mobula.wire.http_client import AnsweredEarly, ClientResponse, HttpClient
from mobula.wire.http_failures import Address, RequestFailed

log = structlog.get_logger()

TRIES = 4
PAUSE_S = 0.5
"""before the second try; twice as long before each further one"""
CHUNK_BYTES = 256 << 10
DIRECTORY = "application/json; type=directory"
KNOWN_MAX = 10_000
ASSET_MODE = 0o777
BROKEN = 500
"""from here on a status says that the service could not do it"""


class NotNow(Exception):
    """The service could not do it; it may later."""


class FrontDoor:
    """`runner.Store`. `webapi`: one that is up now. `token`: of a job's user, good for now."""

    def __init__(self, client: HttpClient, webapi: Callable[[], Address], token: Callable[[Job], str]) -> None:
        self._client = client
        self._webapi = webapi
        self._token = token
        self._known: set[str] = set()
        """directories that we have made, or met"""

    async def fetch(self, order: Order, name: str, into: Path) -> None:
        """`Store.fetch`."""
        async for _ in tries(f"get the asset {name}"):
            try:
                reply = await self._client.request(
                    self._webapi(), "GET", target(name), headers=self._headers(order.job)
                )
                async with reply:
                    if reply.status == 200:
                        with into.open("wb") as file:
                            async for chunk in reply.chunks():
                                file.write(chunk)
                        into.chmod(ASSET_MODE)  # noqa: ASYNC240 (a file of the sandbox's)
                        return
                    if not reply.status >= BROKEN:
                        raise NoAsset(f'error retrieving asset "{name}" (status code {reply.status})')
            except RequestFailed as error:
                log.info("asset not got", name=name, why=str(error))

    async def put(self, order: Order, name: str, source: Source) -> None:
        """`Store.put`."""
        parent = name.rpartition("/")[0]
        async for _ in tries(f"put {name}"):
            try:
                if parent not in self._known:
                    await self._make_directory(order.job, parent)
                status = await self._put(order.job, name, source)
            except (RequestFailed, NotNow) as error:
                log.info("output not put", name=name, why=str(error))
                continue
            if status == 204:
                return
            if status != 404:
                raise StoreError(f"put {name}: it is refused with {status}")
            self._known.discard(parent)  # somebody has removed it

    async def _put(self, job: Job, name: str, source: Source) -> int:
        size_bytes = len(source) if isinstance(source, bytes) else os.fstat(source).st_size
        headers = self._headers(job)
        if not size_bytes:
            reply = await self._client.request(self._webapi(), "PUT", target(name), headers=headers, repeatable=True)
            return await status_of(reply)
        upload = await self._client.open(
            self._webapi(), "PUT", target(name), headers=headers, content_length=size_bytes
        )
        try:
            if not upload.answered:
                for at in range(0, size_bytes, CHUNK_BYTES):
                    upto = min(size_bytes, at + CHUNK_BYTES)
                    await upload.write(
                        source[at:upto] if isinstance(source, bytes) else os.pread(source, upto - at, at)
                    )
        except AnsweredEarly:
            pass
        except BaseException:
            upload.abort()
            raise
        return await status_of(await upload.response())

    async def _make_directory(self, job: Job, path: str) -> None:
        """It, and those above it that are not there. Raises RequestFailed, NotNow, StoreError."""
        headers = [*self._headers(job), ("Content-Type", DIRECTORY)]
        missing = [path]
        while missing:
            reply = await self._client.request(
                self._webapi(), "PUT", target(missing[-1]), headers=headers, repeatable=True
            )
            status = await status_of(reply)
            if status == 204:
                self._remember(missing.pop())
            elif status == 404 and missing[-1].count("/") > 2:
                missing.append(missing[-1].rpartition("/")[0])
            else:
                raise StoreError(f"make directory {missing[-1]}: it is refused with {status}")

    def _remember(self, path: str) -> None:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(path)

    def _headers(self, job: Job) -> list[tuple[str, str]]:
        return [("Authorization", f"Token {self._token(job)}")]


async def tries(what: str) -> AsyncIterator[None]:
    """Some, further and further apart. Raises StoreError after the last one."""
    for number in range(TRIES):
        if number:
            await asyncio.sleep(PAUSE_S * 2 ** (number - 1))
        yield
    raise StoreError(f"{what}: not in {TRIES} tries")


async def status_of(reply: ClientResponse) -> int:
    """Of an answer, the body of which nobody wants. Raises NotNow."""
    await reply.body()
    if reply.status >= BROKEN:
        raise NotNow(f"it answers {reply.status}")
    return reply.status


def target(name: str) -> str:
    """What is asked for: an object's name, encoded."""
    return paths.encode(name.strip("/").split("/"))
