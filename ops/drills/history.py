"""What a client asked and what it was told: one line of a drill's history. Pure.

All times of a history are s of one monotonic clock. Every body is written once in a history, so its MD5 names the write. A precondition
(`expected`) is told by the MD5 of the body that it names, whatever etag went over the wire, so that writes and reads speak of one thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["put", "get", "delete", "list", "put_if_match"]
WRITES = frozenset({"put", "delete", "put_if_match"})
NO_ANSWER = 0


class BadHistory(ValueError):
    """A line is no operation; the sentence says which, and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A request and its answer.

    `expected` None: a `put_if_match` wants nothing to be there (If-None-Match: *), a `delete` is unconditional.
    """

    client: str
    az: str
    kind: Kind
    key: str
    value: str | None
    """MD5 in hex of the body written or read; None: nothing there, or no body (a delete, a list, an error)"""
    began_s: float
    ended_s: float
    """when the answer was whole; without an answer: when the client gave up"""
    status: int
    """of HTTP; 0: no answer, or a connection that broke"""
    group: str = ""
    """which part of the region the key is on, as "shard:1\""""
    expected: str | None = None
    names: tuple[str, ...] = ()
    """what a list named"""
    retry_after: bool = False
    """the answer had Retry-After"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.began_s) and math.isfinite(self.ended_s) and self.began_s <= self.ended_s):
            raise ValueError(f"an operation began at {self.began_s!r} and ended at {self.ended_s!r}")
        if self.status != NO_ANSWER and not 100 <= self.status <= 599:
            raise ValueError(f"an operation has the status {self.status!r}")
        if self.value is None and self.kind in ("put", "put_if_match"):
            raise ValueError(f"a {self.kind} wrote no value")
        if self.value is None and self.kind == "get" and 200 <= self.status < 300:
            raise ValueError("a get found something and read no value")

    @property
    def writes(self) -> bool:
        """It is meant to change its key."""
        return self.kind in WRITES

    @property
    def done(self) -> bool:
        """It did what was asked: a success, or a read that was told that nothing is there."""
        return 200 <= self.status < 300 or (self.status == 404 and self.kind in ("get", "delete"))

    @property
    def indeterminate(self) -> bool:
        """A write that may take effect at any time after it began, or never: no answer, or none that decides it."""
        return self.writes and not self.done and not self.refused

    @property
    def refused(self) -> bool:
        """Told no by a 4xx: it has had no effect and never will."""
        return 400 <= self.status < 500 and not self.done

    @property
    def failed(self) -> bool:
        """The service did not decide it: no answer, or none of a success or a client's error."""
        return not 200 <= self.status < 500 or 300 <= self.status < 400

    def sentence(self, origin_s: float = 0.0) -> str:
        """For people; times from `origin_s`."""
        what = f"{self.kind} {self.key}"
        if self.kind in ("put", "put_if_match"):
            what += f" := {short(self.value)}"
        if self.expected is not None or self.kind == "put_if_match":
            what += f" if {short(self.expected)}"
        if self.kind == "get" and self.done:
            what += f" = {short(self.value)}"
        told = f"{self.status}" if self.status else "no answer"
        return f"{self.began_s - origin_s:10.4f} - {self.ended_s - origin_s:10.4f} s  {self.client} ({self.az})  {what}  -> {told}"


def short(value: str | None) -> str:
    """A value by the first digits of its MD5."""
    return "nothing" if value is None else value[:8]


def by_key(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations on each key; lists are of no key's history."""
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        if operation.kind != "list":
            keys.setdefault(operation.key, []).append(operation)
    return keys


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Operation)


def encode(operation: Operation) -> bytes:
    """A line, with its end."""
    return _ENCODER.encode(operation) + b"\n"


def decode(lines: Iterable[bytes]) -> Iterator[Operation]:
    """The operations of a file, a line each. BadHistory at the first line that is none."""
    one = _DECODER.decode
    for number, line in enumerate(lines, 1):
        try:
            yield one(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise BadHistory(f"line {number} of the history is no operation: {e}") from e


def seconds(history: Sequence[Operation]) -> tuple[float, float]:
    """From the first beginning to the last end; (0, 0) of nothing."""
    return (min(o.began_s for o in history), max(o.ended_s for o in history)) if history else (0.0, 0.0)
