"""What an account is, and which logins it may have."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

import msgspec

_LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9_.@%-]{0,62}")


class InvalidLogin(ValueError):
    """The text can't be a login; the message says why."""


class Account(msgspec.Struct, frozen=True):
    """An account as an authcache answers it: `keys` are public keys (PEM) by MD5 fingerprint."""

    uuid: uuid.UUID
    login: str
    approved: bool
    operator: bool
    keys: Mapping[str, str]


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
