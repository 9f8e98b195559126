"""A key as a register: what its operations say about it. Pure.

An operation becomes a `Step`: it needs something of the register, gives it something, or both. What says nothing (an error to a read, a
refusal that is about something else) is no step. A write without an answer is `optional` and never ends: it may have happened at any time
after it began, or not at all. One that somebody has seen has happened, before the first who saw it had ended: then it is no more optional.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import inf

from ops.drills.history import Operation, short


class What(Enum):
    """What a step needs and gives."""

    READ = auto()
    """needs its value"""
    NOT = auto()
    """needs any but its value: a precondition that did not hold"""
    PUT = auto()
    """gives its value"""
    SWAP = auto()
    """needs one value, gives another"""
    DELETE = auto()
    """needs anything to be there, gives nothing"""


@dataclass(slots=True, eq=False)
class Step:
    """`ended_s` of a write that somebody has seen is when the first who saw it had ended, if that was earlier."""

    what: What
    needs: str | None
    gives: str | None
    began_s: float
    ended_s: float
    optional: bool
    source: Operation | None
    """None: what was there before the history"""

    @property
    def writes(self) -> bool:
        """It changes the register."""
        return self.what in (What.PUT, What.SWAP, What.DELETE)


class Contradiction(Exception):
    """No register can have had this history: a sentence, and the operations that show it."""

    def __init__(self, what: str, shown: Iterable[Step], *, whole: bool = False) -> None:
        """`whole`: what is shown is all there was, not just what matters."""
        super().__init__(what)
        self.whole = whole
        found = {id(step.source): step.source for step in shown if step.source is not None}
        self.shown = sorted(found.values(), key=lambda o: (o.began_s, o.ended_s))


class Undecidable(Exception):
    """The history breaks a rule of histories, so that it can't be judged."""


def step(operation: Operation, *, weak: bool = False) -> Step | None:
    """What an operation says about its key; None: nothing. `weak`: a delete does not say that anything was there."""
    o, optional = operation, operation.indeterminate

    def made(what: What, needs: str | None, gives: str | None) -> Step:
        return Step(what, needs, gives, o.began_s, inf if optional else o.ended_s, optional, o)

    if o.kind == "get" or (o.kind == "delete" and o.status == 404):
        return made(What.READ, None if o.status == 404 else o.value, None) if o.done else None
    conditional = o.kind == "put_if_match" or (o.kind == "delete" and o.expected is not None)
    if o.refused:
        return made(What.NOT, o.expected, None) if conditional and o.status == 412 else None
    if conditional:
        return made(What.SWAP, o.expected, o.value if o.kind == "put_if_match" else None)
    return made(What.PUT if o.kind == "put" or weak else What.DELETE, None, o.value if o.kind == "put" else None)


@dataclass(frozen=True, slots=True)
class Register:
    """The steps of a key, in the order of their beginning, the writer of each value, and who needs it."""

    initial: str | None
    steps: Sequence[Step]
    writers: dict[str | None, Step]
    needed: dict[str | None, list[Step]]
    """by value: the steps that have happened and need it"""

    @property
    def may_be_deleted(self) -> bool:
        """Reads of nothing may come from more than the time before the first write."""
        return any(s.writes and s.gives is None for s in self.steps)


def register(operations: Sequence[Operation], initial: str | None, *, weak: bool = False) -> Register:
    """Raises Contradiction if a value was read that nobody had (or can have) written, Undecidable if two wrote one value."""
    steps = sorted(
        (s for o in operations if (s := step(o, weak=weak)) is not None), key=lambda s: (s.began_s, s.ended_s)
    )
    before = Step(What.PUT, None, initial, -inf, -inf, False, None)
    writers: dict[str | None, Step] = {initial: before}
    for written in steps:
        if written.writes and written.gives is not None and writers.setdefault(written.gives, written) is not written:
            raise Undecidable(f"two writes wrote {short(written.gives)}, so its reads can't be told apart")
    needed: dict[str | None, list[Step]] = {}
    for one in [s for s in steps if not s.optional and s.what in (What.READ, What.SWAP)]:
        _need(one, writers, needed, operations)
    found = Register(initial, steps, writers, needed)
    if None in needed and None not in writers and not found.may_be_deleted:
        raise Contradiction("nothing was there, though nobody had removed what was", needed[None][:1])
    return found


def _need(
    one: Step, writers: dict[str | None, Step], needed: dict[str | None, list[Step]], operations: Sequence[Operation]
) -> None:
    """`one` has happened, so the write of what it needs has, before `one` had ended."""
    stack = [one]
    while stack:
        seen = stack.pop()
        needed.setdefault(seen.needs, []).append(seen)
        if seen.needs is None:
            continue  # by whom it was removed is open
        writer = writers.get(seen.needs)
        if writer is None:
            raise _unwritten(seen, operations)
        if seen.ended_s < writer.began_s:
            raise Contradiction(f"{short(seen.needs)} was seen before its write began", [seen, writer])
        if writer.optional and writer.what is What.SWAP:
            stack.append(writer)
        writer.optional = False
        # The writer of what a writer needs is bounded by that writer: no need to hand the earlier end on.
        writer.ended_s = min(writer.ended_s, seen.ended_s)


def _unwritten(seen: Step, operations: Sequence[Operation]) -> Contradiction:
    for o in operations:
        if o.refused and o.value == seen.needs and o.kind in ("put", "put_if_match"):
            refused = Step(What.PUT, None, o.value, o.began_s, o.ended_s, False, o)
            return Contradiction(
                f"{short(seen.needs)} was seen, though its write was refused with {o.status}", [refused, seen]
            )
    return Contradiction(f"{short(seen.needs)} was seen, which nobody wrote", [seen])
