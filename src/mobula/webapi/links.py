"""Snaplinks: a new name for the bytes that another name has now."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from urllib.parse import urlsplit

from mobula.core.accounts import Account
from mobula.core.dates import http_date
from mobula.core.errors import ApiError, unavailable
from mobula.core.paths import InvalidPath, Path, parse
from mobula.metadata.model import Entry, GroupChanged, Kind, Precondition, SourceChanged
from mobula.webapi.auth import authorize
from mobula.webapi.context import Context, Store
from mobula.webapi.objects import (
    COMMIT_PAUSE_S,
    COMMITS_MAX,
    conditions_hold,
    target_is_no_directory,
    target_is_no_root,
)
from mobula.wire.accounts import Accounts

TRIES = 5
"""a source that is being overwritten is looked at again so often"""


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be linked."""

    owner: Account
    path: Path
    entry: Entry

    @property
    def directory(self) -> str:
        return self.path.parent.stored(self.owner.uuid)


def read_location(value: str | None) -> Path:
    """The source's path: of a Location header that is a path or a URL.

    Raises:
        ApiError: LocationRequired, InvalidLink.
    """
    if not value or not value.strip():
        raise ApiError.of("LocationRequired")
    refused = ApiError.of("InvalidLink", path=value[:200])
    try:
        url = urlsplit(value.strip())
        path = parse(url.path.encode("latin-1"))
    except (InvalidPath, ValueError) as error:
        raise refused from error
    if not url.path.startswith("/") or (url.scheme and url.scheme not in {"http", "https"}):
        raise refused
    return path


async def put(context: Context, store: Store, accounts: Accounts) -> None:
    """``PUT`` with ``application/json; type=link``. Conditions are those of the source."""
    path = read_location(context.header("location"))
    for _ in range(TRIES):
        source = await _find(context, store, accounts, path)
        conditions_hold(context, source.entry)
        target_is_no_root(context)
        target_is_no_directory(context)
        context.require_parent()
        await context.body(65_536)
        try:
            await _link(context, store, source)
        except SourceChanged:
            continue
        entry = source.entry
        answer = [("Etag", entry.etag), ("Last-Modified", http_date(entry.mtime)), *context.cors()]
        await context.response.send(204, answer)
        return
    raise unavailable(f"{path} changes faster than it can be linked; try again")


async def _find(context: Context, store: Store, accounts: Accounts, path: Path) -> Source:
    """The source, if it is an object that the caller may read.

    Raises:
        ApiError: SourceObjectNotFound, LinkNotObject, AuthorizationFailed.
    """
    missing = ApiError.of("SourceObjectNotFound", path=path)
    owner = await accounts.get(path.login)
    if owner is None:
        raise missing
    if path.is_root:
        raise ApiError.of("LinkNotObject", path=path)
    entry = (await store.metadata.lookup(path.parent.stored(owner.uuid), path.name)).entry
    if entry is None:
        raise missing
    authorize(context.caller, owner, "GET", path)
    if entry.kind != Kind.OBJECT:
        raise ApiError.of("LinkNotObject", path=path)
    if entry.lost:
        raise ApiError.of("ObjectLost", path=path)
    return Source(owner, path, entry)


async def _link(context: Context, store: Store, source: Source) -> None:
    headers = dict(source.entry.headers)
    if context.path.namespace == "public":
        headers.setdefault("access-control-allow-origin", "*")
    entry = dataclasses.replace(source.entry, name=context.path.name, headers=headers, role_tags=(), reference=None)
    parent_is_root = context.path.parent.is_root
    if not entry.size_bytes:  # no bytes, nothing to share
        await store.metadata.put_object(
            context.directory, entry, group_epoch=0, precondition=Precondition(), parent_is_root=parent_is_root
        )
        return
    groups = await store.metadata.groups()
    for left in reversed(range(COMMITS_MAX)):
        epoch = next((group.epoch for group in groups if group.id == entry.group), 0)
        try:
            await store.metadata.link_object(
                source.directory,
                source.entry,
                context.directory,
                entry,
                group_epoch=epoch,
                parent_is_root=parent_is_root,
            )
        except GroupChanged:  # the bytes stay where they are; the change reaches the shards one after the other
            if not left:
                raise
            await asyncio.sleep(COMMIT_PAUSE_S)
            groups = await store.metadata.groups(fresh=True)
        else:
            return
