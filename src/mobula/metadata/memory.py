"""The metadata tier in memory: what the tests of its users run on. Held to PostgreSQL's by one contract suite."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mobula.metadata.model import (
    DirectoryFull,
    DirectoryMissing,
    DirectoryNotEmpty,
    Entry,
    Group,
    GroupChanged,
    IsDirectory,
    Kind,
    Listing,
    Lookup,
    NotFound,
    Page,
    ParentNotDirectory,
    Precondition,
    PreconditionFailed,
    SourceChanged,
    StorageServer,
)
from mobula.metadata.paths import is_root, split
from mobula.metadata.placement import plan_groups

ENTRIES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that no entry names any more."""

    entry: Entry


def refused(current: Entry | None, precondition: Precondition) -> bool:
    """The precondition forbids the write on what is there now."""
    any_of, none_of = precondition.any_of, precondition.none_of
    if any_of is not None and not any_of and current is not None:
        return True
    if any_of and (current is None or not ("*" in any_of or current.etag in any_of)):
        return True
    return none_of is not None and current is not None and ("*" in none_of or current.etag in none_of)


class MemoryMetadata:
    """All directories in one dict; every call is atomic because nothing in it awaits."""

    def __init__(self, storages: Sequence[StorageServer] = (), *, entries_max: int = ENTRIES_MAX) -> None:
        self._directories: dict[str, dict[str, Entry]] = {}
        self._active: set[str] = set()
        self._entries_max = entries_max
        self._groups = {n: Group(n, 1, servers) for n, servers in enumerate(plan_groups(storages), 1)}
        self.garbage: list[Garbage] = []
        self.released: list[Garbage] = []
        self.references: dict[uuid.UUID, set[uuid.UUID]] = {}
        """of bytes that have, or had, several names"""

    def move_group(self, group: int) -> None:
        """Give a group its next epoch, as a repair would."""
        self._groups[group] = replace(self._groups[group], epoch=self._groups[group].epoch + 1)

    def replace_pools(self) -> None:
        """Every server has an empty pool from now on, as after repairs that found nobody else."""
        for group in list(self._groups.values()):
            servers = tuple(replace(server, generation=server.generation + 1) for server in group.servers)
            self._groups[group.id] = Group(group.id, group.epoch + 1, servers)

    def lose(self, directory: str, name: str) -> None:
        """Mark an object as lost, as a repair would."""
        self._directories[directory][name] = replace(self._directories[directory][name], lost=True)

    async def lookup(self, directory: str, name: str) -> Lookup:
        exists = is_root(directory) or directory in self._active
        return Lookup(self._directories.get(directory, {}).get(name), exists)

    def _check_parent(self, directory: str, *, is_root: bool) -> None:
        if is_root or directory in self._active:
            return
        above, name = split(directory)
        found = self._directories.get(above, {}).get(name)
        if found is not None and found.kind == Kind.OBJECT:
            raise ParentNotDirectory(directory)
        raise DirectoryMissing(directory)

    async def put_object(
        self, directory: str, entry: Entry, *, group_epoch: int, precondition: Precondition, parent_is_root: bool
    ) -> None:
        self._check_parent(directory, is_root=parent_is_root)
        current = self._directories.get(directory, {}).get(entry.name)
        if current is not None and current.kind == Kind.DIRECTORY:
            raise IsDirectory(entry.name)
        if refused(current, precondition):
            raise PreconditionFailed(entry.name)
        if entry.size_bytes and (entry.group not in self._groups or self._groups[entry.group].epoch != group_epoch):
            raise GroupChanged(str(entry.group))
        self._store(directory, entry, current)

    def _store(self, directory: str, entry: Entry, current: Entry | None) -> None:
        entries = self._directories.setdefault(directory, {})
        if current is None and len(entries) >= self._entries_max:
            raise DirectoryFull(directory)
        self._discard(current)
        entries[entry.name] = entry

    def _discard(self, entry: Entry | None) -> None:
        if entry is not None and entry.kind == Kind.OBJECT and entry.size_bytes:
            (self.garbage if entry.reference is None else self.released).append(Garbage(entry))

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
        number, reference = source.object_id, uuid.uuid4()
        current = self._directories.get(source_directory, {}).get(source.name)
        if number is None or current is None or current.object_id != number:
            raise SourceChanged(f"{source_directory}/{source.name}")
        self.references.setdefault(number, {number}).add(reference)
        self._directories[source_directory][source.name] = replace(current, reference=current.reference or number)
        linked = replace(entry, reference=reference)
        await self.put_object(
            directory, linked, group_epoch=group_epoch, precondition=Precondition(), parent_is_root=parent_is_root
        )

    async def put_metadata(
        self,
        directory: str,
        name: str,
        *,
        headers: Mapping[str, str],
        role_tags: Sequence[str],
        content_type: str | None,
        precondition: Precondition,
    ) -> Entry:
        current = self._directories.get(directory, {}).get(name)
        if current is None:
            raise NotFound(name)
        if refused(current, precondition):
            raise PreconditionFailed(name)
        kept = current.content_type if content_type is None or current.kind == Kind.DIRECTORY else content_type
        changed = replace(
            current, headers=dict(headers), role_tags=tuple(role_tags), content_type=kept, mtime=dt.datetime.now(dt.UTC)
        )
        self._directories[directory][name] = changed
        return changed

    async def delete_object(self, directory: str, name: str, *, precondition: Precondition) -> None:
        current = self._directories.get(directory, {}).get(name)
        if current is None:
            raise NotFound(name)
        if current.kind == Kind.DIRECTORY:
            raise IsDirectory(name)
        if refused(current, precondition):
            raise PreconditionFailed(name)
        self._discard(current)
        del self._directories[directory][name]

    async def put_directory(self, directory: str, entry: Entry, *, parent_is_root: bool) -> None:
        self._check_parent(directory, is_root=parent_is_root)
        current = self._directories.get(directory, {}).get(entry.name)
        same = current is not None and current.kind == Kind.DIRECTORY
        if not (
            same and current and dict(current.headers) == dict(entry.headers) and current.role_tags == entry.role_tags
        ):
            self._store(directory, entry, current)
        self._active.add(f"{directory}/{entry.name}")

    async def delete_directory(self, directory: str, name: str) -> None:
        path = f"{directory}/{name}"
        if path not in self._active:
            raise NotFound(path)
        if self._directories.get(path):
            raise DirectoryNotEmpty(path)
        self._active.discard(path)
        self._directories.pop(path, None)
        del self._directories[directory][name]

    async def list_directory(self, path: str, page: Page) -> Listing:
        entries = self._directories.get(path, {})
        if path not in self._active and not entries:
            raise NotFound(path)
        found = [e for e in entries.values() if page.kind in (None, e.kind)]
        if page.by_mtime:
            found.sort(key=lambda e: e.name)
            found.sort(key=lambda e: e.mtime, reverse=not page.reverse)
        else:
            found.sort(key=lambda e: e.name.encode(), reverse=page.reverse)
        if page.marker is not None:
            found = [e for e in found if _from_marker(e, page, page.marker)]
        return Listing(found[: page.limit], len(entries))

    async def groups(self, *, fresh: bool = False) -> Sequence[Group]:  # noqa: ARG002 (always of now)
        return list(self._groups.values())


def _from_marker(entry: Entry, page: Page, marker: str) -> bool:
    if page.by_mtime:
        at = dt.datetime.fromisoformat(marker)
        mtime = entry.mtime.replace(microsecond=entry.mtime.microsecond // 1000 * 1000)
        return mtime >= at if page.reverse else mtime <= at
    name, wanted = entry.name.encode(), marker.encode()
    return name <= wanted if page.reverse else name >= wanted
