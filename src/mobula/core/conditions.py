"""Conditional requests: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, against the current version. Pure.

Source: the HTTP contract, section "PutObject" (etags unquoted, quoted or weak; ``If-Match: ""`` means that nothing may be there).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from mobula.core.dates import parse_date
from mobula.core.errors import ApiError


@dataclass(frozen=True, slots=True)
class Conditions:
    """Parsed. `match` and `none_match`: etags (``*`` any), None if the header is not there; ``()`` = nothing may be there."""

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None
    modified_since: dt.datetime | None = None
    unmodified_since: dt.datetime | None = None

    @property
    def any(self) -> bool:
        return self != Conditions()


def parse_etags(value: str | None) -> tuple[str, ...] | None:
    """Etags of a list, without ``W/`` and quotes; ``""`` alone gives the empty tuple."""
    if value is None:
        return None
    found = []
    for part in value.split(","):
        etag = part.strip().removeprefix("W/").strip()
        if len(etag) > 1 and etag[0] == etag[-1] == '"':
            etag = etag[1:-1]
        if etag:
            found.append(etag)
    return tuple(found)


def parse(header: Callable[[str], str | None]) -> Conditions:
    """The conditions of a request; a date that is none is ignored (RFC 9110, 13.1.3)."""

    def date(name: str) -> dt.datetime | None:
        value = header(name)
        return parse_date(value) if value else None

    return Conditions(
        parse_etags(header("if-match")),
        parse_etags(header("if-none-match")),
        date("if-modified-since"),
        date("if-unmodified-since"),
    )


def check(conditions: Conditions, etag: str | None, mtime: dt.datetime | None, *, reading: bool) -> bool:
    """Whether a read may answer 304 instead of the body; `etag` None: there is no current object.

    Raises:
        ApiError: PreconditionFailed.
    """
    if not conditions.any:
        return False
    if not _matches(conditions.match, etag):
        raise ApiError.of("PreconditionFailed", why=f"if-match {list(conditions.match or ())} didn't match etag {etag}")
    if (
        conditions.none_match is not None
        and etag is not None
        and ("*" in conditions.none_match or etag in conditions.none_match)
    ):
        if reading:
            return True
        raise ApiError.of("PreconditionFailed", why=f"if-none-match {list(conditions.none_match)} matched etag {etag}")
    return _by_date(conditions, mtime, reading=reading)


def _matches(wanted: tuple[str, ...] | None, etag: str | None) -> bool:
    if wanted is None:
        return True
    if not wanted:
        return etag is None
    return etag is not None and ("*" in wanted or etag in wanted)


def _by_date(conditions: Conditions, mtime: dt.datetime | None, *, reading: bool) -> bool:
    if mtime is None:
        return False
    second = mtime.replace(microsecond=0)
    since, unmodified = conditions.modified_since, conditions.unmodified_since
    if unmodified is not None and conditions.match is None and second > unmodified:
        raise ApiError.of("PreconditionFailed", why=f"object was modified at {second.isoformat()}")
    if since is not None and conditions.none_match is None and second <= since:
        if reading:
            return True
        raise ApiError.of("PreconditionFailed", why=f"object was not modified since {since.isoformat()}")
    return False
