"""Linearizability of a register by a bounded search, for what zones leave open: deletes, and preconditions that failed. Pure.

Wing and Gong's search with Lowe's order: time goes forward over beginnings and ends, and what has begun is put in its place only when
the end of something that has not been placed yet asks for it ("just in time"). A configuration is what a register may look like now: its value,
which of the steps under way have been placed, and how many optional writes of each sort were used. Configurations that agree are
one, and one that has used more optional writes is none of its own. What makes it fast:

* reads, and preconditions that failed, are placed as soon as the value allows it: it costs nothing and forbids nothing;
* an optional write is used only if somebody under way is helped by its value at once: it can wait for that for ever;
* optional writes that do the same are one sort: nobody will ever see which of them it was. A value that no step needs is
  everybody's: `ANY`.

A step is the look at one successor; past `steps_max` of them the answer is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from ops.drills.register import Register, Step, What

NOTHING, ANY = 0, -1
Used = tuple[int, ...]
State = tuple[int, int]
"""the value's number, and the places under way that have been filled, a bit each"""
Configurations = dict[State, list[Used]]


class OutOfSteps(Exception):  # noqa: N818
    """The bound was reached before the answer."""


@dataclass(slots=True)
class Under:
    """What is under way: by bit, and for reads by what they need."""

    writes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """bit -> (needs, gives)"""
    reads: dict[int, int] = field(default_factory=dict)
    """value -> bits that need it"""
    nots: dict[int, int] = field(default_factory=dict)
    """value -> bits that need any other"""
    all_nots: int = 0

    def placed(self, value: int, bits: int) -> int:
        """`bits`, and all reads that the value allows."""
        return bits | self.reads.get(value, 0) | (self.all_nots & ~self.nots.get(value, 0))

    def begin(self, step: Step, bit: int, needs: int, gives: int) -> None:
        """A step comes under way."""
        if step.what is What.READ:
            self.reads[needs] = self.reads.get(needs, 0) | bit
        elif step.what is What.NOT:
            self.nots[needs] = self.nots.get(needs, 0) | bit
            self.all_nots |= bit
        else:
            self.writes[bit] = (needs, gives)

    def end(self, step: Step, bit: int, needs: int) -> None:
        """A step is over."""
        if step.what is What.READ:
            self.reads[needs] &= ~bit
        elif step.what is What.NOT:
            self.nots[needs] &= ~bit
            self.all_nots &= ~bit
        else:
            del self.writes[bit]


WHATEVER, SOMETHING = -2, -3
"""instead of a value, as what a write needs"""


def _allowed(needs: int, value: int) -> bool:
    return needs in (WHATEVER, value) or (needs == SOMETHING and value != NOTHING)


