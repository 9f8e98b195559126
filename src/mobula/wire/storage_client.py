"""Client of the storage servers: puts, gets and deletes copies of objects (the protocol: architecture.md section 7)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

import msgspec

from mobula.core.capability import HEADER, LISTING, Grant, sign
from mobula.core.clock import Clock
from mobula.core.groups import StorageServer
from mobula.core.ranges import ByteRange
from mobula.wire.http_client import (
    Address,
    AnsweredEarly,
    ClientResponse,
    HttpClient,
    RequestFailed,
    Upload,
)
from mobula.wire.http_exchange import Response
from mobula.wire.http_message import Pairs
from mobula.wire.relay import relay

ANSWER_S = 4.0
"""for a server to say yes, no, or the first byte of a copy: the same can be had elsewhere"""
COPY_BYTES_PER_S = 1 << 20
"""a copy from server to server that is slower than this is given up"""
COPY_BOUND_S = 60.0
"""and one of however few bytes after this"""
_LIFE_S = 3600
"""of a capability: longer than any transfer waits to begin, shorter than a key's"""


class StorageError(Exception):
    """Base of what a storage server, or the way to it, answers instead of a copy."""


class StorageUnavailable(StorageError):
    """The server can't be reached, is out of order, or stopped in the middle: try another one."""


class StorageFull(StorageError):
    """The server has no room: try another group."""


class CopyMissing(StorageError):
    """The server doesn't have this copy."""


class SourceMissing(StorageError):
    """The server that was to give a copy to another one doesn't have it."""


class SourceWrong(StorageError):
    """The server that was to give a copy to another one has other bytes than the object's."""


class SourceUnavailable(StorageError):
    """The server that was to give a copy to another one can't be asked now."""


class CopyExists(StorageError):
    """The server has an object of this id already."""


class StorageRefused(StorageError):
    """The server doesn't let us: our key or our request is wrong."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """What a server has on disk, fsynced."""

    size_bytes: int
    md5: bytes


@dataclass(frozen=True, slots=True)
class CopyName:
    """What a copy of an object is called on every server that has one."""

    account: str
    object_id: str
    size_bytes: int
    md5: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `<account>/<object id>.<size>.<md5>`. Raises ValueError."""
        account, _, file = text.partition("/")
        object_id, size, md5 = file.split(".")
        return cls(str(uuid.UUID(account)), str(uuid.UUID(object_id)), int(size), bytes.fromhex(md5))

    def __str__(self) -> str:
        return f"{self.account}/{self.object_id}.{self.size_bytes}.{self.md5.hex()}"


class StorageCapacity(msgspec.Struct, frozen=True):
    """Part of a storage server's /status."""

    healthy: bool
    size_bytes: int = 0
    available_bytes: int = 0
    why: str = ""
    wrong_copies: tuple[str, ...] = ()
    """files that were put aside because their bytes were wrong, and wait to be mended (some of them if they are many)"""


class StoredFile(msgspec.Struct, frozen=True):
    """An object file on a storage server, as its name and its times say."""

    account: str
    object_id: str
    size_bytes: int
    md5: str
    age_s: int
    """since anything of it changed, by that server's clock"""


class FilePage(msgspec.Struct, frozen=True):
    """A part of a storage server's files. `next` asks for the one after it; empty: this was the last."""

    files: tuple[StoredFile, ...]
    looked_at: int
    next: str


class CopyWriter:
    """One copy being written. End it by `finish` or `abort`."""

    def __init__(self, server: Address, upload: Upload) -> None:
        self.server = server
        self._upload = upload

    async def write(self, data: bytes) -> None:
        """Returns when the server has room for more. Raises StorageError."""
        try:
            await self._upload.write(data)
        except AnsweredEarly:
            await self.finish()
            raise StorageUnavailable(f"store a copy on {self.server}: answered before it had all of it") from None
        except RequestFailed as error:
            raise StorageUnavailable(f"store a copy on {self.server}: {error}") from error

    async def thread_writer(self) -> Callable[[memoryview], None]:
        """A blocking `write` for one thread (see `Request.receive_into`); it raises RequestFailed; then `abort`."""
        try:
            return await self._upload.thread_writer()
        except RequestFailed as error:
            raise StorageUnavailable(f"store a copy on {self.server}: {error}") from error

    async def finish(self) -> StoredCopy:
        """The end of the bytes; the copy is safe when this returns. Raises StorageError."""
        try:
            return await _stored(self.server, await self._upload.response())
        except RequestFailed as error:
            raise StorageUnavailable(f"store a copy on {self.server}: {error}") from error

    def abort(self) -> None:
        """The server drops what it has."""
        self._upload.abort()


