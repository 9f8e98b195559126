"""Parts that requests and responses have in common: headers, status lines, errors as JSON. No I/O."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

Pairs = Sequence[tuple[str, str]]


class Headers:
    """Header fields as received, in order (`raw`), and by name without regard to case."""

    __slots__ = ("_index", "raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw
        self._index: dict[str, str] | None = None

    def get(self, name: str) -> str | None:
        """The value of `name` (lower case), several joined by ", ", as Latin-1 text; None if absent."""
        if self._index is None:
            index: dict[str, str] = {}
            self._index = index
            for key_bytes, value in self.raw:
                key = key_bytes.decode("latin-1").lower()
                text = value.decode("latin-1")
                index[key] = f"{index[key]}, {text}" if key in index else text
        return self._index.get(name)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw)


@functools.cache
def status_line(status: int) -> str:
    import http  # noqa: PLC0415 (5 ms that a client does without)

    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}"


def allows_body(status: int) -> bool:
    """Whether a response of this status may have a body (and so Content-Length and the like)."""
    return status >= 200 and status not in (204, 304)


def head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """A message head. Raises ValueError if a header holds a line break, or text outside Latin-1."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
        raise ValueError(f"write the head of {first_line!r}: a header holds a line break; encode its value")
    return text.encode("latin-1")


def error_body(code: str, message: str) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of an error as JSON."""
    body = json.dumps({"code": code, "message": message}, ensure_ascii=False, separators=(",", ":")).encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    return [("Content-Type", "application/json"), ("Content-MD5", digest)], body
