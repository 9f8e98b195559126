"""Has another storage server's copy of an object brought here: the bytes cross the network once, and count only if they are right."""

from __future__ import annotations

import re
from functools import partial

from mobula.core.capability import HEADER
from mobula.storage.commits import Commits
from mobula.storage.disk import Disk
from mobula.storage.files import ObjectExists, ObjectFiles, ObjectName, Upload
from mobula.storage.integrity import Found, Integrity
from mobula.wire.http_client import Address, ClientResponse, HttpClient, RequestFailed

SOURCE = "x-mobula-source"
"""address and port of the storage server that has the copy"""
SOURCE_CAPABILITY = "x-mobula-source-capability"
"""what lets us read it there"""
SMALL_BYTES = 64 * 1024
_PIECE_BYTES = 1 << 20
_ADDRESS = re.compile(r"([0-9.]{7,15}):([0-9]{1,5})", re.ASCII)


class SourceRefused(Exception):
    """No source was named, or not in the form of one. -> 400"""


class SourceMissing(Exception):
    """The other server doesn't have it either. -> 404"""


class SourceUnavailable(Exception):
    """The other server can't be asked now. -> 424"""


class SourceWrong(Exception):
    """The other server's bytes are not the object's. -> 422"""


def read_source(text: str | None) -> Address:
    """Raises SourceRefused."""
    match = _ADDRESS.fullmatch(text or "")
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise SourceRefused(f"copy an object: {SOURCE} is {text!r}; it is <address>:<port> of a storage server")
    return Address(match[1], int(match[2]))


class Copying:
    """May be asked again for what is there: it is read and verified then."""

    def __init__(
        self, files: ObjectFiles, commits: Commits, integrity: Integrity, disk: Disk, http: HttpClient
    ) -> None:
        self._files = files
        self._commits = commits
        self._integrity = integrity
        self._disk = disk
        self._http = http

    async def copy(self, name: ObjectName, source: Address, capability: str, request_id: str) -> bool:
        """Have a right copy; it lasts when this returns. False: it was there already.

        Raises SourceMissing, SourceUnavailable, SourceWrong, ObjectExists (it is being stored now), NoSpace, OSError.
        """
        if await self._disk(partial(self._integrity.look, name)) is Found.RIGHT:
            self._integrity.placed(name, lambda: None)
            return False
        try:
            response = await self._http.request(
                source, "GET", f"/objects/{name.path}", headers=[(HEADER, capability), ("x-request-id", request_id)]
            )
            async with response:
                await self._check(response, source, name)
                if name.size_bytes <= SMALL_BYTES:
                    await self._take_small(name, await response.body(SMALL_BYTES), source)
                else:
                    await self._receive(name, response, source)
        except RequestFailed as error:
            raise SourceUnavailable(f"copy '{name.path}' from {source}: {error}") from error
        return True

    async def _check(self, response: ClientResponse, source: Address, name: ObjectName) -> None:
        if response.status == 200 and response.content_length == name.size_bytes:
            return
        what = f"copy '{name.path}' from {source}: it answered {response.status}"
        raise (SourceMissing if response.status == 404 else SourceUnavailable)(what)

    async def _take_small(self, name: ObjectName, body: bytes, source: Address) -> None:
        if not self._integrity.is_right(name, body):
            raise SourceWrong(f"copy '{name.path}' from {source}: its bytes have another size or MD5")
        try:
            # Together with what clients store now: one sync for all of it.
            await self._commits.put(name.account, name.object_id, body)
        except ObjectExists:  # it was here once, so its id is taken
            upload = await self._disk(partial(self._files.create_copy, name))
            await self._finish(upload, name, source, body)
        else:
            self._integrity.placed(name, lambda: None)

    async def _receive(self, name: ObjectName, response: ClientResponse, source: Address) -> None:
        upload = await self._disk(partial(self._files.create_copy, name))
        try:
            pieces: list[bytes] = []
            async for chunk in response.chunks():
                pieces.append(chunk)
                if sum(map(len, pieces)) >= _PIECE_BYTES:
                    await self._disk(partial(upload.write, memoryview(b"".join(pieces))))
                    pieces.clear()
        except BaseException:
            await self._disk(upload.abort)
            raise
        await self._finish(upload, name, source, b"".join(pieces))

    async def _finish(self, upload: Upload, name: ObjectName, source: Address, rest: bytes) -> None:
        try:
            await self._disk(partial(upload.write, memoryview(rest)))
            if upload.name != name:
                raise SourceWrong(f"copy '{name.path}' from {source}: its bytes have another size or MD5")
            await self._disk(partial(self._integrity.placed, name, upload.commit_copy))
        except BaseException:
            await self._disk(upload.abort)
            raise
        self._integrity.note_stored(name)
