"""HTTP dates: written one way, read in whatever form clients send them."""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import re


def http_date(at: dt.datetime) -> str:
    """RFC 1123, GMT."""
    return email.utils.format_datetime(at.astimezone(dt.UTC).replace(microsecond=0), usegmt=True)


def iso_ms(at: dt.datetime) -> str:
    """ISO 8601, UTC with milliseconds and ``Z``."""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ZONES = {"UTC": "GMT", "Z": "GMT"}


def parse_date(text: str) -> dt.datetime | None:
    """A date in any of the forms that clients send, in UTC; None if it is none.

    RFC 1123 with GMT or ``UTC``, the two obsolete forms, American zone letters, ISO 8601, and ``2026-11-23 02:50:32 +0000``.
    """
    return _parse(text.strip()[:100])


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> dt.datetime | None:
    """Remembered: a request's date is looked at twice, and requests of one second share it."""
    for spelled, meant in _ZONES.items():
        text = re.sub(rf"\b{spelled}$", meant, text) if not re.match(r"\d{4}-", text) else text
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        found = None
    if found is None and re.match(r"\d{4}-\d\d-\d\d", text):
        try:
            found = dt.datetime.fromisoformat(re.sub(r" ([+-]\d{4})$", r"\1", text))
        except ValueError:
            return None
    if found is None:
        return None
    try:
        return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
    except OverflowError:
        return None  # a zone that leads beyond the years 1 to 9999
