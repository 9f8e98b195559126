"""Values, outcomes and the interface of the metadata tier.

Paths inside this package begin with the account's uuid: ``/<uuid>/stor/a``. A directory's children live
together with the directory's own row, on the shard of its vnode: ``first 4 bytes of md5(path) mod 4096``.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mobula.core.groups import Group as Group  # noqa: PLC0414 (part of this tier's interface)
from mobula.core.groups import StorageServer as StorageServer  # noqa: PLC0414

VNODES = 4096
COMMIT_DEADLINE_S = 6 * 3600
"""a file that no entry names is swept when it is older than this; a PUT is not committed past half of it"""


class Kind(enum.StrEnum):
    OBJECT = "object"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory. For a directory only name, kind, mtime, headers and role_tags mean anything."""

    name: str
    kind: Kind
    mtime: dt.datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    role_tags: tuple[str, ...] = ()
    etag: str = ""
    size_bytes: int = 0
    md5: bytes = b""
    content_type: str = ""
    object_id: uuid.UUID | None = None
    account: uuid.UUID | None = None
    """whose folder on the storage hosts holds the bytes (a snaplink may point to another account's)"""
    group: int = 0
    """placement group, 0 for an empty object"""
    copies: int = 0
    reference: uuid.UUID | None = None
    """the bytes have, or had, other names too: this one's number among them; None for bytes that were never linked"""
    lost: bool = False
    """the last copy went with a pool: there are no bytes to be had any more"""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one round trip says about a name: its entry, and the state of the directory that would hold it."""

    entry: Entry | None
    directory_exists: bool
    """the directory is active (a root directory always is)"""


@dataclass(frozen=True, slots=True)
class Precondition:
    """Makes a write atomic: it is applied only if the current etag is one of these.

    ``any_of`` None = no condition; ``()`` = no object may be there; ``("*",)`` = any object must be there.
    ``none_of`` likewise: the current etag must not be one of these.
    """

    any_of: tuple[str, ...] | None = None
    none_of: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    limit: int = 256
    marker: str | None = None
    """inclusive; a name, or with by_mtime an ISO time"""
    by_mtime: bool = False
    """newest first instead of by name ascending"""
    reverse: bool = False
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    entries: Sequence[Entry]
    total: int
    """all entries of the directory, whatever limit, marker and filter"""
    mtime: dt.datetime | None = None


class MetadataError(Exception):
    """Base of what the metadata tier answers instead of a value."""


class Unavailable(MetadataError):
    """Can't be decided now; nothing happened. -> 503"""


class OutcomeUnknown(MetadataError):
    """Sent, and no answer: the write may have happened. -> 503"""


class Refusal(MetadataError):
    """Decided: nothing happened, because of what is there."""


class DirectoryMissing(Refusal):
    """The directory that should hold the name does not exist."""


class ParentNotDirectory(Refusal):
    """The directory that should hold the name is an object."""


class IsDirectory(Refusal):
    """An object was to be written over a directory, or deleted as one."""


class NotFound(Refusal):
    """No such entry."""


class PreconditionFailed(Refusal):
    """The current entry does not meet the precondition."""


class SourceChanged(Refusal):
    """What was to be linked is not there any more, or is another version."""


class GroupChanged(Refusal):
    """The placement group has another epoch than the one under which the bytes were streamed."""


class DirectoryNotEmpty(Refusal):
    """rmdir of a directory that has entries."""


class DirectoryFull(Refusal):
    """The directory holds its 1,000,000 entries."""


class Metadata(Protocol):
    """By which services reach the shards. Every call ends within `deadline_s` (default 10 s) or raises Unavailable or OutcomeUnknown."""

    async def lookup(self, directory: str, name: str) -> Lookup: ...

    async def put_object(
        self, directory: str, entry: Entry, *, group_epoch: int, precondition: Precondition, parent_is_root: bool
    ) -> None:
        """Insert or replace; the replaced object's bytes become a garbage row in the same transaction."""

    async def link_object(
        self,
        source_directory: str,
        source: Entry,
        directory: str,
        entry: Entry,
        *,
        group_epoch: int,
        parent_is_root: bool,
    ) -> None:
        """Put an entry that names the bytes of `source`, which is in `source_directory` and not empty.

        Raises SourceChanged, and what put_object raises.
        """

    async def put_metadata(
        self,
        directory: str,
        name: str,
        *,
        headers: Mapping[str, str],
        role_tags: Sequence[str],
        content_type: str | None,
        precondition: Precondition,
    ) -> Entry: ...

    async def delete_object(self, directory: str, name: str, *, precondition: Precondition) -> None: ...

    async def put_directory(self, directory: str, entry: Entry, *, parent_is_root: bool) -> None:
        """Idempotent; an object of that name is replaced by the directory."""

    async def delete_directory(self, directory: str, name: str) -> None: ...

    async def list_directory(self, path: str, page: Page) -> Listing:
        """Raises NotFound if the directory doesn't exist (a root directory always does: the caller says so by catching)."""

    async def groups(self, *, fresh: bool = False) -> Sequence[Group]:
        """All placement groups, as known a while ago; `fresh`: as they are now, or Unavailable."""
