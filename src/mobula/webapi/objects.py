"""Objects: put, get, head, delete, put metadata."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import uuid
from functools import partial

from mobula.core import conditions as preconditions
from mobula.core.dates import http_date
from mobula.core.errors import ApiError
from mobula.core.media import (
    acceptable,
    content_type,
    cors_on_read,
    is_directory_type,
    is_link_type,
    kept_headers,
)
from mobula.core.ranges import ByteRange, RangeNotSatisfiable, SeveralRanges, parse_range
from mobula.metadata.model import (
    Entry,
    Group,
    GroupChanged,
    Kind,
    MetadataError,
    OutcomeUnknown,
    Precondition,
)
from mobula.webapi.context import Context, Store
from mobula.webapi.directories import store_directory
from mobula.webapi.download import Download
from mobula.webapi.placement import choose
from mobula.webapi.upload import WHOLE_BYTES, Upload, Wish, check_md5
from mobula.wire.storage_client import StoredCopy

COPIES_DEFAULT = 2
COPIES_MAX = 6
COMMITS_MAX = 8
COMMIT_PAUSE_S = 0.25
STREAMED_BYTES_MAX = 51_200 << 20
"""of a body that does not say its length"""
EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).digest()


# PUT: the steps before a byte is taken, in the order in which the contract reports failures.


def conditions_hold(context: Context, current: Entry | None) -> Precondition:
    """Conditional headers hold for the current object; what must still hold when the entry is written.

    Raises:
        ApiError: PreconditionFailed.
    """
    wanted = preconditions.parse(context.header)
    found = current if current is not None and current.kind == Kind.OBJECT else None
    preconditions.check(wanted, found.etag if found else None, found.mtime if found else None, reading=False)
    match = wanted.match
    if match is None and found is not None and (wanted.modified_since or wanted.unmodified_since):
        match = (found.etag,)  # a date holds as long as the version that was looked at
    return Precondition(match, wanted.none_match)


def target_is_no_root(context: Context) -> None:
    """Accounts and namespaces are no objects."""
    if context.path.is_root:
        raise ApiError.of("OperationNotAllowedOnRootDirectory", path=context.path)


def target_is_no_directory(context: Context) -> None:
    """An object never replaces a directory."""
    if context.found.entry is not None and context.found.entry.kind == Kind.DIRECTORY:
        raise ApiError.of("OperationNotAllowedOnDirectory", path=context.path)


def read_wish(context: Context) -> Wish:
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
    return Wish(copies, read_md5(context.header("content-md5")), size_bytes, most_bytes)


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


def admit(context: Context) -> tuple[Precondition, Wish]:
    """All of these steps."""
    precondition = conditions_hold(context, context.found.entry)
    target_is_no_root(context)
    wish = read_wish(context)
    target_is_no_directory(context)
    context.require_parent()
    return precondition, wish


def needs_no_look(context: Context) -> bool:
    """A PUT whose body is so small that it is taken before anything is known, unless its sender waits to be told to send it."""
    request = context.request
    kind = context.header("content-type")
    return (
        request.method == "PUT"
        and not request.chunked
        and (request.content_length or 0) <= WHOLE_BYTES
        and not request.expects_continue
        and not preconditions.parse(context.header).any
        and not context.query.get("metadata")
        and not is_directory_type(kind)
        and not is_link_type(kind)
    )


async def put(context: Context, store: Store) -> None:
    """``PUT`` of an object: copies first, metadata last and once."""
    precondition, wish = admit(context)
    headers = kept_headers(context.request.headers, directory=False)
    if context.path.namespace == "public":
        headers.setdefault("access-control-allow-origin", "*")
    if wish.size_bytes == 0:
        stored = StoredCopy(0, EMPTY_MD5)
        check_md5(wish, stored)
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
    try:
        await _commit(context, store, entry, precondition, upload.group if upload else None)
    except MetadataError as error:
        if upload and not isinstance(error, OutcomeUnknown):
            upload.machine.commit_refused(str(error))
            await upload.discard()
        raise
    if upload:
        upload.machine.committed()
    answer = [
        ("Etag", entry.etag), ("Last-Modified", http_date(entry.mtime)), ("Computed-MD5", base64.b64encode(entry.md5).decode()),
    ]  # fmt: skip
    await context.response.send(204, [*answer, *context.cors()])


async def _commit(
    context: Context, store: Store, entry: Entry, precondition: Precondition, group: Group | None
) -> None:
    """Write the entry. Raises MetadataError.

    A group that was given other servers meanwhile is no reason to refuse an object whose copies lie on those that it kept. A change
    reaches the shards one after the other, so the epoch of now is asked for some times.
    """
    put = partial(
        store.metadata.put_object, context.directory, entry, precondition=precondition,
        parent_is_root=context.path.parent.is_root,
    )  # fmt: skip
    epoch = group.epoch if group else 0
    for _ in range(COMMITS_MAX):
        try:
            await put(group_epoch=epoch)
        except GroupChanged:
            now = next((g for g in await store.metadata.groups(fresh=True) if group and g.id == group.id), None)
            if group is None or now is None or now.servers[: entry.copies] != group.servers[: entry.copies]:
                raise
            if now.epoch == epoch:
                await asyncio.sleep(COMMIT_PAUSE_S)
            epoch = now.epoch
        else:
            return
    raise GroupChanged(str(entry.group))


async def put_metadata(context: Context, store: Store) -> None:
    """``PUT ?metadata=true``: all stored headers are replaced; data and etag stay."""
    request, entry = context.request, context.found.entry
    is_directory = context.path.is_root or (entry is not None and entry.kind == Kind.DIRECTORY)
    precondition = Precondition() if is_directory else conditions_hold(context, entry)
    if context.path.is_account:
        raise ApiError.of("OperationNotAllowedOnRootDirectory", path=context.path)
    for name in ("content-md5", "durability-level", "x-durability-level"):
        if context.header(name) is not None:
            raise ApiError.of("InvalidUpdate", name=name)
    if request.content_length:
        raise ApiError.of("InvalidUpdate", name="content-length")
    await context.body(65_536)
    if entry is None:  # a root directory without a record
        changed = await store_directory(context, store.metadata)
    else:
        kind = context.header("content-type")
        changed = await store.metadata.put_metadata(
            context.directory, context.path.name, headers=kept_headers(request.headers, directory=is_directory), role_tags=(),
            content_type=content_type(kind) if kind else None, precondition=precondition,
        )  # fmt: skip
    etag = [] if is_directory else [("Etag", changed.etag)]
    await context.response.send(204, [*etag, ("Last-Modified", http_date(changed.mtime)), *context.cors()])


async def delete(context: Context, store: Store) -> None:
    """``DELETE`` of an object that is known to be one."""
    precondition = conditions_hold(context, context.found.entry)
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
    if entry.lost:
        raise ApiError.of("ObjectLost", path=context.path)
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
    await Download(context, store, entry, part or whole, lambda: response.start(status, headers, size_bytes)).send()


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
