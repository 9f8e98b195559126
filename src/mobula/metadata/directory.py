"""Accounts and their keys, on shard 1: made and changed here, followed by the authcaches."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mobula.core.accounts import Account, check_login
from mobula.core.keys import load_public_key
from mobula.metadata.model import NotFound
from mobula.metadata.store import PostgresMetadata

SHARD = 1
SYSTEM_LOGIN = "poseidon"
"""an operator without keys: what the region does for itself is done in its name"""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts (all, or those that changed), and the number of the newest change when they were read."""

    newest: int
    accounts: Sequence[Account]


class Directory:
    """Schema `directory`. Raises Unavailable and OutcomeUnknown as all of the metadata tier does; every write may be repeated."""

    def __init__(self, metadata: PostgresMetadata) -> None:
        self._metadata = metadata

    async def _row(self, sql: str, *args: object, writes: bool) -> Any:
        return (await self._metadata.call(SHARD, sql, *args, writes=writes))[0]

    async def read(self, after: int | None = None) -> Accounts:
        """All accounts, or those with a change numbered above `after`."""
        row = await self._row("SELECT * FROM directory.accounts($1)", after, writes=False)
        return Accounts(row["newest"], msgspec.convert(json.loads(row["accounts"]), list[Account]))

    async def create(self, login: str, email: str, *, operator: bool) -> tuple[bool, uuid.UUID]:
        """Make an account unless it is there: (made now, its uuid). Raises InvalidLogin."""
        row = await self._row(
            "SELECT * FROM directory.create_account($1, $2, $3, $4)",
            uuid.uuid4(),
            check_login(login),
            email,
            operator,
            writes=True,
        )
        return row["changed"], row["uuid"]

    async def system_account(self) -> uuid.UUID:
        """The account in whose name the region does its own work, made unless it is there."""
        _, found = await self.create(SYSTEM_LOGIN, "", operator=True)
        return found

    async def add_key(self, login: str, text: str) -> tuple[bool, str]:
        """Give an account a public key: (added now, its MD5 fingerprint). Raises InvalidKey, NotFound (no such account)."""
        key = load_public_key(text)
        row = await self._row(
            "SELECT * FROM directory.add_key($1, $2, $3, $4, $5)", login, key.fingerprint_md5, key.fingerprint_sha256, key.pem,
            key.comment, writes=True,
        )  # fmt: skip
        if row["uuid"] is None:
            raise NotFound(f"add a key to account {login!r}: there is no such account; create it first")
        return row["changed"], key.fingerprint_md5

    async def create_user(self, account: str, login: str) -> tuple[bool, uuid.UUID]:
        """Make a sub-user unless it is there: (made now, its uuid). Raises InvalidLogin, NotFound (no such account)."""
        sql = "SELECT * FROM directory.create_sub_user($1, $2, $3)"
        row = await self._row(sql, uuid.uuid4(), account, check_login(login), writes=True)
        if row["uuid"] is None:
            raise NotFound(f"create user {login!r} of account {account!r}: there is no such account; create it first")
        return row["changed"], row["uuid"]

    async def add_user_key(self, account: str, login: str, text: str) -> tuple[bool, str]:
        """Give a sub-user a public key: (added now, its MD5 fingerprint). Raises InvalidKey, NotFound (no such sub-user)."""
        key = load_public_key(text)
        row = await self._row(
            "SELECT * FROM directory.add_sub_user_key($1, $2, $3, $4, $5, $6)", account, login, key.fingerprint_md5,
            key.fingerprint_sha256, key.pem, key.comment, writes=True,
        )  # fmt: skip
        if row["uuid"] is None:
            raise NotFound(
                f"add a key to user {login!r} of account {account!r}: there is no such user; create it first"
            )
        return row["changed"], key.fingerprint_md5

    async def remove_key(self, login: str, fingerprint_md5: str) -> bool:
        """Take a key from an account; whether it was there. Raises NotFound (no such account)."""
        row = await self._row("SELECT * FROM directory.remove_key($1, $2)", login, fingerprint_md5, writes=True)
        if row["uuid"] is None:
            raise NotFound(f"remove a key of account {login!r}: there is no such account")
        return bool(row["changed"])
