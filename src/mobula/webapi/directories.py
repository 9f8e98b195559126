"""Directories: put, list, delete; and the account's own listing."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from mobula.core.dates import http_date, iso_ms, parse_date
from mobula.core.errors import ApiError
from mobula.core.media import cors_on_read, kept_headers
from mobula.metadata.model import Entry, Kind, Listing, Metadata, NotFound, Page
from mobula.webapi.context import Context

LISTING_TYPE = "application/x-json-stream; type=directory"
LIMIT_DEFAULT = 256
LIMIT_MAX = 1024
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""mtime of an account's namespaces, which have no record of their own"""


def read_allowed_page(context: Context) -> Page:
    """The page that is asked for; some parameters are the operators'.

    Raises:
        ApiError: QueryParameterForbidden, and what `read_page` raises.
    """
    is_operator = context.caller is not None and context.caller.user is None and context.caller.account.operator
    for name, value in (("sort", "none"), ("skip_owner_check", "true")):
        if context.query.get(name) == value and not is_operator:
            raise ApiError.of("QueryParameterForbidden", name=name)
    return read_page(context.query)


def read_page(values: Mapping[str, str]) -> Page:
    """A page from a query's parameters.

    Raises:
        ApiError: InvalidArgumentError (limit), InvalidParameter (marker).
    """
    text = values.get("limit", str(LIMIT_DEFAULT))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= limit <= LIMIT_MAX:
        raise ApiError.of("InvalidArgumentError", why=f"limit must be between 1 and {LIMIT_MAX}, {text[:20]} was given")
    by_mtime = values.get("sort") == "mtime"
    marker = values.get("marker") or None
    if by_mtime and marker is not None:
        at = parse_date(marker)
        if at is None:
            raise ApiError.of("InvalidParameter", name="marker", found=marker[:80])
        marker = at.isoformat()
    if marker is not None and "\0" in marker:
        raise ApiError.of("InvalidParameter", name="marker", found="a name with NUL")
    only = {
        Kind.DIRECTORY: any(name in values for name in ("dir", "directory")),
        Kind.OBJECT: any(name in values for name in ("obj", "object")),
    }
    chosen = [kind for kind, asked in only.items() if asked]
    return Page(limit, marker, by_mtime, values.get("sort_order") == "reverse", chosen[0] if len(chosen) == 1 else None)


def line(entry: Entry) -> bytes:
    """One entry of a listing, as a line of JSON."""
    value: dict[str, object] = {"name": entry.name, "type": entry.kind.value, "mtime": iso_ms(entry.mtime)}
    if entry.kind == Kind.OBJECT:
        value |= {
            "etag": entry.etag,
            "size": entry.size_bytes,
            "contentType": entry.content_type,
            "contentMD5": base64.b64encode(entry.md5).decode(),
            "durability": entry.copies,
        }
        if "content-disposition" in entry.headers:
            value["contentDisposition"] = entry.headers["content-disposition"]
    return msgspec.json.encode(value) + b"\n"


async def put(context: Context, metadata: Metadata) -> None:
    """``PUT`` with ``application/json; type=directory``; a root directory is there already, and gets these headers."""
    path = context.path
    if path.is_account:
        raise ApiError.of("OperationNotAllowedOnRootDirectory", path=path)
    context.require_parent()
    await context.body(65_536)  # clients may send `{}`; it means nothing
    await store_directory(context, metadata)
    await context.response.send(204, context.cors())


async def store_directory(context: Context, metadata: Metadata) -> Entry:
    """The directory with the request's headers."""
    headers = kept_headers(context.request.headers, directory=True)
    entry = Entry(context.path.name, Kind.DIRECTORY, dt.datetime.now(dt.UTC), headers)
    await metadata.put_directory(context.directory, entry, parent_is_root=context.path.parent.is_root)
    return entry


async def delete(context: Context, metadata: Metadata) -> None:
    """``DELETE`` of a directory that is known to be one."""
    await metadata.delete_directory(context.directory, context.path.name)
    await context.response.send(204)


async def show(context: Context, metadata: Metadata, entry: Entry | None) -> None:
    """``GET`` or ``HEAD``; `entry` None: a root directory that has no record."""
    page = read_allowed_page(context)
    if context.request.method == "HEAD":
        page = Page(limit=1)
    try:
        found = await metadata.list_directory(context.stored, page)
    except NotFound:
        if not context.path.is_root:
            raise
        found = Listing([], 0)
    await _send(context, found.entries, found.total, entry)


async def show_account(context: Context, namespaces: Sequence[str]) -> None:
    """``GET /:login``: its namespaces; here the marker is exclusive."""
    page = read_allowed_page(context)
    names = [n for n in namespaces if page.marker is None or n > page.marker]
    entries = [Entry(name, Kind.DIRECTORY, EPOCH) for name in (reversed(names) if page.reverse else names)]
    await _send(context, entries[: page.limit], len(namespaces), None)


async def _send(context: Context, entries: Sequence[Entry], total: int, entry: Entry | None) -> None:
    headers = [("Content-Type", LISTING_TYPE), ("Result-Set-Size", str(total))]
    headers.append(("Last-Modified", http_date(entry.mtime if entry is not None else EPOCH)))
    if entry is not None:
        cors = cors_on_read(entry.headers, context.header("origin"), context.request.method)
        headers += [(name, value) for name, value in entry.headers.items() if not name.startswith("access-control-")]
        headers += list(cors.items())
        if entry.role_tags:
            headers.append(("role-tag", ", ".join(entry.role_tags)))
    await context.response.send(200, headers, b"".join(map(line, entries)))
