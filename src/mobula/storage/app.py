"""The object server of a storage host: takes, gives and deletes object files (the protocol: architecture.md section 7)."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import msgspec

from mobula.core import log
from mobula.core.capability import HEADER, LISTING, CapabilityRefused, verify
from mobula.core.clock import Clock, SystemClock
from mobula.core.ranges import ByteRange, RangeNotSatisfiable, SeveralRanges, parse_range
from mobula.storage.commits import Commits
from mobula.storage.config import StorageConfig
from mobula.storage.copying import (
    SOURCE,
    SOURCE_CAPABILITY,
    Copying,
    SourceMissing,
    SourceRefused,
    SourceUnavailable,
    SourceWrong,
    read_source,
)
from mobula.storage.disk import Disk
from mobula.storage.files import (
    CAPACITY_AGE_S,
    NameRefused,
    NoSpace,
    ObjectExists,
    ObjectFiles,
    ObjectMissing,
    ObjectName,
    Upload,
    check_id,
)
from mobula.storage.integrity import Found, Integrity
from mobula.storage.listing import MarkerRefused, Walk
from mobula.storage.verifier import Verifier
from mobula.wire.http_client import HttpClient, Timeouts
from mobula.wire.http_exchange import LARGE_BYTES, Request, Response

_SMALL_BYTES = 64 * 1024
"""stored in one go, and sent from memory when the kernel has it there"""
_PIECE_BYTES = 1 << 20
_SILENT_S = 10.0
"""a pool that has not told its capacity for so long is out of order"""

_ANSWERS: dict[type[Exception], tuple[int, str]] = {
    NameRefused: (400, "InvalidObjectName"),
    MarkerRefused: (400, "InvalidMarker"),
    CapabilityRefused: (403, "CapabilityRefused"),
    ObjectMissing: (404, "ObjectNotFound"),
    ObjectExists: (409, "ObjectExists"),
    NoSpace: (507, "NotEnoughSpace"),
    SourceRefused: (400, "InvalidSource"),
    SourceMissing: (404, "SourceMissing"),
    SourceWrong: (422, "SourceWrong"),
    SourceUnavailable: (424, "SourceUnavailable"),
    RangeNotSatisfiable: (416, "RequestedRangeNotSatisfiable"),
    SeveralRanges: (501, "NotImplemented"),
}


class ObjectServer:
    """mobula.wire.service.Service."""

    def __init__(self, config: StorageConfig, files: ObjectFiles, clock: Clock) -> None:
        self._keys = config.keys()
        self._files = files
        self._commits = Commits(files)
        self._walk = Walk(files.root)
        self._clock = clock
        self._watch: asyncio.Task[None] | None = None
        self._pool_error = ""
        self._disk = Disk()
        self._integrity = Integrity(files)
        self._verifier = Verifier(
            files, self._integrity, bytes_per_s=config.verify_bytes_per_s, round_s=config.verify_round_s,
            settle_s=config.verify_settle_s,
        )  # fmt: skip
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=30.0))
        self._copying = Copying(files, self._commits, self._integrity, self._disk, self._http)

    async def start(self) -> None:
        removed = await self._disk(self._files.start)
        restored = await self._disk(self._commits.start)
        await self._disk(self._integrity.start)
        log.get_logger().info("data directory ready", unfinished_uploads_removed=removed, files_restored=restored)
        self._watch = asyncio.create_task(self._watch_pool())
        self._verifier.start()

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._http.close()
        await self._disk(self._verifier.stop)
        await self._disk(self._commits.stop)
        self._disk.stop()

    async def _watch_pool(self) -> None:
        """Know the capacity without asking a pool that may hang, and know when it hangs."""
        while True:
            try:
                await self._disk(self._files.read_capacity)
                self._pool_error = ""
            except OSError as error:
                self._pool_error = f"read the pool's capacity: {error.strerror}"
            await asyncio.sleep(CAPACITY_AGE_S / 2)

    def status(self) -> Mapping[str, object]:
        capacity = self._files.capacity
        why = self._pool_error or self._commits.trouble
        if capacity.age_s > _SILENT_S:
            why = why or f"the pool has not answered for {capacity.age_s:.0f} s"
        return {
            "healthy": not why,
            "why": why,
            "size_bytes": capacity.size_bytes,
            "available_bytes": capacity.available_bytes,
            "verification": self._verifier.status(),
            "quarantined": self._integrity.aside_count,
            "wrong_copies": self._integrity.aside,
        }

    async def handle(self, request: Request, response: Response) -> None:
        try:
            await self._route(request, response)
        except tuple(_ANSWERS) as error:
            status, code = _ANSWERS[type(error)]
            await response.send_error(status, code, str(error))

    async def _route(self, request: Request, response: Response) -> None:
        parts = request.path.decode("latin-1").split("/")
        if request.path == b"/objects" and request.method == "GET":
            await self._list(request, response)
        elif len(parts) != 4 or parts[1] != "objects":
            await response.send_error(404, "ResourceNotFound", f"{'/'.join(parts)} was not found")
        elif request.method == "PUT":
            await self._put(request, response, parts[2], parts[3])
        elif request.method in ("GET", "HEAD", "DELETE", "POST"):
            name = ObjectName.parse(parts[2], parts[3])
            self._authorise(request, name.object_id, name.size_bytes)
            if request.method == "POST":
                await self._copy(request, response, name)
            elif request.method == "DELETE":
                await self._delete(name)
                await response.send(204)
            else:
                await self._get(request, response, name)
        else:
            await response.send_error(405, "MethodNotAllowed", f"{request.method} is not for objects")

    async def _delete(self, name: ObjectName) -> None:
        if self._integrity.keeps(name):
            await self._disk(partial(self._integrity.forget, name))
        if self._commits.holds(name):
            await self._commits.delete(name)
        else:
            await self._disk(partial(self._files.delete, name))

    async def _list(self, request: Request, response: Response) -> None:
        """A page of the object files that are older than asked for, for whoever looks for those that nothing names."""
        self._authorise(request, LISTING, None)
        query = parse_qs(request.query)
        after, older_s = query.get("after", [""])[-1], query.get("older_s", ["0"])[-1]
        if not older_s.isascii() or not older_s.isdigit() or len(older_s) > 12:
            raise MarkerRefused(f"list files older than {older_s[:40]!r}: a number of seconds is needed")
        page = await self._disk(partial(self._walk.page, after, older_s=int(older_s)))
        await response.send(200, [("Content-Type", "application/json")], msgspec.json.encode(page))

    def _authorise(self, request: Request, object_id: str, size_bytes: int | None) -> None:
        verify(
            self._keys, request.headers.get(HEADER), request.method, object_id, size_bytes, now_s=self._clock.now_s()
        )

    async def _put(self, request: Request, response: Response, account: str, object_id: str) -> None:
        check_id(account, object_id)
        announced_bytes = None if request.chunked else request.content_length or 0
        self._authorise(request, object_id, announced_bytes)
        if announced_bytes is not None and announced_bytes <= _SMALL_BYTES and not request.expects_continue:
            body = await request.body(_SMALL_BYTES)
            name = await self._commits.put(account, object_id, body)
        else:
            name = await self._receive(request, account, object_id, announced_bytes)
        await response.send(204, [("x-object-size", str(name.size_bytes)), ("x-object-md5", name.md5)])

    async def _receive(self, request: Request, account: str, object_id: str, announced_bytes: int | None) -> ObjectName:
        upload = await self._disk(partial(self._files.create, account, object_id, announced_bytes))
        try:
            await request.receive_into(upload.write)
            return await self._disk(partial(self._commit, upload))
        except BaseException:
            await self._disk(upload.abort)
            raise

    def _commit(self, upload: Upload) -> ObjectName:
        name = upload.commit()
        self._integrity.note_stored(name)
        return name

    async def _copy(self, request: Request, response: Response, name: ObjectName) -> None:
        source = read_source(request.headers.get(SOURCE))
        capability = request.headers.get(SOURCE_CAPABILITY) or ""
        stored = await self._copying.copy(name, source, capability, request.request_id)
        await response.send(200, [("x-mobula-copy", "stored" if stored else "present")])

    async def _get(self, request: Request, response: Response, name: ObjectName) -> None:
        part = ByteRange(0, name.size_bytes - 1)
        headers = [("Content-Type", "application/octet-stream")]
        status, wanted = 200, request.headers.get("range")
        if wanted is not None:
            try:
                part = parse_range(wanted, name.size_bytes)
            except RangeNotSatisfiable as error:
                await self._find(name)
                unsatisfied = [("Content-Range", f"bytes */{name.size_bytes}")]
                await response.send_error(416, "RequestedRangeNotSatisfiable", str(error), unsatisfied)
                return
            status, headers = 206, [*headers, ("Content-Range", part.content_range(name.size_bytes))]
        if request.method == "HEAD":
            await self._find(name)
            await response.start(status, headers, part.size_bytes)
            await response.finish()
            return
        if name.size_bytes <= _SMALL_BYTES:
            data = await self._small(name)
            await response.send(status, headers, data[part.first : part.last + 1])
            return
        fd, is_right = await self._disk(partial(self._integrity.open, name))
        try:
            if is_right and part.size_bytes < LARGE_BYTES:
                data = await self._disk(partial(os.pread, fd, part.size_bytes, part.first))
                await response.send(status, headers, data)
            elif (
                is_right or status == 206
            ):  # of a part of a large file that nobody has read yet, only the verifier knows
                await response.send_file(status, headers, fd, part.first, part.size_bytes)
            else:
                await self._send_hashed(response, headers, fd, name)
        finally:
            await self._disk(partial(os.close, fd))

    async def _small(self, name: ObjectName) -> bytes:
        """A small object's bytes, which are right."""
        if self._files.reads_without_waiting:
            data = self._files.read_cached(name)
            if data is not None and self._integrity.is_right(name, data):
                return data
        return await self._disk(partial(self._integrity.read, name))

    async def _send_hashed(self, response: Response, headers: list[tuple[str, str]], fd: int, name: ObjectName) -> None:
        """Hash a large file while it is sent; the last piece goes out only if all were right."""
        before = await self._disk(partial(os.fstat, fd))
        digest, at, held = hashlib.md5(usedforsecurity=False), 0, b""

        def read() -> bytes:
            piece = os.pread(fd, _PIECE_BYTES, at)
            digest.update(piece)
            return piece

        await response.start(200, headers, name.size_bytes)
        while (piece := await self._disk(read)) and at + len(piece) <= name.size_bytes:
            await response.write(held)
            held, at = piece, at + len(piece)
        at += len(piece)
        found = await self._disk(partial(self._integrity.judge, name, fd, before, at, digest.hexdigest()))
        if found is not Found.RIGHT:
            return  # the connection is cut, as the answer is not whole
        await response.write(held)
        await response.finish()

    async def _find(self, name: ObjectName) -> None:
        if not await self._disk(partial(self._files.exists, name)):
            raise ObjectMissing(f"read '{name.path}': no such file")


def build(config: StorageConfig) -> ObjectServer:
    """Raises OSError, ValueError for keys that can't be read."""
    return ObjectServer(config, ObjectFiles(Path(config.data_dir), fill_max=config.fill_max), SystemClock())
