"""HTTP dates: written one way, read in whatever form clients send them."""

from __future__ import annotations

import datetime as dt
import functools
import re

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RFC1123 = re.compile(
    rf"(?:{'|'.join(_DAYS)}), (\d\d) ({'|'.join(_MONTHS)}) ([1-9]\d{{3}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)


def http_date(at: dt.datetime) -> str:
    """RFC 1123, GMT."""
    at = at.astimezone(dt.UTC)
    return f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} {at.hour:02}:{at.minute:02}:{at.second:02} GMT"


def iso_ms(at: dt.datetime) -> str:
    """ISO 8601, UTC with milliseconds and ``Z``."""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ISO = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_date(text: str) -> dt.datetime | None:
    """A date in any of the forms that clients send, in UTC; None if it is none.

    RFC 1123 with GMT or ``UTC``, the two obsolete forms, American zone letters, ISO 8601, and ``2026-11-23 02:50:32 +0000``.
    """
    return _parse_date(text.strip()[:100])


@functools.lru_cache(1_000)  # the same date comes with each request of its second
def _parse_date(text: str) -> dt.datetime | None:
    try:
        if match := _RFC1123.fullmatch(text):
            day, month, year, hour, minute, second = match.groups()
            moment = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
            return dt.datetime(*moment, tzinfo=dt.UTC)
        found = dt.datetime.fromisoformat(re.sub(r" ([+-]\d{4})$", r"\1", text)) if _ISO.match(text) else _rare(text)
        return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
    except (ValueError, TypeError, IndexError, OverflowError):  # a zone may lead beyond the years 1 to 9999
        return None


def _rare(text: str) -> dt.datetime:
    """Raises ValueError, TypeError, IndexError, OverflowError."""
    import email.utils  # noqa: PLC0415 (10 ms of a command's start, and nearly every date is of the forms above)

    return email.utils.parsedate_to_datetime(re.sub(r"\b(UTC|Z)$", "GMT", text))
