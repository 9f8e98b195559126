"""The oracles O2, O3, O9, longest wait and the gate: functions of a history and of facts. Pure. (O1: `linear.py`; O5, O6: `outages.py`.)

O4 and O10 look at machines, not at histories: whoever looks hands in findings (`looks.py`), and facts that the fault bit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from ops.drills.findings import Finding, Verdict
from ops.drills.history import WRITES, Operation, by_key, short

SHOWN_MAX = 20
"""findings of one kind; a region that is down breaks a promise many thousand times"""
WAIT_MAX_S = 10.0
STILL_S = 2.0
OPERATIONS_MIN, IN_FAULT_MIN = 2_000, 200


@dataclass(frozen=True, slots=True)
class Span:
    """A time of the history's clock; `azs`: whose clients it is about (empty: all)."""

    began_s: float
    ended_s: float
    azs: frozenset[str] = frozenset()

    def concerns(self, operation: Operation) -> bool:
        """The operation was under way in this time, from such a client."""
        return (
            operation.began_s <= self.ended_s
            and operation.ended_s >= self.began_s
            and (not self.azs or operation.az in self.azs)
        )


def failed(check: str, what: str, *operations: Operation) -> Finding:
    """A promise that was broken."""
    return Finding(check, Verdict.FAIL, what, tuple(sorted(operations, key=lambda o: (o.began_s, o.ended_s))))


def bounded(findings: Sequence[Finding]) -> list[Finding]:
    """The first of them, and how many there are in all."""
    if len(findings) <= SHOWN_MAX:
        return list(findings)
    more = len(findings) - SHOWN_MAX
    last = Finding(findings[0].check, findings[0].verdict, f"... and {more} more like these")
    return [*findings[:SHOWN_MAX], last]


class Overlaps:
    """Answers which of some writes may have been under way at a time; one without an answer may be for ever."""

    def __init__(self, writes: Iterable[Operation]) -> None:
        ordered = sorted(writes, key=lambda o: o.began_s)
        self._begins = [o.began_s for o in ordered]
        self._last: list[tuple[tuple[float, int], tuple[float, int]]] = []
        """by begin: the two ends that are last of all begun until then, and whose they are"""
        two = ((-inf, 0), (-inf, 0))
        for o in ordered:
            first, second, *_ = sorted([*two, (inf if o.indeterminate else o.ended_s, id(o))], reverse=True)
            two = (first, second)
            self._last.append(two)

    def between(self, since_s: float, until_s: float, but: Operation) -> bool:
        """One other than `but` may have been under way."""
        at = bisect_right(self._begins, until_s)
        return at > 0 and any(ended_s >= since_s and whose != id(but) for ended_s, whose in self._last[at - 1])


class Known:
    """What must be so about a key at a time, from the acknowledged writes alone.

    A write A has been overwritten before a time when another one began after A had ended, and was acknowledged before that time.
    """

    def __init__(self, operations: Sequence[Operation], initial: str | None) -> None:
        acknowledged = sorted((o for o in operations if o.writes and 200 <= o.status < 300), key=lambda o: o.ended_s)
        self._ends = [o.ended_s for o in acknowledged]
        self._latest: list[Operation] = []
        """by end: of all acknowledged until then the one that began last"""
        for o in acknowledged:
            latest = self._latest[-1] if self._latest else o
            self._latest.append(o if o.began_s >= latest.began_s else latest)
        self.initial = initial
        self._written_s: dict[str | None, float] = {initial: -inf}
        """by value: when its write had surely ended"""
        self._refused: dict[str | None, Operation] = {}
        for o in operations:
            if o.kind in ("put", "put_if_match"):
                if o.refused:
                    self._refused.setdefault(o.value, o)
                else:
                    self._written_s[o.value] = o.ended_s if not o.indeterminate else inf
        for o in operations:
            if o.kind == "get" and o.done and o.value in self._written_s:
                self._written_s[o.value] = min(self._written_s[o.value], o.ended_s)
        changes = [o for o in operations if o.writes and not o.refused and o.status != 404]
        self._deletes = sorted((o for o in changes if o.kind == "delete"), key=lambda o: -o.began_s)
        self.changes = Overlaps(changes)
        self.writes = Overlaps([o for o in operations if o.writes])

    def latest(self, before_s: float) -> Operation | None:
        """Of the writes acknowledged before a time, the one that began last."""
        at = bisect_left(self._ends, before_s)
        return self._latest[at - 1] if at else None

    def replaced(self, value: str | None, before_s: float) -> Operation | None:
        """The write that had replaced a value (not None) before a time; None: it may have been there."""
        latest = self.latest(before_s)
        if latest is None or latest.value == value:
            return None
        return latest if latest.began_s > self._written_s.get(value, inf) else None

    def unwritten(self, value: str | None) -> str:
        """Why nobody can have read a value (not None), in words; "" if somebody wrote it."""
        if value in self._written_s:
            return ""
        refused = self._refused.get(value)
        return "which nobody wrote" if refused is None else f"whose write was refused with {refused.status}"

    def exists(self, began_s: float, ended_s: float) -> Operation | str | None:
        """What made sure that something was there all that time: a write, or what was there before. None: it may have been gone."""
        latest = self.latest(began_s)
        if latest is None or latest.kind == "delete":
            witness: Operation | str | None = self.initial if latest is None else None
            since_s = -inf
        else:
            witness, since_s = latest, latest.began_s
        if witness is None:
            return None
        return None if any(self._may_delete(d, since_s, ended_s, witness) for d in self._deletes) else witness

    def _may_delete(self, delete: Operation, since_s: float, until_s: float, witness: Operation | str) -> bool:
        """It may take effect after the witness, and before the end."""
        if delete.began_s > until_s or (not delete.indeterminate and delete.ended_s < since_s):
            return False
        value = witness.value if isinstance(witness, Operation) else witness
        if delete.expected is None or delete.expected == value:
            return True
        # Its condition names a value that is gone for good, if the witness came after that.
        return not self._written_s.get(delete.expected, inf) < since_s