class CopyReader:
    """A copy, or a part of it, arriving. Use `async with`."""

    def __init__(self, server: Address, response: ClientResponse) -> None:
        self.server = server
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises StorageUnavailable when the server stops in the middle: go on elsewhere from there."""
        try:
            async for chunk in self._response.chunks():
                yield chunk
        except RequestFailed as error:
            raise StorageUnavailable(f"read a copy on {self.server}: {error}") from error

    async def relay_to(self, response: Response) -> None:
        """Send all of it to a client whose response was started. Raises StorageUnavailable, ClientAborted.

        After StorageUnavailable `response.sent_bytes` tells where to go on from another copy.
        """
        try:
            await relay(self._response, response)
        except RequestFailed as error:
            raise StorageUnavailable(f"read a copy on {self.server}: {error}") from error

    async def close(self) -> None:
        await self._response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def address_of(server: StorageServer) -> Address:
    """Where a storage server listens."""
    return Address(server.address, server.port)


class StorageClient:
    """Speaks for `caller` (a host name), signing with `key`."""

    def __init__(self, http: HttpClient, *, key: bytes, caller: str, clock: Clock) -> None:
        self._http = http
        self._key = key
        self._caller = caller
        self._clock = clock

    async def open_put(
        self, server: Address, account: str, object_id: str, size_bytes: int | None, *, request_id: str = ""
    ) -> CopyWriter:
        """Ask a server to take a copy; when this returns it does, and no byte was sent yet. Raises StorageError."""
        headers = self._headers("PUT", object_id, size_bytes, request_id)
        target = f"/objects/{account}/{object_id}"
        with _answers(f"store a copy on {server}"):
            async with asyncio.timeout(ANSWER_S):
                upload = await self._http.open(server, "PUT", target, headers=headers, content_length=size_bytes)
            writer = CopyWriter(server, upload)
            if upload.answered and size_bytes != 0:
                await writer.finish()
                raise StorageUnavailable(f"store a copy on {server}: answered before it had any of it")
            return writer

    async def put(
        self, server: Address, account: str, object_id: str, data: bytes, *, request_id: str = ""
    ) -> StoredCopy:
        """Store a small object's copy in one go. Raises StorageError.

        Sent again when a kept connection was dead: an id is used once, so the worst that comes of it is CopyExists.
        """
        headers = self._headers("PUT", object_id, len(data), request_id)
        return await _stored(server, await self._ask(server, "PUT", f"{account}/{object_id}", headers, data))

    async def open_get(
        self,
        server: Address,
        account: str,
        object_id: str,
        size_bytes: int,
        md5: bytes,
        *,
        part: ByteRange | None = None,
        request_id: str = "",
    ) -> CopyReader:
        """Begin to read a copy, or `part` of it. Raises StorageError."""
        headers = self._headers("GET", object_id, size_bytes, request_id)
        if part is not None:
            headers.append(("Range", f"bytes={part.first}-{part.last}"))
        response = await self._ask(server, "GET", f"{account}/{object_id}.{size_bytes}.{md5.hex()}", headers)
        expected = size_bytes if part is None else part.size_bytes
        if response.status != (200 if part is None else 206) or response.content_length != expected:
            raise await _refusal(server, "read a copy", response)
        return CopyReader(server, response)

    async def delete(
        self, server: Address, account: str, object_id: str, size_bytes: int, md5: bytes, *, request_id: str = ""
    ) -> None:
        """Raises CopyMissing and other StorageError."""
        headers = self._headers("DELETE", object_id, size_bytes, request_id)
        response = await self._ask(server, "DELETE", f"{account}/{object_id}.{size_bytes}.{md5.hex()}", headers)
        if response.status != 204:
            raise await _refusal(server, "delete a copy", response)
        await response.body()

    async def list_files(self, server: Address, *, after: str, older_s: int) -> FilePage:
        """Of the server's files those of the next page that are older than that; begin with an empty `after`. Raises StorageError."""
        target = f"/objects?{urlencode({'after': after, 'older_s': older_s})}"
        try:
            response = await self._http.request(server, "GET", target, headers=self._headers("GET", LISTING, None, ""))
            if response.status != 200:
                raise await _refusal(server, "list files", response)
            return msgspec.json.decode(await response.body(4 << 20), type=FilePage)
        except (RequestFailed, msgspec.MsgspecError) as error:
            raise StorageUnavailable(f"list files on {server}: {error}") from error

    async def holds(self, server: Address, name: CopyName) -> bool:
        """The server has a file of this name. Raises StorageError."""
        headers = self._headers("HEAD", name.object_id, name.size_bytes, "")
        response = await self._ask(server, "HEAD", str(name), headers)
        await response.close()
        if response.status not in (200, 404):
            raise await _refusal(server, "look for a copy", response)
        return response.status == 200

    async def copy(self, server: Address, name: CopyName, source: Address) -> bool:
        """Let a server fetch another one's copy; it is verified and lasts when this returns. False: it had a right one already.

        May be asked again whatever came of it. Raises SourceMissing, SourceWrong, SourceUnavailable (about `source`), CopyExists (the
        server is receiving it now) and other StorageError (about `server`).
        """
        readable = Grant("GET", name.object_id, name.size_bytes, int(self._clock.now_s()) + _LIFE_S, self._caller)
        headers = [
            *self._headers("POST", name.object_id, name.size_bytes, ""),
            ("x-mobula-source", str(source)), ("x-mobula-source-capability", sign(self._key, readable)),
        ]  # fmt: skip
        bound_s = COPY_BOUND_S + name.size_bytes / COPY_BYTES_PER_S
        response = await self._ask(server, "POST", str(name), headers, bound_s=bound_s)
        if response.status != 200:
            raise await _refusal(server, f"copy from {source}", response, _COPY_REFUSALS)
        await response.close()
        return response.headers.get("x-mobula-copy") != "present"

    async def capacity(self, server: Address) -> StorageCapacity:
        """Raises StorageUnavailable."""
        try:
            response = await self._http.request(server, "GET", "/status")
            return msgspec.json.decode(await response.body(), type=StorageCapacity)
        except (RequestFailed, msgspec.DecodeError) as error:
            raise StorageUnavailable(f"ask {server} for its capacity: {error}") from error

    def drop(self, server: Address) -> None:
        """The server is known to be gone: whoever waits for it fails now, with StorageUnavailable."""
        self._http.drop(server)

    def _headers(self, method: str, object_id: str, size_bytes: int | None, request_id: str) -> list[tuple[str, str]]:
        expires_s = int(self._clock.now_s()) + _LIFE_S
        headers = [(HEADER, sign(self._key, Grant(method, object_id, size_bytes, expires_s, self._caller)))]
        if request_id:
            headers.append(("x-request-id", request_id))
        return headers

    async def _ask(
        self,
        server: Address,
        method: str,
        name: str,
        headers: Pairs,
        body: bytes = b"",
        *,
        bound_s: float | None = None,
    ) -> ClientResponse:
        with _answers(f"{method} a copy on {server}"):
            async with asyncio.timeout(bound_s or ANSWER_S):
                return await self._http.request(
                    server, method, f"/objects/{name}", headers=headers, body=body, repeatable=method != "DELETE"
                )


