"""The storage API as an archive is written through it: lists of any length, as the job's user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from mobula.jobs.archive import DirectoryGone, Pages, Refused
from mobula.jobs.front import NotNow, status_of, target, tries
from mobula.metadata.jobs import Job
from mobula.wire.http_client import AnsweredEarly, HttpClient
from mobula.wire.http_failures import Address, RequestFailed

log = structlog.get_logger()


class ArchiveFront:
    """`archive.Writer`. `webapi`: one that is up now. `token`: of a job's user, with `archives` (core/tokens.py), good for now."""

    def __init__(self, client: HttpClient, webapi: Callable[[], Address], token: Callable[[Job], str]) -> None:
        self._client = client
        self._webapi = webapi
        self._token = token

    async def put(self, job: Job, name: str, content_type: str, pages: Pages) -> None:
        """`Writer.put`."""
        headers = [*self._headers(job), ("Content-Type", content_type)]
        async for _ in tries(f"put {name} of job {job.id}"):
            try:
                status = await self._put(_below(job, name), headers, pages)
            except (RequestFailed, NotNow) as error:
                log.info("list not put", job=str(job.id), name=name, why=str(error))
                continue
            if status == 204:
                return
            if status == 404:
                raise DirectoryGone(f"put {name} of job {job.id}: its directory is gone")
            raise Refused(f"put {name} of job {job.id}: it is refused with {status}")

    async def _put(self, path: str, headers: list[tuple[str, str]], pages: Pages) -> int:
        """A short list goes in one piece, as most are."""
        async with contextlib.aclosing(pages()) as found:
            first, second = await anext(found, b""), await anext(found, b"")
            if not second:
                reply = await self._client.request(
                    self._webapi(), "PUT", path, headers=headers, body=first, repeatable=True
                )
                return await status_of(reply)
            upload = await self._client.open(self._webapi(), "PUT", path, headers=headers, content_length=None)
            try:
                if not upload.answered:
                    for page in (first, second):
                        await upload.write(page)
                    async for page in found:
                        await upload.write(page)
            except AnsweredEarly:
                pass
            except BaseException:
                upload.abort()
                raise
            return await status_of(await upload.response())

    async def remove(self, job: Job, name: str) -> None:
        """`Writer.remove`."""
        async for _ in tries(f"remove {name} of job {job.id}"):
            try:
                reply = await self._client.request(
                    self._webapi(), "DELETE", _below(job, name), headers=self._headers(job), repeatable=True
                )
                status = await status_of(reply)
            except (RequestFailed, NotNow) as error:
                log.info("directory not removed", job=str(job.id), name=name, why=str(error))
                continue
            if status not in {204, 404}:
                raise Refused(f"remove {name} of job {job.id}: it is refused with {status}")
            return

    def _headers(self, job: Job) -> list[tuple[str, str]]:
        return [("Authorization", f"Token {self._token(job)}")]


def _below(job: Job, name: str) -> str:
    return target(f"/{job.owner.login}/jobs/{job.id}/{name}")