def known(history: Sequence[Operation], initial: Mapping[str, str | None]) -> dict[str, Known]:
    """By key."""
    return {key: Known(operations, initial.get(key)) for key, operations in by_key(history).items()}


def nothing_lost(
    history: Sequence[Operation], finals: Mapping[str, str | None], *, initial: Mapping[str, str | None] | None = None
) -> list[Finding]:
    """O2: what each key holds at the end (`finals`, read when all clients had ended) is explained by its history: the last acknowledged
    write, or one that may have come after it. A key that was written and has no final read is unknown.
    """
    found = []
    for key, facts in known(history, initial or {}).items():
        if key not in finals:
            found.append(Finding("O2", Verdict.UNKNOWN, f"{key} was not read at the end"))
        elif (value := finals[key]) is None:
            witness = facts.exists(inf, inf)
            if isinstance(witness, Operation):
                found.append(
                    failed("O2", f"{key} is gone; {short(witness.value)} was acknowledged and not deleted", witness)
                )
            elif witness is not None:
                found.append(failed("O2", f"{key} is gone; it held {short(witness)} before, and nobody deleted it"))
        elif why := facts.unwritten(value):
            found.append(failed("O2", f"{key} holds {short(value)}, {why}"))
        elif (newer := facts.replaced(value, inf)) is not None:
            what = "a delete" if newer.kind == "delete" else short(newer.value)
            found.append(failed("O2", f"{key} holds {short(value)}; {what} was acknowledged after it", newer))
    return bounded(found)


def no_false_answers(history: Sequence[Operation], *, initial: Mapping[str, str | None] | None = None) -> list[Finding]:
    """O3: who does not know says 5xx. Findings: a 404 for what is known to be there; a read of a value that had been replaced before the
    read began, or that nobody wrote; a 4xx that the request did not deserve.
    """
    facts = known(history, initial or {})
    absent: list[Finding] = []
    stale: list[Finding] = []
    undeserved: list[Finding] = []
    for o in history:
        if o.status == 404 and o.kind in ("get", "delete"):
            witness = facts[o.key].exists(o.began_s, o.ended_s)
            if witness is not None:
                shown = [witness] if isinstance(witness, Operation) else []
                absent.append(failed("O3", f"404 for {o.key}, which is known to be there", *shown, o))
        elif o.kind == "get" and o.done:
            if why := facts[o.key].unwritten(o.value):
                stale.append(failed("O3", f"{o.key} was read as {short(o.value)}, {why}", o))
            elif (newer := facts[o.key].replaced(o.value, o.began_s)) is not None:
                stale.append(
                    failed("O3", f"a stale read of {o.key}: {short(o.value)} had been replaced before", newer, o)
                )
        elif o.refused and (why := _undeserved(o, facts)):
            undeserved.append(failed("O3", f"{o.status} to a {o.kind} of {o.key}: {why}", o))
    return [*bounded(absent), *bounded(stale), *bounded(undeserved)]


def _undeserved(o: Operation, facts: Mapping[str, Known]) -> str:
    """Why a refusal can't be the client's own doing; "" if it can."""
    conditional = o.kind == "put_if_match" or (o.kind == "delete" and o.expected is not None)
    if o.status == 409 and o.writes:
        under_way = facts[o.key].writes.between(o.began_s, o.ended_s, o)
        return "" if under_way else "nobody else wrote it at that time"
    if o.status != 412 or not conditional:
        return "nothing that a client of a drill does deserves it"
    own = facts[o.key].latest(o.began_s)
    held = own is not None and own.value == o.expected and not facts[o.key].changes.between(own.began_s, o.ended_s, own)
    return "its condition held" if held else ""


