"""What an account is, and which logins it may have."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

import msgspec

_LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9_.@%-]{0,62}")


class InvalidLogin(ValueError):
    """The text can't be a login; the message says why."""


class User(msgspec.Struct, frozen=True):
    """A sub-user of an account: `keys` are public keys (PEM) by MD5 fingerprint."""

    uuid: uuid.UUID
    login: str
    keys: Mapping[str, str]


class Account(msgspec.Struct, frozen=True):
    """An account as an authcache answers it: `keys` are public keys (PEM) by MD5 fingerprint, `users` sub-users by login."""

    uuid: uuid.UUID
    login: str
    approved: bool
    operator: bool
    keys: Mapping[str, str]
    users: Mapping[str, User] = msgspec.field(default_factory=dict)

    def knows(self, fingerprint: str, user: str | None = None) -> bool:
        """A key of that fingerprint is the account's, or that sub-user's."""
        if user is None:
            return fingerprint in self.keys
        return user in self.users and fingerprint in self.users[user].keys


class Caller(msgspec.Struct, frozen=True):
    """Who sends a request: an account, or a sub-user of it; `job`: one of its jobs does so, or (`archives`) who archives that job."""

    account: Account
    user: User | None = None
    job: uuid.UUID | None = None
    archives: bool = False

    def __str__(self) -> str:
        return f"{self.account.login}/{self.user.login}" if self.user else self.account.login


def check_login(login: str) -> str:
    """The login, if it may be one: a letter, then letters, digits and ``_ . @ % -``, 63 at most.

    Raises:
        InvalidLogin: it may not.
    """
    if not _LOGIN.fullmatch(login):
        raise InvalidLogin(
            f"use login {login[:80]!r}: a login is a letter, then letters, digits and any of _ . @ % -, at most 63 characters"
        )
    return login
