"""What a job's inputs are: their accounts, whether the job's owner may read them, which bytes they have, and who has copies of those.

Source: the compute contract, sections "Inputs and dispatch" and "Access control".
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from mobula.core.accounts import Account
from mobula.core.errors import ApiError
from mobula.core.groups import Group
from mobula.core.job_names import MalformedName, normalised
from mobula.core.paths import Path
from mobula.jobs.lead import Located
from mobula.metadata.jobs import Cleared, Item, Job, JobError, Owner, Version
from mobula.metadata.model import Entry, Kind, Metadata, Precondition, Refusal, Unavailable
from mobula.wire.accounts import Accounts

PUBLIC = "public"


class RegionPlaces:
    """`Places` of a region."""

    def __init__(self, metadata: Metadata, accounts: Accounts) -> None:
        self._metadata = metadata
        self._accounts = accounts
        self._groups: dict[int, Group] = {}

    async def follow(self) -> bool:
        before, self._groups = self._groups, {group.id: group for group in await self._metadata.groups()}
        return self._groups != before

    def hosts(self, version: Version) -> Sequence[str]:
        group = self._groups.get(version.group)
        return [server.id for server in group.servers[: version.copies]] if group is not None else []

    async def delete(self, job: Job, cleared: Sequence[Cleared]) -> None:
        """`clearing.Deletes`: an entry that is another object's by now, or a directory, stays, and who overwrites it meanwhile wins."""
        await asyncio.gather(*(self._delete(job.owner.account, one) for one in cleared))

    async def _delete(self, account: uuid.UUID, one: Cleared) -> None:
        login, *names = one.name[1:].split("/")
        path = Path(login, tuple(names))
        directory = path.parent.stored(account)
        entry = (await self._metadata.lookup(directory, path.name)).entry
        if entry is None or not is_still(entry, one):
            return
        with contextlib.suppress(Refusal):  # it is gone, or another one's
            await self._metadata.delete_object(directory, path.name, precondition=Precondition((entry.etag,)))

    async def locate(self, job: Job, phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        try:
            owner = await self._accounts.by_uuid(job.owner.account)
            found = await asyncio.gather(*(self._locate(job.owner, owner, phase, item) for item in items))
        except ApiError as error:
            raise Unavailable(f"look up accounts: {error.message}") from error
        if any(isinstance(one, Located) and one.version and one.version.group not in self._groups for one in found):
            await self.follow()
        return found

    async def _locate(self, owner: Owner, account: Account | None, phase: int, item: Item) -> Located | JobError:
        def error(code: str, message: str) -> JobError:
            return JobError(phase, code, message, item.name, item.first_input)

        try:
            name = normalised(item.name)
        except MalformedName as malformed:
            return error("ResourceNotFoundError", str(malformed))
        login, *names = name[1:].split("/")
        path = Path(login, tuple(names))
        entry = await self._entry(path)
        if entry is None:
            return error("ResourceNotFoundError", f'no such object: "{name}"')
        if not may_read(owner, account, path, entry.owner):
            return error("AuthorizationError", f'permission denied: "{name}"')
        if entry.found.kind == Kind.DIRECTORY:
            return error("InvalidArgumentError", f'objects of type "directory" are not supported: "{name}"')
        return Located(name, _version(entry.found))

    async def _entry(self, path: Path) -> _Found | None:
        if path.is_root:
            return None
        account = await self._accounts.get(path.login)
        if account is None or any(part in {".", ".."} or "\0" in part for part in path.names):
            return None
        found = await self._metadata.lookup(path.parent.stored(account.uuid), path.name)
        return _Found(account.uuid, found.entry) if found.entry is not None else None


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry, and whose it is."""

    owner: uuid.UUID
    found: Entry


def may_read(owner: Owner, account: Account | None, path: Path, whose: uuid.UUID) -> bool:
    """Whether a job of that owner may read what is there: its own, what is public, an operator everything. Sub-users have no roles yet."""
    if path.namespace == PUBLIC:
        return True
    return owner.user is None and account is not None and (whose == owner.account or account.operator)


def is_still(entry: Entry, one: Cleared) -> bool:
    """What was handed on is what is there."""
    if entry.kind != Kind.OBJECT:
        return False
    return not entry.size_bytes if one.object_id is None else entry.object_id == one.object_id


def _version(entry: Entry) -> Version | None:
    if not entry.size_bytes or entry.account is None or entry.object_id is None:
        return None
    return Version(entry.account, entry.object_id, entry.size_bytes, entry.md5, entry.group, entry.copies)