def listing_agrees(listed: Iterable[str], finals: Mapping[str, str | None]) -> list[Finding]:
    """O9: what a directory lists at the end is what GET finds at the end, in both directions. Both read when nobody wrote any more."""
    names = Counter(listed)
    found = {key for key, value in finals.items() if value is not None}
    out = [failed("O9", f"{key} is listed {times} times") for key, times in sorted(names.items()) if times > 1]
    out += [failed("O9", f"{key} is listed, and GET does not find it") for key in sorted(names.keys() - found)]
    out += [failed("O9", f"{key} is found by GET, and not listed") for key in sorted(found - names.keys())]
    return bounded(out)


def stood_still(history: Iterable[Operation]) -> dict[str, list[tuple[float, float]]]:
    """By client, when it began nothing for `STILL_S` and longer: its clients begin at a steady rate whatever becomes of what they asked,
    so that it was the client, for want of a processor, and whatever ended then may have been there long before it was seen.
    """
    begun: dict[str, list[float]] = {}
    for o in history:
        begun.setdefault(o.client, []).append(o.began_s)
    found = {}
    for client, times in begun.items():
        gaps = [(a, b) for a, b in pairwise(sorted(times)) if b - a >= STILL_S]
        if gaps:
            found[client] = gaps
    return found


def waits(history: Sequence[Operation], *, wait_max_s: float = WAIT_MAX_S, cut: Collection[Span] = ()) -> list[Finding]:
    """No client waits longer than `wait_max_s` for an answer; and whoever is sent away is told 503 and when to come again.

    A connection that breaks early is no answer and no wait (O5 counts it). Without any answer for that long is a hang, unless the client
    could reach nothing at that time (`cut`): there was nobody to answer. Nor do the times count in which it stood still itself.
    """
    still = stood_still(history)

    def waited_s(o: Operation) -> float:
        own_s = sum(max(0.0, min(b, o.ended_s) - max(a, o.began_s)) for a, b in still.get(o.client, ()))
        return o.ended_s - o.began_s - own_s

    late = [
        failed("wait", f"{waited_s(o):.1f} s until {_told(o)} to a {o.kind} of {o.key}", o)
        for o in history
        if waited_s(o) > wait_max_s and not (o.status == 0 and any(span.concerns(o) for span in cut))
    ]
    rude = [
        failed("wait", f"{o.status} {'with' if o.retry_after else 'without'} Retry-After to a {o.kind} of {o.key}", o)
        for o in history
        if o.failed and o.status and not (o.status == 503 and o.retry_after)
    ]
    return [*bounded(late), *bounded(rude)]


def _told(o: Operation) -> str:
    return str(o.status) if o.status else "the client gave up"


def counts(
    history: Sequence[Operation],
    fault: Span,
    azs: Collection[str],
    groups: Collection[str],
    bit: Iterable[tuple[str, bool]],
    *,
    operations_min: int = OPERATIONS_MIN,
    in_fault_min: int = IN_FAULT_MIN,
) -> list[Finding]:
    """The gate: whether a run says anything. Unknown for each thing that it lacks.

    Enough operations that got an answer; of clients in each AZ of `azs` (which can still reach something) enough begun while the
    fault held; reads and writes answered on each of `groups`; and `bit`: sentences that show that the fault was really there, each
    with whether it is so. Without any such sentence nothing was shown.
    """
    lacks: list[str] = []
    completed = [o for o in history if not o.failed]
    if len(completed) < operations_min:
        lacks.append(f"{len(completed)} operations were completed; {operations_min} are needed")
    begun = Counter(o.az for o in history if fault.began_s <= o.began_s <= fault.ended_s)
    lacks += [
        f"clients in {az} began {begun[az]} operations during the fault; {in_fault_min} are needed"
        for az in sorted(azs)
        if begun[az] < in_fault_min
    ]
    lacks += [
        f"client {client} stood still for {b - a:.1f} s during the fault: this machine had no processor for it"
        for client, gaps in sorted(stood_still(o for o in history if o.az in azs).items())
        for a, b in gaps
        if a <= fault.ended_s and b >= fault.began_s
    ]
    if not azs:
        lacks.append("no client could reach anything during the fault")
    kinds = {(o.group, o.kind in WRITES) for o in completed}
    lacks += [
        f"no {'write' if writes else 'read'} of {group} was completed"
        for group in sorted(groups)
        for writes in (False, True)
        if (group, writes) not in kinds
    ]
    proofs = list(bit)
    lacks += [f"not shown: {sentence}" for sentence, so in proofs if not so]
    if not proofs:
        lacks.append("nothing shows that the fault was there")
    return [Finding("gate", Verdict.UNKNOWN, what) for what in lacks]
