"""The oracles O5 and O6: which share of requests failed, and how long nothing went. Pure.

An operation failed if the service did not decide it (no answer, or a 5xx): a 404, a 409 or a 412 is an answer. Operations are
counted when they ended: that is when a client knew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import floor

from ops.drills.checks import Span, bounded, failed
from ops.drills.findings import Finding
from ops.drills.history import Operation

WINDOW_S = 300.0
SHARE_MAX = 0.001
"""of failed operations in each WINDOW_S"""
CALM_S = 10.0
"""as long without a failure as makes a steady state"""


@dataclass(frozen=True, slots=True)
class Share:
    """Of the operations of a kind from an AZ that ended in a window."""

    began_s: float
    width_s: float
    kind: str
    az: str
    operations: int
    failed: int

    @property
    def share(self) -> float:
        """Of failed ones."""
        return self.failed / self.operations


def shares(history: Iterable[Operation], origin_s: float, width_s: float) -> list[Share]:
    """O5: by window (counted from `origin_s`), kind and AZ; windows without operations are left out."""
    counted: dict[tuple[int, str, str], list[int]] = {}
    for o in history:
        both = counted.setdefault((floor((o.ended_s - origin_s) / width_s), o.kind, o.az), [0, 0])
        both[0] += 1
        both[1] += o.failed
    return [
        Share(origin_s + window * width_s, width_s, kind, az, *both)
        for (window, kind, az), both in sorted(counted.items())
    ]


def error_budget(
    history: Sequence[Operation], origin_s: float, *, share_max: float = SHARE_MAX, excused: Collection[Span] = ()
) -> list[Finding]:
    """O5: a finding for each five minutes, kind and AZ of which more than `share_max` failed. `excused`: what ended then does not count
    (the fault, and as long after it as was allowed).
    """
    counted = [o for o in history if not any(s.began_s <= o.ended_s <= s.ended_s and s.concerns(o) for s in excused)]
    return bounded([
        failed(
            "O5",
            f"{s.failed} of {s.operations} {s.kind} from {s.az} failed in the 5 minutes from {s.began_s - origin_s:.0f} s; "
            f"{share_max:.2%} are allowed",
        )
        for s in shares(counted, origin_s, WINDOW_S)
        if s.share > share_max
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recovery:
    """O6, of one class: reads or writes of a group's keys by clients of an AZ, within a span.

    `outage_s` (the RTO): the longest time in the span in which none of them succeeded although one was asked for. It is counted from the
    last success before it (at the earliest from the span's begin), or from the begin of the first operation that ended after that success
    if that is later (idle clients see no outage); to the end of the next success, or of the span. With clients that never pause it is
    the longest gap between successes.
    `steady_after_s`: from the span's begin to the end of the first success, after something had failed, after which none of the class
    failed for `calm_s`, or until the span's end. 0 if none failed at all; None: it never came.
    """

    az: str
    group: str
    writes: bool
    operations: int
    failed: int
    outage_s: float
    steady_after_s: float | None

    @property
    def name(self) -> str:
        """Of the class, for people."""
        return f"{'writes' if self.writes else 'reads'} of {self.group or 'all'} from {self.az}"


def recoveries(history: Iterable[Operation], span: Span, *, calm_s: float = CALM_S) -> list[Recovery]:
    """O6: by class; only what began before the span's end and ended after its begin, from clients in `span.azs` (empty: all). Once for
    the time of the fault, once for the time from the heal to the end.
    """
    classes: dict[tuple[str, str, bool], list[Operation]] = {}
    for o in history:
        if span.concerns(o):
            classes.setdefault((o.az, o.group, o.writes), []).append(o)
    return [
        Recovery(
            az,
            group,
            writes,
            len(found),
            sum(o.failed for o in found),
            outage(found, span),
            _steady(found, span, calm_s),
        )
        for (az, group, writes), found in sorted(classes.items())
    ]


def outage(operations: Sequence[Operation], span: Span) -> float:
    """The longest time in the span without a success, of one class (see Recovery)."""
    return max((to - since for since, to in _gaps(sorted(operations, key=lambda o: o.ended_s), span)), default=0.0)


def _gaps(operations: Sequence[Operation], span: Span) -> Iterator[tuple[float, float]]:
    since, asked = span.began_s, None
    for o in operations:
        asked = o.began_s if asked is None else min(asked, o.began_s)
        if not o.failed:
            until = min(o.ended_s, span.ended_s)
            yield max(since, min(asked, until)), until
            since, asked = until, None
    if asked is not None:
        yield max(since, min(asked, span.ended_s)), span.ended_s


def _steady(operations: Sequence[Operation], span: Span, calm_s: float) -> float | None:
    broken, first = False, None
    """whether one has failed; the first success since the last failure"""
    for o in sorted(operations, key=lambda o: o.ended_s):
        if first is not None and o.ended_s - first >= calm_s:
            break
        if o.failed:
            broken, first = True, None
        elif broken and first is None:
            first = o.ended_s
    if not broken:
        return 0.0
    return None if first is None else max(0.0, first - span.began_s)


def too_long(recovered: Iterable[Recovery], reads_max_s: float, writes_max_s: float) -> list[Finding]:
    """O6: a finding for each class that was out for longer, or that never came back."""
    found = []
    for r in recovered:
        bound_s = writes_max_s if r.writes else reads_max_s
        if r.outage_s > bound_s:
            found.append(failed("O6", f"{r.name}: out for {r.outage_s:.1f} s; {bound_s:g} s are allowed"))
        elif r.steady_after_s is None:
            found.append(failed("O6", f"{r.name}: not steady again; {r.failed} of {r.operations} failed"))
    return bounded(found)