class Search:
    """One search; `run` says what can't be placed."""

    def __init__(self, register: Register, steps: Sequence[Step], steps_max: int) -> None:
        self.left = steps_max
        self.steps = steps
        self.numbers: dict[str | None, int] = {None: NOTHING}
        needed = {s.needs for s in steps if s.what in (What.READ, What.NOT, What.SWAP)}
        self.ends = [self._ends(s, needed) for s in steps]
        self.sorts: dict[tuple[int, int], int] = {}
        """(needs, gives) of optional writes -> the sort's number"""
        for s, ends in zip(steps, self.ends, strict=True):
            if s.optional:
                self.sorts.setdefault(ends, len(self.sorts))
        self.come = [0] * len(self.sorts)
        """by sort: how many have begun"""
        self.under = Under()
        start = self.numbers.setdefault(register.initial, len(self.numbers))
        self.now: Configurations = {(start, 0): [(0,) * len(self.sorts)]}

    def _ends(self, step: Step, needed: set[str | None]) -> tuple[int, int]:
        """What a step needs and gives, in numbers."""

        def number(value: str | None) -> int:
            return self.numbers.setdefault(value, len(self.numbers))

        if step.what is What.DELETE:
            return SOMETHING, NOTHING
        gives = ANY if step.gives is not None and step.gives not in needed else number(step.gives)
        return (WHATEVER if step.what is What.PUT else number(step.needs)), gives

    def run(self, until_s: float = inf) -> Step | None:
        """The first step at whose end (up to `until_s`) no order is left; None: there is an order. Raises OutOfSteps."""
        bits: dict[int, int] = {}
        free: list[int] = []
        width = 0
        for _, ending, number in self._events(until_s):
            step, (needs, gives) = self.steps[number], self.ends[number]
            if ending:
                bit = bits.pop(number)
                if not self._end(bit):
                    return step
                self.under.end(step, bit, needs)
                free.append(bit)
            elif step.optional:
                self.come[self.sorts[needs, gives]] += 1
            else:
                if not free:
                    free.append(1 << width)
                    width += 1
                bits[number] = bit = free.pop()
                self.under.begin(step, bit, needs, gives)
                if not step.writes:
                    self.now = _merged(
                        ((value, self.under.placed(value, placed)), used)
                        for (value, placed), all_used in self.now.items()
                        for used in all_used
                    )
        return None

    def _events(self, until_s: float) -> list[tuple[float, int, int]]:
        """(time, 0 or 1 for the end, number): what ends when another begins is not before it."""
        begun = [(n, s) for n, s in enumerate(self.steps) if s.began_s <= until_s]
        ends = [(s.ended_s, 1, n) for n, s in begun if not s.optional and s.ended_s <= until_s]
        return sorted([(s.began_s, 0, n) for n, s in begun] + ends)

    def _end(self, bit: int) -> bool:
        """Keep the configurations in which `bit` has been placed; False: none."""
        found: list[tuple[State, Used]] = []
        for (value, placed), all_used in self.now.items():
            if placed & bit:
                found += [((value, placed), used) for used in all_used]
            else:
                found += self._reached(value, placed, all_used, bit)
        self.now = _merged(((value, placed & ~bit), used) for (value, placed), used in found)
        return bool(self.now)

    def _reached(self, value: int, placed: int, all_used: Sequence[Used], bit: int) -> list[tuple[State, Used]]:
        """Where placing steps leads to from here, until `bit` is placed."""
        stack = [(value, placed, used) for used in all_used]
        seen, found = set(stack), []
        while stack:
            for after in self._successors(*stack.pop()):
                self.left -= 1
                if self.left < 0:
                    raise OutOfSteps
                if after in seen:
                    continue
                seen.add(after)
                if after[1] & bit:
                    found.append(((after[0], after[1]), after[2]))
                else:
                    stack.append(after)
        return found

    def _successors(self, value: int, placed: int, used: Used) -> Iterable[tuple[int, int, Used]]:
        for bit, (needs, gives) in self.under.writes.items():
            if not placed & bit and _allowed(needs, value):
                yield gives, self.under.placed(gives, placed | bit), used
        for (needs, gives), sort in self.sorts.items():
            if used[sort] < self.come[sort] and gives != value and _allowed(needs, value):
                after = self.under.placed(gives, placed)
                if after != placed or self._helps(value, gives, placed, used):
                    yield gives, after, (*used[:sort], used[sort] + 1, *used[sort + 1 :])

    def _helps(self, value: int, gives: int, placed: int, used: Used) -> bool:
        """A write is possible after `gives` that was not after `value`."""
        writes = (needs for bit, (needs, _) in self.under.writes.items() if not placed & bit)
        optional = (needs for (needs, _), sort in self.sorts.items() if used[sort] < self.come[sort])
        return any(
            not _allowed(needs, value) and _allowed(needs, gives) for several in (writes, optional) for needs in several
        )


def _merged(found: Iterable[tuple[State, Used]]) -> Configurations:
    """By state, those that used least."""
    out: Configurations = {}
    for state, used in found:
        others = out.get(state)
        if others is None:
            out[state] = [used]
        elif not any(all(a <= b for a, b in zip(other, used, strict=True)) for other in others):
            out[state] = [o for o in others if not all(b <= a for a, b in zip(o, used, strict=True))] + [used]
    return out