@contextlib.contextmanager
def _answers(what: str) -> Iterator[None]:
    """A server that can't be asked, or does not answer in time, as one error."""
    try:
        yield
    except RequestFailed as error:
        raise StorageUnavailable(f"{what}: {error}") from error
    except TimeoutError as error:
        raise StorageUnavailable(f"{what}: no answer in time") from error


async def _stored(server: Address, response: ClientResponse) -> StoredCopy:
    if response.status != 204:
        raise await _refusal(server, "store a copy", response)
    await response.close()
    size, md5 = response.headers.get("x-object-size") or "", response.headers.get("x-object-md5") or ""
    try:
        return StoredCopy(int(size), bytes.fromhex(md5))
    except ValueError as error:
        raise StorageUnavailable(f"store a copy on {server}: it says size {size!r}, md5 {md5!r}") from error


_REFUSALS: Mapping[int, type[StorageError]] = {
    400: StorageRefused, 403: StorageRefused, 404: CopyMissing, 409: CopyExists, 507: StorageFull,
}  # fmt: skip
_COPY_REFUSALS = {**_REFUSALS, 404: SourceMissing, 422: SourceWrong, 424: SourceUnavailable}


async def _refusal(
    server: Address, tried: str, response: ClientResponse, kinds: Mapping[int, type[StorageError]] = _REFUSALS
) -> StorageError:
    """The error that a response other than the wanted one stands for."""
    try:
        body = (await response.body(64 * 1024)).decode(errors="replace")
    except RequestFailed as error:
        body = str(error)
    return kinds.get(response.status, StorageUnavailable)(f"{tried} on {server}: {response.status} {body}")
