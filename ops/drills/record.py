"""What is kept of a run of a drill: all that a report needs, and nothing that needs the region. Pure.

All times are s since the run's start, but for `started`. The operations of findings have the clock of the history; `origin_s` is that
clock at the run's start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import msgspec

from ops.drills.findings import Checked, Verdict
from ops.drills.history import Operation
from ops.drills.outages import Recovery


@dataclass(frozen=True, slots=True)
class Proof:
    """A sentence about the region, and whether it was so."""

    what: str
    so: bool


@dataclass(frozen=True, slots=True)
class FaultRun:
    """A fault as it was. `healed_s` None: it was not healed."""

    name: str
    what: str
    injected_s: float
    healed_s: float | None
    proofs: tuple[Proof, ...] = ()
    """that it bit"""
    reverted: tuple[Proof, ...] = ()
    """that nothing of it is left"""


@dataclass(frozen=True, slots=True)
class Second:
    """What ended in one second. `errors` by status, as "503"; "0": no answer."""

    at_s: int
    reads: int
    writes: int
    errors: dict[str, int]
    p50_s: float | None
    p99_s: float | None
    """of the operations that were answered; None: none was"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Who was a shard's primary, and whether it held the lease; None: nobody, or it could not be seen."""

    at_s: float
    shard: str
    primary: str | None
    lease: bool | None


@dataclass(frozen=True, slots=True)
class Happened:
    """A line of what the engine did and saw."""

    at_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a drill."""

    drill: str
    doc: str
    """what is rehearsed, and what is to be seen"""
    claims: tuple[str, ...]
    region: str
    profile: str
    seed: int
    started: str
    """wall clock, ISO 8601 with its zone"""
    took_s: float
    origin_s: float
    verdict: Verdict
    checked: tuple[Checked, ...]
    faults: tuple[FaultRun, ...] = ()
    before: tuple[Proof, ...] = ()
    """the steady state before the fault, and"""
    after: tuple[Proof, ...] = ()
    """after all was healed and settled"""
    recovered: tuple[Recovery, ...] = ()
    """O6 while the fault held"""
    healed: tuple[Recovery, ...] = ()
    """O6 from the heal on"""
    series: tuple[Second, ...] = ()
    samples: tuple[Sample, ...] = ()
    operations: dict[str, int] | None = None
    """by kind"""
    errors: dict[str, int] | None = None
    """by status"""
    events: tuple[Happened, ...] = ()
    interrupted: bool = False

    def rto_s(self, *, writes: bool) -> float | None:
        """The longest outage of any class while the fault held; None: there was no such class."""
        return max((r.outage_s for r in self.recovered if r.writes is writes), default=None)

    @property
    def failed(self) -> int:
        """Operations that got no answer, or a 5xx."""
        return sum((self.errors or {}).values())

    @property
    def total(self) -> int:
        """All operations."""
        return sum((self.operations or {}).values())


class BadRecord(ValueError):
    """A file is no record of a run; the sentence says why."""


def encode(run: Run) -> bytes:
    """As JSON."""
    return msgspec.json.encode(run)


def decode(data: bytes) -> Run:
    """Raises BadRecord."""
    try:
        return msgspec.json.decode(data, type=Run)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise BadRecord(f"this is no record of a run: {e}") from e


def operations(history: Iterable[Operation]) -> dict[str, int]:
    """How many, by kind."""
    return dict(sorted(Counter(o.kind for o in history).items()))


def errors(history: Iterable[Operation]) -> dict[str, int]:
    """How many failed, by status."""
    return {str(status): n for status, n in sorted(Counter(o.status for o in history if o.failed).items())}


def series(history: Iterable[Operation], origin_s: float) -> tuple[Second, ...]:
    """By second since `origin_s`, without holes from the first to the last."""
    seconds: dict[int, list[Operation]] = {}
    for o in history:
        seconds.setdefault(floor(o.ended_s - origin_s), []).append(o)
    if not seconds:
        return ()
    return tuple(_second(at, seconds.get(at, ())) for at in range(min(seconds), max(seconds) + 1))


def _second(at_s: int, ended: Sequence[Operation]) -> Second:
    took = sorted(o.ended_s - o.began_s for o in ended if o.status)
    writes = sum(o.writes for o in ended)
    return Second(at_s, len(ended) - writes, writes, errors(ended), _quantile(took, 0.5), _quantile(took, 0.99))


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None
