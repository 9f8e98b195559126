"""Hours as usage is metered by: numbered from the epoch on, in UTC. Pure."""

from __future__ import annotations

import datetime as dt

HOUR_S = 3600
_NAME = "%Y-%m-%dT%H"


def hour_of(now_s: float) -> int:
    """The hour of a moment, which is in seconds since the epoch."""
    return int(now_s // HOUR_S)


def name_of(hour: int) -> str:
    """As people say it: ``2026-11-28T05``."""
    return _start(hour).strftime(_NAME)


def path_of(hour: int) -> str:
    """Where a report of it lies, below its kind: ``2026/11/28/05/h05.json``. Source: the HTTP contract, section 12."""
    return _start(hour).strftime("%Y/%m/%d/%H/h%H.json")


def parse(text: str) -> int:
    """An hour by its name. Raises ValueError, with a sentence."""
    try:
        return hour_of(dt.datetime.strptime(text, _NAME).replace(tzinfo=dt.UTC).timestamp())
    except ValueError as error:
        raise ValueError(
            f"read hour {text[:40]!r}: an hour is a date and two digits, in UTC, as 2026-11-28T05"
        ) from error


def _start(hour: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC)
