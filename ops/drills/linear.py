"""Oracle O1: each key behaves as one register that is changed at one moment of each write (linearizable). Pure.

Keys are independent of each other, so each is judged by itself: by the zones of its values (`clusters.py`), and where these leave it
open by a bounded search (`search.py`), which may end as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ops.drills.clusters import compare, exact
from ops.drills.findings import Finding, Verdict
from ops.drills.history import Operation, by_key
from ops.drills.register import Contradiction, Register, Step, Undecidable, What, register
from ops.drills.search import OutOfSteps, Search

STEPS_MAX = 1_000_000
"""successors looked at for one key: some seconds"""
SHRINK_RUNS_MAX, SHRINK_STEPS_MAX = 200, 200_000
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
        made = register(operations, initial)
        compare(made)
        if not exact(made):
            _search(made, steps_max, shrink=shrink)
    except Contradiction as e:
        return Finding(CHECK, Verdict.FAIL, f"{key} is not linearizable: {e}", tuple(e.shown))
    except Undecidable as e:
        return Finding(CHECK, Verdict.UNKNOWN, f"whether {key} is linearizable can't be said: {e}")
    except OutOfSteps:
        return Finding(CHECK, Verdict.UNKNOWN, f"whether {key} is linearizable was not found in {steps_max} steps")
    return None


def _search(made: Register, steps_max: int, *, shrink: bool) -> None:
    stuck = Search(made, made.steps, steps_max).run()
    if stuck is None:
        return
    kept = [s for s in made.steps if s.began_s <= stuck.ended_s]
    shown = _shrunk(made, kept, stuck) if shrink else kept
    near = sorted(shown, key=lambda s: -min(s.ended_s, stuck.ended_s))[: SHOWN_MAX - 1]
    few = "" if len(shown) == len(near) else f" ({len(shown)} operations contradict each other, the last are shown)"
    raise Contradiction(f"no order of its operations explains the last of these{few}", [*near, stuck])


def _shrunk(made: Register, steps: Sequence[Step], stuck: Step) -> Sequence[Step]:
    """Fewer steps that still contradict each other. Only what asks nothing of the others is left out: then the rest of a good history is good."""
    kept, runs = list(steps), SHRINK_RUNS_MAX
    units = _units(made, kept, stuck)
    size = max(1, len(units) // 2)
    while units and runs > 0:
        left: list[list[Step]] = []
        for start in range(0, len(units), size):
            some = units[start : start + size]
            without = {id(s) for unit in some for s in unit}
            rest = [s for s in kept if id(s) not in without]
            runs -= 1
            if runs >= 0 and _contradicts(made, rest, stuck):
                kept = rest
            else:
                left += some
        if size == 1 and len(left) == len(units):
            break
        units, size = left, max(1, size // 2)
    return kept


def _contradicts(made: Register, steps: Sequence[Step], stuck: Step) -> bool:
    try:
        return Search(made, steps, SHRINK_STEPS_MAX).run(stuck.ended_s) is not None
    except OutOfSteps:
        return False


def _units(made: Register, steps: Sequence[Step], stuck: Step) -> list[list[Step]]:
    """What can be left out: a read; a write with all its reads, if no other step asks what was there before or after it."""
    reads = [[s] for s in steps if s.what in (What.READ, What.NOT) and s is not stuck]
    if any(s.what in (What.DELETE, What.NOT) for s in steps):
        return reads
    swapped = {s.needs for s in steps if s.what is What.SWAP}
    puts = [
        s for s in steps if s.what is What.PUT and s.gives not in swapped and s.gives != stuck.needs and s is not stuck
    ]
    return [[s, *made.needed.get(s.gives, ())] for s in puts] + reads
