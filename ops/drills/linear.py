"""Oracle O1: each key behaves as one register that is changed at one moment of each write (linearizable). Pure.

Keys are independent of each other, so each is judged by itself: by the zones of its values (`clusters.py`), and where these leave it
open by a bounded search (`search.py`), which may end as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ops.drills.clusters import compare, exact
from ops.drills.findings import Finding, Verdict
from ops.drills.history import Operation, by_key
from ops.drills.register import Contradiction, Undecidable, register
from ops.drills.search import OutOfSteps, Search

STEPS_MAX = 300_000
"""successors looked at for one key: a few seconds"""
SHRINK_RUNS_MAX, SHRINK_STEPS_MAX = 200, 100_000
SHRUNK_KEYS_MAX = 5
SHOWN_MAX = 14
CHECK = "O1"


def linearizable(
    history: Sequence[Operation], *, initial: Mapping[str, str | None] | None = None, steps_max: int = STEPS_MAX
) -> list[Finding]:
    """A finding for each key that is not, or that could not be decided. `initial`: what was there before, by key (else nothing)."""
    found: list[Finding] = []
    for key, operations in sorted(by_key(history).items()):
        shrink = sum(f.verdict is Verdict.FAIL for f in found) < SHRUNK_KEYS_MAX
        finding = judge_key(key, operations, (initial or {}).get(key), steps_max=steps_max, shrink=shrink)
        if finding is not None:
            found.append(finding)
    return found


def judge_key(
    key: str,
    operations: Sequence[Operation],
    initial: str | None = None,
    *,
    steps_max: int = STEPS_MAX,
    shrink: bool = True,
) -> Finding | None:
    """None: linearizable. `shrink`: spend time on a short proof."""
    try:
        contradiction = find(operations, initial, steps_max)
    except Undecidable as e:
        return Finding(CHECK, Verdict.UNKNOWN, f"whether {key} is linearizable can't be said: {e}")
    except OutOfSteps:
        return Finding(CHECK, Verdict.UNKNOWN, f"whether {key} is linearizable was not found in {steps_max} steps")
    if contradiction is None:
        return None
    if shrink and contradiction.whole:
        contradiction = _shrunk(contradiction, initial)
    shown = contradiction.shown[-SHOWN_MAX:]
    few = (
        f" (the last {len(shown)} of {len(contradiction.shown)} operations)"
        if len(shown) < len(contradiction.shown)
        else ""
    )
    return Finding(CHECK, Verdict.FAIL, f"{key} is not linearizable: {contradiction}{few}", tuple(shown))


def find(
    operations: Sequence[Operation], initial: str | None, steps_max: int, *, weak: bool = False
) -> Contradiction | None:
    """None: an order explains them all. Raises OutOfSteps, Undecidable."""
    try:
        made = register(operations, initial, weak=weak)
        compare(made)
    except Contradiction as e:
        return e
    stuck = None if exact(made) else Search(made, steps_max).run()
    if stuck is None or stuck.source is None:
        return None
    return Contradiction(
        f"no order of them explains this {stuck.source.kind} and all before it",
        [s for s in made.steps if s.began_s <= stuck.ended_s],
        whole=True,
    )


def _shrunk(found: Contradiction, initial: str | None) -> Contradiction:
    """Fewer operations that still contradict each other. Only what asks nothing of the others is left out: the rest of a good history is
    good. That conditions failed, and that deletes found something, is forgotten first if that will do.
    """
    no_refused = _again([o for o in found.shown if not (o.writes and o.refused)], initial)
    found = no_refused or found
    weak = _again(found.shown, initial, weak=True)
    found, runs = weak or found, SHRINK_RUNS_MAX
    if not found.whole:
        return found
    units = _units(found.shown, whole=bool(no_refused and weak))
    size = max(1, len(units) // 2)
    while units and runs > 0:
        left: list[list[Operation]] = []
        for start in range(0, len(units), size):
            some = units[start : start + size]
            without = {id(o) for unit in some for o in unit}
            runs -= 1
            rest = [o for o in found.shown if id(o) not in without]
            smaller = _again(rest, initial, weak=bool(weak)) if runs >= 0 else None
            if smaller is None:
                left += some
            elif not smaller.whole:
                return smaller
            else:
                found = smaller
        if size == 1 and len(left) == len(units):
            break
        kept = {id(o) for o in found.shown}
        units, size = [unit for unit in left if id(unit[0]) in kept], max(1, size // 2)
    return found


def _again(operations: Sequence[Operation], initial: str | None, *, weak: bool = False) -> Contradiction | None:
    try:
        return find(operations, initial, SHRINK_STEPS_MAX, weak=weak)
    except (OutOfSteps, Undecidable):
        return None


def _units(operations: Sequence[Operation], *, whole: bool) -> list[list[Operation]]:
    """What can be left out: a read, and if nothing asks what was there before or after it (`whole`) a write with all its reads."""
    reads = [o for o in operations if o.kind == "get" or (o.writes and o.refused)]
    if not whole:
        return [[o] for o in reads]
    expected = {o.expected for o in operations}
    seen: dict[str | None, list[Operation]] = {}
    for o in reads:
        seen.setdefault(o.value, []).append(o)
    puts = [o for o in operations if o.kind == "put" and o.value not in expected]
    return [[o, *seen.get(o.value, ())] for o in puts] + [[o] for o in reads]
