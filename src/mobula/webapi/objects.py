"""Objects: put, get, head, delete, put metadata."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from mobula.core import conditions as preconditions
from mobula.core.dates import http_date
from mobula.core.errors import ApiError, unavailable
from mobula.core.media import acceptable, content_type, cors_on_read, kept_headers
from mobula.core.ranges import ByteRange, RangeNotSatisfiable, SeveralRanges, parse_range
from mobula.metadata.model import (
    COMMIT_DEADLINE_S,
    Entry,
    Group,
    Kind,
    Lookup,
    Metadata,
    Precondition,
    StorageServer,
)
from mobula.proto.put import Abort, Accept, Commit, Effect, Open, Put, Reply, State
from mobula.webapi.context import Context
from mobula.webapi.placement import StorageDirectory, address_of, choose
from mobula.wire.http_client import RequestFailed
from mobula.wire.http_exchange import BodyMalformed, BodyTimeout
from mobula.wire.storage_client import CopyWriter, StorageClient, StorageError, StorageUnavailable, StoredCopy

log = structlog.get_logger()

COPIES_DEFAULT = 2
COPIES_MAX = 6
STREAMED_BYTES_MAX = 51_200 << 20
"""of a body that does not say its length"""
WHOLE_BYTES = 64 * 1024
"""bodies of known length up to here are taken whole, then stored in one go"""
SMALL_BYTES = 256 * 1024
"""from here on bodies stream in a thread"""
EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).digest()
UPLOAD_IDLE_S = 45


@dataclass(slots=True)
class Store:
    """What the handlers of objects work with."""

    metadata: Metadata
    storage: StorageClient
    directory: StorageDirectory
    az: str
    pick: random.Random


@dataclass(frozen=True, slots=True)
class Wish:
    """What a PUT asks for, checked."""

    copies: int
    content_md5: bytes | None
    size_bytes: int | None
    most_bytes: int
    conditions: preconditions.Conditions

    @property
    def precondition(self) -> Precondition:
        """The part that must hold when the entry is written."""
        return Precondition(self.conditions.match, self.conditions.none_match)


# PUT: the steps before a byte is taken, in the order in which the contract reports failures.


def parent_is_there(context: Context, found: Lookup) -> None:
    """404 DirectoryDoesNotExist comes before everything but authentication."""
    if not found.directory_exists and not context.path.parent.is_root:
        raise ApiError.of("DirectoryDoesNotExist", path=context.path.parent)


def conditions_hold(context: Context, found: Lookup) -> preconditions.Conditions:
    """Conditional headers, against the current object."""
    wanted = preconditions.parse(context.header)
    current = found.entry if found.entry is not None and found.entry.kind == Kind.OBJECT else None
    preconditions.check(wanted, current.etag if current else None, current.mtime if current else None, reading=False)
    return wanted


def target_is_no_root(context: Context) -> None:
    """Accounts and namespaces are no objects."""
    if context.path.is_root:
        raise ApiError.of("OperationNotAllowedOnRootDirectory", path=context.path)


def target_is_no_directory(context: Context, found: Lookup) -> None:
    """An object never replaces a directory."""
    if found.entry is not None and found.entry.kind == Kind.DIRECTORY:
        raise ApiError.of("OperationNotAllowedOnDirectory", path=context.path)


def read_wish(context: Context, conditions: preconditions.Conditions) -> Wish:
    """Copies, length, MD5 and limits of a PUT.

    Raises:
        ApiError: InvalidDurabilityLevel, BadRequestError (Content-MD5), InvalidMaxContentLength, MaxContentLengthExceeded.
    """
    text = context.header("durability-level") or context.header("x-durability-level") or str(COPIES_DEFAULT)
    copies = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= copies <= COPIES_MAX:
        raise ApiError.of("InvalidDurabilityLevel", most=COPIES_MAX)
    most_bytes = STREAMED_BYTES_MAX
    limit = context.header("max-content-length")
    if limit is not None:
        if not (limit.isascii() and limit.isdigit() and len(limit) < 19):
            raise ApiError.of("InvalidMaxContentLength", found=limit[:40])
        most_bytes = int(limit)
    request = context.request
    size_bytes = None if request.chunked else request.content_length or 0
    if size_bytes is not None and limit is not None and size_bytes > most_bytes:
        raise ApiError.of("MaxContentLengthExceeded", most=most_bytes)
    return Wish(copies, read_md5(context.header("content-md5")), size_bytes, most_bytes, conditions)


def read_md5(value: str | None) -> bytes | None:
    """A Content-MD5 header's 16 bytes.

    Raises:
        ApiError: BadRequestError.
    """
    if value is None:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != len(EMPTY_MD5):
        raise ApiError.of("BadRequestError", why=f"Content-MD5 {value[:60]!r} is not the base64 of 16 bytes")
    return digest


async def put(context: Context, store: Store) -> None:
    """``PUT`` of an object: copies first, metadata last and once."""
    target_is_no_root(context)
    found = await store.metadata.lookup(context.directory, context.path.name)
    parent_is_there(context, found)
    conditions = conditions_hold(context, found)
    wish = read_wish(context, conditions)
    target_is_no_directory(context, found)
    headers = kept_headers(context.request.headers, directory=False)
    if context.path.namespace == "public":
        headers.setdefault("access-control-allow-origin", "*")
    if wish.size_bytes == 0:
        stored = StoredCopy(0, EMPTY_MD5)
        _check_md5(wish, stored)
        upload = None
    else:
        groups = choose(
            await store.metadata.groups(), store.directory.rooms, wish.copies, wish.size_bytes or 0, store.pick
        )
        upload = Upload(context, store, wish, groups)
        stored = await upload.receive()
    entry = Entry(
        name=context.path.name, kind=Kind.OBJECT, mtime=dt.datetime.now(dt.UTC), headers=headers, etag=str(uuid.uuid4()),
        size_bytes=stored.size_bytes, md5=stored.md5, content_type=content_type(context.header("content-type")),
        object_id=upload.object_id if upload else uuid.uuid4(), account=context.owner.uuid,
        group=upload.group.id if upload and stored.size_bytes else 0, copies=wish.copies if stored.size_bytes else 0,
    )  # fmt: skip
    await store.metadata.put_object(
        context.directory, entry, group_epoch=upload.group.epoch if upload else 0, precondition=wish.precondition,
        parent_is_root=context.path.parent.is_root,
    )  # fmt: skip
    if upload:
        upload.machine.committed()
    answer = [
        ("Etag", entry.etag), ("Last-Modified", http_date(entry.mtime)), ("Computed-MD5", base64.b64encode(entry.md5).decode()),
    ]  # fmt: skip
    origin = context.header("origin")
    await context.response.send(204, [*answer, *([("Access-Control-Allow-Origin", origin)] if origin else [])])


def _check_md5(wish: Wish, stored: StoredCopy) -> None:
    if wish.content_md5 is not None and wish.content_md5 != stored.md5:
        wanted, found = (base64.b64encode(d).decode() for d in (wish.content_md5, stored.md5))
        raise ApiError.of("ContentMD5Mismatch", wanted=wanted, found=found)


class Upload:
    """Drives one `proto.put` machine: opens copies, moves the body to all of them at once, waits until each is on disk."""

    def __init__(self, context: Context, store: Store, wish: Wish, groups: list[Group]) -> None:
        self._context = context
        self._store = store
        self._wish = wish
        self._writers: dict[str, CopyWriter] = {}
        self._whole: Sequence[StorageServer] = ()
        """who has stored a copy in one go"""
        self._began_s = time.monotonic()
        self._digest = hashlib.md5(usedforsecurity=False)
        self._hashed = True
        """`_digest` is the body's"""
        self._size_bytes = 0
        self.object_id = uuid.uuid4()
        self.machine = Put(wish.copies, groups)

    @property
    def group(self) -> Group:
        """Where the copies are."""
        assert self.machine.group is not None  # noqa: S101
        return self.machine.group

    async def receive(self) -> StoredCopy:
        """Take the body; returns when every copy is on disk.

        Raises:
            ApiError: what the client did wrong, or 503 when no group would take it, or a copy was lost on the way.
        """
        try:
            if self._wish.size_bytes is not None and self._wish.size_bytes <= WHOLE_BYTES:
                await self._take_whole()
            else:
                await self._open(self.machine.begin())
                await self._stream()
                await self._finish()
            stored = StoredCopy(self._size_bytes, self.machine.md5)
            _check_md5(self._wish, stored)
            if time.monotonic() - self._began_s > COMMIT_DEADLINE_S / 2:
                raise unavailable("the upload took longer than its copies may wait for their entry")
            if not self._size_bytes:
                await self._discard()  # a body of unknown length that turned out empty: such an object has no copies
        except BaseException:
            self.machine.abandoned("ended before its commit")
            await self._discard()
            raise
        return stored

    async def _take_whole(self) -> None:
        """Body first, then one round trip per copy; a server that refuses or fails costs another try, as the bytes are at hand."""
        with self._body_errors():
            body = await self._context.request.body(WHOLE_BYTES)
        self._count(body)
        _check_md5(self._wish, StoredCopy(len(body), self._digest.digest()))
        todo = list(self.machine.begin())
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Open):
                todo += await self._store_whole(effect, body)
            elif isinstance(effect, Reply):
                raise unavailable(f"no storage server took the object: {effect.failure}")
            elif isinstance(effect, Commit):
                return

    async def _store_whole(self, effect: Open, body: bytes) -> list[Effect]:
        self.object_id = uuid.uuid4()  # used once: a server of the last try may have that one
        account = str(self._context.owner.uuid)
        results = await asyncio.gather(
            *(
                self._store.storage.put(
                    address_of(server), account, str(self.object_id), body, request_id=self._context.request.request_id
                )
                for server in effect.servers
            ),
            return_exceptions=True,
        )
        outcomes = dict(zip(effect.servers, results, strict=True))
        stored = {server: result for server, result in outcomes.items() if isinstance(result, StoredCopy)}
        refused = self._refusal(outcomes)
        if refused:
            await self._delete_copies(list(stored), self._digest.digest())
            return self.machine.copy_refused(*refused)
        self._whole = effect.servers
        for server in effect.servers:
            self.machine.copy_opened(server.id)
        self.machine.body_ended(self._size_bytes, self._digest.digest())
        effects: list[Effect] = []
        for server, copy in stored.items():
            if self.machine.state == State.STORING:
                effects += self.machine.copy_stored(server.id, copy.size_bytes, copy.md5)
        return effects

    def _refusal(self, outcomes: Mapping[StorageServer, object]) -> tuple[str, str] | None:
        """A server that was asked and did not do it, with its reason; what is no storage server's word is raised."""
        refused: tuple[str, str] | None = None
        for server, result in outcomes.items():
            if isinstance(result, StorageError):
                refused = (server.id, str(result))
                if isinstance(result, StorageUnavailable):
                    self._store.directory.suspect(server.id)
            elif isinstance(result, BaseException):
                raise result
        if refused:
            log.warning("storage server refused a copy", server=refused[0], why=refused[1])
        return refused

    async def _open(self, effects: list[Effect]) -> None:
        """Until all servers of one group are ready, or the tries are used up."""
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Open):
                todo += await self._open_group(effect)
            elif isinstance(effect, Abort):
                self._abort()
            elif isinstance(effect, Reply):
                raise unavailable(f"no storage server took the object: {effect.failure}")
            elif isinstance(effect, Accept):
                return

    async def _open_group(self, effect: Open) -> list[Effect]:
        results = await asyncio.gather(*(self._open_copy(server) for server in effect.servers), return_exceptions=True)
        outcomes = dict(zip(effect.servers, results, strict=True))
        self._writers.update({s.id: result for s, result in outcomes.items() if isinstance(result, CopyWriter)})
        refused = self._refusal(outcomes)
        if refused:
            self._abort()
            return self.machine.copy_refused(*refused)
        out: list[Effect] = []
        for server in effect.servers:
            out += self.machine.copy_opened(server.id)
        return out

    async def _open_copy(self, server: StorageServer) -> CopyWriter:
        return await self._store.storage.open_put(
            address_of(server), str(self._context.owner.uuid), str(self.object_id), self._wish.size_bytes,
            request_id=self._context.request.request_id,
        )  # fmt: skip

    @contextlib.contextmanager
    def _body_errors(self) -> Iterator[None]:
        """What can go wrong while the body comes, as the API says it."""
        try:
            yield
        except BodyTimeout as error:
            raise ApiError.of("UploadTimeout", seconds=UPLOAD_IDLE_S) from error
        except BodyMalformed as error:
            raise ApiError.of("BadRequestError", why=str(error)) from error
        except (StorageError, RequestFailed) as error:
            raise self._lost(error) from error

    async def _stream(self) -> None:
        with self._body_errors():
            size = self._wish.size_bytes
            if size is not None and size > SMALL_BYTES:
                await self._stream_in_thread()
            else:
                async for chunk in self._context.request.chunks():
                    self._count(chunk)
                    await asyncio.gather(*(writer.write(chunk) for writer in self._writers.values()))

    async def _stream_in_thread(self) -> None:
        writers = [await writer.thread_writer() for writer in self._writers.values()]
        # Each server hashes what it got; where two or more do, their agreement says what a third hash here would.
        self._hashed = len(writers) < 2

        def consume(piece: memoryview) -> None:
            for write in writers:
                write(piece)
            if self._hashed:
                self._digest.update(piece)
            self._size_bytes += len(piece)

        await self._context.request.receive_into(consume)

    def _count(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes > self._wish.most_bytes:
            raise ApiError.of("MaxContentLengthExceeded", most=self._wish.most_bytes)
        self._digest.update(chunk)

    async def _finish(self) -> None:
        results = await asyncio.gather(*(w.finish() for w in self._writers.values()), return_exceptions=True)
        copies = [result for result in results if isinstance(result, StoredCopy)]
        md5 = copies[0].md5 if copies and not self._hashed else self._digest.digest()
        self.machine.body_ended(self._size_bytes, md5)
        effects: list[Effect] = []
        for server, result in zip(self._writers, results, strict=True):
            if isinstance(result, StoredCopy) and self.machine.state == State.STORING:
                effects += self.machine.copy_stored(server, result.size_bytes, result.md5)
            elif isinstance(result, BaseException):
                raise self._lost(result) if isinstance(result, StorageError) else result
        if not any(isinstance(effect, Commit) for effect in effects):
            raise unavailable(f"the copies could not be stored: {self.machine.why}")

    def _lost(self, error: BaseException) -> ApiError:
        log.warning("copy lost while it was written", why=str(error))
        return unavailable(f"a copy was lost while it was written: {error}")

    def _abort(self) -> None:
        for writer in self._writers.values():
            writer.abort()
        self._writers.clear()

    async def _discard(self) -> None:
        """Drop what the servers have, as far as they can be asked; what stays is swept, as no entry names it."""
        servers = [*self._whole, *(s for s in self.machine.servers if s.id in self._writers)]
        self._abort()
        if self.machine.md5:
            await self._delete_copies(servers, self.machine.md5)

    async def _delete_copies(self, servers: Sequence[StorageServer], digest: bytes) -> None:
        account = str(self._context.owner.uuid)
        for server in servers:
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._store.storage.delete(
                        address_of(server), account, str(self.object_id), self._size_bytes, digest
                    )


async def put_metadata(context: Context, store: Store) -> None:
    """``PUT ?metadata=true``: all stored headers are replaced; data and etag stay."""
    request = context.request
    if context.path.is_account:
        raise ApiError.of("OperationNotAllowedOnRootDirectory", path=context.path)
    for name in ("content-md5", "durability-level"):
        if context.header(name) is not None:
            raise ApiError.of("InvalidUpdate", name=name)
    if request.content_length:
        raise ApiError.of("InvalidUpdate", name="content-length")
    await request.body(65_536)
    found = await store.metadata.lookup(context.directory, context.path.name)
    if found.entry is None:
        raise ApiError.of("ResourceNotFound", path=context.path)
    wanted = conditions_hold(context, found)
    is_directory = found.entry.kind == Kind.DIRECTORY
    kind = context.header("content-type")
    changed = await store.metadata.put_metadata(
        context.directory, context.path.name, headers=kept_headers(request.headers, directory=is_directory), role_tags=(),
        content_type=content_type(kind) if kind else None, precondition=Precondition(wanted.match, wanted.none_match),
    )  # fmt: skip
    etag = [] if is_directory else [("Etag", changed.etag)]
    await context.response.send(204, [*etag, ("Last-Modified", http_date(changed.mtime))])


async def delete(context: Context, store: Store, found: Lookup) -> None:
    """``DELETE`` of an object that is known to be one."""
    wanted = conditions_hold(context, found)
    precondition = Precondition(wanted.match, wanted.none_match)
    await store.metadata.delete_object(context.directory, context.path.name, precondition=precondition)
    await context.response.send(204)


def response_headers(entry: Entry, context: Context) -> list[tuple[str, str]]:
    """What GET and HEAD say of an object, without what depends on the range."""
    headers = [
        ("Etag", entry.etag), ("Last-Modified", http_date(entry.mtime)), ("Content-Type", entry.content_type),
        ("Durability-Level", str(entry.copies)),
    ]  # fmt: skip
    headers += [(name, value) for name, value in entry.headers.items() if not name.startswith("access-control-")]
    headers += cors_on_read(entry.headers, context.header("origin"), context.request.method).items()
    if entry.role_tags:
        headers.append(("role-tag", ", ".join(entry.role_tags)))
    return headers


async def show(context: Context, store: Store, entry: Entry) -> None:
    """``GET`` or ``HEAD``."""
    response = context.response
    wanted = preconditions.parse(context.header)
    if preconditions.check(wanted, entry.etag, entry.mtime, reading=True):
        await response.send(304, [("Etag", entry.etag), ("Last-Modified", http_date(entry.mtime))])
        return
    if not acceptable(context.header("accept"), entry.content_type):
        raise ApiError.of("NotAcceptable", type=entry.content_type)
    headers = response_headers(entry, context)
    part = _read_range(context, entry)
    whole = ByteRange(0, entry.size_bytes - 1)
    if part is None:
        headers.append(("Content-MD5", base64.b64encode(entry.md5).decode()))
        if entry.size_bytes and context.request.method == "GET":
            headers.append(("Accept-Ranges", "bytes"))
    else:
        headers.append(("Content-Range", part.content_range(entry.size_bytes)))
    status, size_bytes = (200, entry.size_bytes) if part is None else (206, part.size_bytes)
    if context.request.method == "HEAD" or not entry.size_bytes:
        await response.start(status, headers, size_bytes)
        await response.finish()
        return
    await send_copy(context, store, entry, part or whole, lambda: response.start(status, headers, size_bytes))


def _read_range(context: Context, entry: Entry) -> ByteRange | None:
    header = context.header("range")
    if header is None:
        return None
    try:
        return parse_range(header, entry.size_bytes)
    except SeveralRanges as error:
        raise ApiError.of("NotImplemented", what="a request for several ranges") from error
    except RangeNotSatisfiable as error:
        size = (("Content-Range", f"bytes */{entry.size_bytes}"),)
        raise ApiError.of("RequestedRangeNotSatisfiable", found=header[:80], headers=size) from error


async def send_copy(context: Context, store: Store, entry: Entry, part: ByteRange, start: Callable[[], object]) -> None:
    """The bytes of an object from any of its copies; when one fails, also in mid-body, the next one from the byte where it stopped.

    Raises:
        ApiError: no copy can be read, before the first byte.
        StorageUnavailable: no copy can be read any more, after it (the connection is then cut: the client sees a short body).
    """
    response = context.response
    servers = await _copies(store, entry)
    why = "its placement group is not known"
    for server in servers:
        left = ByteRange(part.first + response.sent_bytes, part.last)
        whole = left.size_bytes == entry.size_bytes
        try:
            async with await store.storage.open_get(
                address_of(server), str(entry.account), str(entry.object_id), entry.size_bytes, entry.md5,
                part=None if whole else left, request_id=context.request.request_id,
            ) as reader:  # fmt: skip
                if not response.started:
                    await start()  # type: ignore[misc]
                await reader.relay_to(response)
            await response.finish()
        except StorageError as error:
            why = f"{server.id}: {error}"
            log.warning("copy can't be read", object_id=str(entry.object_id), server=server.id, why=str(error))
        else:
            return
    if response.started:
        raise StorageUnavailable(f"send {entry.object_id}: {why}")
    raise unavailable(f"no copy of the object can be read now: {why}", retry_after_s=5)


async def _copies(store: Store, entry: Entry) -> list[StorageServer]:
    """Who has copies: those that answer first, the own AZ's before others."""
    group = next((g for g in await store.metadata.groups() if g.id == entry.group), None)
    servers = group.servers[: entry.copies] if group else ()
    return sorted(servers, key=lambda s: (s.id not in store.directory.rooms, s.az != store.az))
