"""The storage and the jobs API, as the region's own account uses them: through a webapi, like everybody."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import quote

import msgspec
import structlog

from mobula.core import paths
from mobula.core.tokens import Bearer, TokenKey, seal
from mobula.jobs.front import DIRECTORY, NotNow, tries
from mobula.jobs.runner import StoreError
from mobula.metadata.directory import Directory
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address, RequestFailed

log = structlog.get_logger()

BODY_BYTES_MAX = 16 << 20
PAGE = 256
WRITE_S = 60.0
"""for a webapi to answer once it has all of an object"""
CREATED, DONE = frozenset({201}), frozenset({202, 204})


class Named(msgspec.Struct, frozen=True):
    """An entry of a directory."""

    name: str
    type: str
    mtime: str


class JobStatus(msgspec.Struct, frozen=True):
    """What a job's status says that somebody needs who waits for it."""

    state: str
    cancelled: bool
    stats: dict[str, int]


class SystemToken:
    """A token of the system account, which is made if it isn't there."""

    def __init__(self, metadata: PostgresMetadata, key: TokenKey) -> None:
        self._directory = Directory(metadata)
        self._key = key
        self._account: uuid.UUID | None = None

    async def __call__(self) -> str:
        """Good for now. Raises MetadataError."""
        if self._account is None:
            self._account = await self._directory.system_account()
        return seal(self._key, Bearer(self._account, None), dt.datetime.now(dt.UTC))


class SystemStore:
    """`webapi`: one that is up now. All methods raise StoreError: it was not done, asked often enough; and what `token` raises."""

    def __init__(self, client: HttpClient, webapi: Callable[[], Address], token: Callable[[], Awaitable[str]]) -> None:
        self._client = client
        self._webapi = webapi
        self._token = token

    async def put(self, path: str, body: bytes, content_type: str) -> None:
        """An object; its directory is there."""
        await self._ask("PUT", path, {204}, body=body, content_type=content_type)

    async def make_directory(self, path: str) -> None:
        """It, and those above it that are not there."""
        status, _, _ = await self._ask("PUT", path, {204, 404}, content_type=DIRECTORY)
        if status == 404:
            await self.make_directory(path.rpartition("/")[0])
            await self._ask("PUT", path, {204}, content_type=DIRECTORY)

    async def entries(self, path: str, first: str = "") -> AsyncIterator[Named]:
        """Of a directory, from that name on, in their order; of one that is not there none."""
        marker = first
        while True:
            query = f"?limit={PAGE}" + (f"&marker={quote(marker, safe='')}" if marker else "")
            status, _, body = await self._ask("GET", path, {200, 404}, query=query)
            if status == 404:
                return
            page = [msgspec.json.decode(line, type=Named) for line in body.splitlines()]
            for entry in page:
                if entry.name != marker or marker == first:
                    yield entry
            if len(page) < PAGE:
                return
            marker = page[-1].name

    async def remove(self, path: str) -> None:
        """An object, or a directory with all that is in it; one that is gone is no error."""
        status, _, _ = await self._ask("DELETE", path, {204, 404, 400})
        if status == 400:  # not empty
            async for entry in self.entries(path):
                await self.remove(f"{path}/{entry.name}")
            await self._ask("DELETE", path, {204, 404})

    async def run_job(self, login: str, document: object, inputs: Sequence[str]) -> uuid.UUID:
        """Create it, and give it all its inputs."""
        body = msgspec.json.encode(document)
        _, location, _ = await self._ask("POST", f"/{login}/jobs", CREATED, body=body, content_type="application/json")
        job = uuid.UUID(location.rpartition("/")[2])
        lines = "".join(f"{name}\n" for name in inputs).encode()
        try:
            await self._ask(
                "POST", f"{location}/live/in", DONE, query="?end=true", body=lines, content_type="text/plain"
            )
        except StoreError:
            # Some may be in it, and asked again they would be twice.
            with contextlib.suppress(StoreError):
                await self.cancel_job(login, job)
            raise
        return job

    async def job_status(self, login: str, job: uuid.UUID) -> JobStatus:
        _, _, body = await self._ask("GET", f"/{login}/jobs/{job}/live/status", {200})
        return msgspec.json.decode(body, type=JobStatus)

    async def cancel_job(self, login: str, job: uuid.UUID) -> None:
        """One that is done already stays so."""
        await self._ask("POST", f"/{login}/jobs/{job}/live/cancel", DONE | {409})

    async def _ask(
        self, method: str, path: str, wanted: frozenset[int] | set[int], *, query: str = "", body: bytes = b"", content_type: str = ""
    ) -> tuple[int, str, bytes]:  # fmt: skip
        """Status, Location and body of an answer that is `wanted`. What can't be asked twice is asked once."""
        headers = [("Authorization", f"Token {await self._token()}")]
        headers += [("Content-Type", content_type)] if content_type else []
        target = paths.encode(path.strip("/").split("/")) + query
        async for _ in tries(f"{method} {path}"):
            try:
                reply = await self._client.request(
                    self._webapi(), method, target, headers=headers, body=body, repeatable=method != "POST"
                )
                said = await reply.body(BODY_BYTES_MAX)
                if reply.status >= 500:
                    raise NotNow(f"it answers {reply.status}")
            except (RequestFailed, NotNow) as error:
                if method == "POST":
                    raise StoreError(f"{method} {path}: {error}") from error
                log.info("asked again", method=method, path=path, why=str(error))
                continue
            if reply.status not in wanted:
                raise StoreError(
                    f"{method} {path}: it is refused with {reply.status} {said[:200].decode(errors='replace')}"
                )
            return reply.status, reply.headers.get("location") or "", said
        raise AssertionError("unreachable")  # `tries` raises after the last one
