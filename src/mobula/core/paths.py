"""Paths of the API: `/:login/<namespace>[/...]`, from raw bytes to names. Source: the HTTP contract, section "Names and paths"."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

NAMESPACES = ("public", "reports", "stor")
"""in the order in which an account lists them"""
_HEX = frozenset(b"0123456789abcdefABCDEF")
NAME_BYTES_MAX = 1024
PATH_BYTES_MAX = 2560
"""of all names below the account: PostgreSQL indexes keys of up to 2,704 bytes, and a path with its account's uuid is one"""


class InvalidPath(ValueError):
    """The path can't be decoded, or has a name that can't be one."""


class Path(NamedTuple):
    """A decoded path. `names` follow the login: the namespace first."""

    login: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "/" + "/".join((self.login, *self.names))

    @property
    def is_account(self) -> bool:
        return not self.names

    @property
    def is_root(self) -> bool:
        """An account, or one of its namespaces: these always exist and can't be deleted."""
        return len(self.names) <= 1

    @property
    def parent(self) -> Path:
        return Path(self.login, self.names[:-1])

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def namespace(self) -> str:
        return self.names[0] if self.names else ""

    def stored(self, account: uuid.UUID) -> str:
        """As the metadata tier knows it: under the account's uuid, so that a renamed account keeps its data."""
        return "/" + "/".join((str(account), *self.names))


def parse(raw: bytes) -> Path:
    """Decode a request's path: runs of slashes are one, a final one is dropped, each segment is percent-decoded UTF-8.

    Raises:
        InvalidPath: malformed escapes, invalid UTF-8, ``.`` or ``..``, NUL, a name or the whole path is too long.
    """
    names = [_decode(segment) for segment in raw.split(b"/") if segment]
    if not names:
        raise InvalidPath("the path names no account")
    if len(raw) > PATH_BYTES_MAX and len("/".join(names[1:]).encode()) > PATH_BYTES_MAX:
        raise InvalidPath("the path is too long")
    return Path(names[0], tuple(names[1:]))


def _decode(segment: bytes) -> str:
    data = segment
    if b"%" in segment:
        for at in range(len(segment)):
            if segment[at] == 0x25 and not (len(segment) >= at + 3 and _HEX.issuperset(segment[at + 1 : at + 3])):
                raise InvalidPath("malformed escape")
        data = unquote_to_bytes(segment)
    if len(data) > NAME_BYTES_MAX:
        raise InvalidPath("a name is too long")
    try:
        name = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidPath("not UTF-8") from error
    if name in {".", ".."} or "\0" in name or "/" in name:
        raise InvalidPath("not a name")
    return name


def encode(names: Sequence[str]) -> str:
    """Names as a path that a client may send back."""
    return "/" + "/".join(quote(name, safe="!'()*~-_.") for name in names)
