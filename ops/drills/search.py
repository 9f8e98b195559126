"""Linearizability of a register by a bounded search, for what zones leave open: deletes, and preconditions that failed. Pure.

Wing and Gong's search with Lowe's order: time goes forward over beginnings and ends, and what has begun is put in its place only when
the end of something that has not been placed yet asks for it ("just in time"). A configuration is what a register may look like now:
its value, which of the steps under way have been placed, and how many optional writes of each sort were used. Configurations that agree
are one, and one that has used more optional writes is none of its own. What makes it fast:

* reads, and preconditions that failed, are placed as soon as the value allows it: it costs nothing and forbids nothing;
* a value is written once, so it can't be left while anybody is to come who needs it;
* a value that no step needs is everybody's: `ANY`. A put of it that is under way when another write is placed may have happened just
  before that one, and nobody saw it. So its end asks for nothing any more; but it may still be used later: it is placed, not spent;
* of the puts of ANY, and of the deletes, under way the one whose end is next is used first: but for their ends they are the same;
* a put of ANY, and an optional write, is used only if somebody under way is helped by its value at once: else it can wait. Optional
  writes that do the same are one sort: nobody will ever see which of them it was.

A step is the look at one successor; past `steps_max` of them the answer is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ops.drills.register import Register, Step, What

NOTHING, ANY = 0, -1
WHATEVER, SOMETHING = -2, -3
"""instead of a value, as what a write needs"""
Used = tuple[int, ...]
State = tuple[int, int, int]
"""the value's number; a bit for each step under way that has been placed, and for each that is spent"""


class OutOfSteps(Exception):
    """The bound was reached before the answer."""


@dataclass(slots=True)
class Under:
    """What is under way, by its bit."""

    writes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """bit -> (needs, gives) of those that are not in the next two"""
    anys: dict[int, float] = field(default_factory=dict)
    """bit -> end, of puts of ANY"""
    deletes: dict[int, float] = field(default_factory=dict)
    any_bits: int = 0
    reads: dict[int, int] = field(default_factory=dict)
    """value -> bits of the reads that need it"""
    needers: dict[int, int] = field(default_factory=dict)
    """value -> bits of all that need it"""
    nots: dict[int, int] = field(default_factory=dict)
    """value -> bits that need any other"""
    all_nots: int = 0

    def placed(self, value: int, bits: int) -> int:
        """`bits`, and all reads that the value allows."""
        return bits | self.reads.get(value, 0) | (self.all_nots & ~self.nots.get(value, 0))

    def flip(self, step: Step, bit: int, ends: tuple[int, int]) -> None:
        """A step begins, or is over."""
        needs, gives = ends
        if step.what is What.NOT:
            self.nots[needs] = self.nots.get(needs, 0) ^ bit
            self.all_nots ^= bit
            return
        if needs >= NOTHING:
            self.needers[needs] = self.needers.get(needs, 0) ^ bit
        if step.what is What.READ:
            self.reads[needs] = self.reads.get(needs, 0) ^ bit
        elif step.what is What.DELETE:
            _toggle(self.deletes, bit, step.ended_s)
        elif ends == (WHATEVER, ANY):
            _toggle(self.anys, bit, step.ended_s)
            self.any_bits ^= bit
        else:
            _toggle(self.writes, bit, (needs, gives))


def _toggle[T](kept: dict[int, T], bit: int, value: T) -> None:
    if kept.pop(bit, None) is None:
        kept[bit] = value


def _allowed(needs: int, value: int) -> bool:
    return needs in (WHATEVER, value) or (needs == SOMETHING and value != NOTHING)


class Search:
    """One search; `run` says what can't be placed."""

    def __init__(self, register: Register, steps_max: int) -> None:
        self.left = steps_max
        self.steps = register.steps
        self.numbers: dict[str | None, int] = {None: NOTHING}
        needed = {s.needs for s in self.steps if s.what in (What.READ, What.NOT, What.SWAP)}
        self.ends = [self._ends(s, needed) for s in self.steps]
        self.sorts: dict[tuple[int, int], int] = {}
        """(needs, gives) of optional writes -> the sort's number"""
        self.swaps: dict[int, set[int]] = {}
        """what optional writes that have begun give, by the value that they need: it comes once, so it needs no count"""
        self.to_come: Counter[int] = Counter()
        """by value: who will need it and has not begun"""
        for s, (needs, gives) in zip(self.steps, self.ends, strict=True):
            if s.optional and needs <= NOTHING:
                self.sorts.setdefault((needs, gives), len(self.sorts))
            elif not s.optional and needs > NOTHING and s.what is not What.NOT:
                self.to_come[needs] += 1
        self.come = [0] * len(self.sorts)
        """by sort: how many have begun"""
        self.under = Under()
        start = self.numbers.setdefault(register.initial, len(self.numbers))
        self.now: dict[State, list[Used]] = {(start, 0, 0): [(0,) * len(self.sorts)]}

    def _ends(self, step: Step, needed: set[str | None]) -> tuple[int, int]:
        """What a step needs and gives, in numbers."""

        def number(value: str | None) -> int:
            return self.numbers.setdefault(value, len(self.numbers))

        if step.what is What.DELETE:
            return SOMETHING, NOTHING
        gives = ANY if step.gives is not None and step.gives not in needed else number(step.gives)
        return (WHATEVER if step.what is What.PUT else number(step.needs)), gives

    def run(self) -> Step | None:
        """The first step at whose end no order is left; None: there is an order. Raises OutOfSteps."""
        bits: dict[int, int] = {}
        free: list[int] = []
        for _, ending, number in self._events():
            step, ends = self.steps[number], self.ends[number]
            if ending:
                bit = bits.pop(number)
                if not self._end(bit):
                    return step
                self.under.flip(step, bit, ends)
                free.append(bit)
            elif step.optional and ends[0] > NOTHING:
                self.swaps.setdefault(ends[0], set()).add(ends[1])
            elif step.optional:
                self.come[self.sorts[ends]] += 1
            else:
                bits[number] = bit = free.pop() if free else 1 << len(bits)
                self._begin(step, bit, ends)
        return None

    def _events(self) -> list[tuple[float, int, int]]:
        """(time, 0 or 1 for the end, number): what ends when another begins is not before it."""
        begins = [(s.began_s, 0, n) for n, s in enumerate(self.steps)]
        return sorted(begins + [(s.ended_s, 1, n) for n, s in enumerate(self.steps) if not s.optional])

    def _begin(self, step: Step, bit: int, ends: tuple[int, int]) -> None:
        self.under.flip(step, bit, ends)
        if step.what is not What.NOT and ends[0] > NOTHING:
            self.to_come[ends[0]] -= 1
        if not step.writes:
            wants, other = ends[0], step.what is What.NOT
            self.now = {
                (value, placed | bit if (value == wants) != other else placed, spent): used
                for (value, placed, spent), used in self.now.items()
            }

    def _end(self, bit: int) -> bool:
        """Keep the configurations in which `bit` has been placed; False: none."""
        kept: dict[State, list[Used]] = {}
        for state, all_used in self.now.items():
            if state[1] & bit and (state[2] & bit or bit not in self.under.anys):
                for used in all_used:
                    _merge(kept, _without(bit, state), used)
            else:
                self._reach(state, all_used, bit, kept)
        self.now = kept
        return bool(kept)

    def _reach(self, state: State, all_used: Sequence[Used], bit: int, kept: dict[State, list[Used]]) -> None:
        """Where placing steps leads to from here, until `bit` is placed: into `kept`. A put of ANY could still be used: the last chance."""
        stack = [(state, used) for used in all_used]
        seen = set(stack)
        while stack:
            here = stack.pop()
            if here[0][1] & bit:
                _merge(kept, _without(bit, here[0]), here[1])
                if here[0][2] & bit or bit not in self.under.anys:
                    continue
            for after in self._successors(*here, bit):
                self.left -= 1
                if self.left < 0:
                    raise OutOfSteps
                if after not in seen:
                    seen.add(after)
                    stack.append(after)

    def _successors(self, state: State, used: Used, wanted: int) -> Iterator[tuple[State, Used]]:
        value, placed, spent = state
        under, stay = self.under, 0
        if value > NOTHING:
            if self.to_come[value]:
                return
            stay = under.needers.get(value, 0) & ~placed
        for bit, (needs, gives) in under.writes.items():
            if spent & bit or not _allowed(needs, value) or stay & ~bit:
                continue
            unseen = under.any_bits if needs == WHATEVER else 0
            yield (gives, under.placed(gives, placed | bit | unseen), spent | bit), used
        if stay:
            return
        bit = _next(under.deletes, spent)
        if bit and value != NOTHING:
            yield (NOTHING, under.placed(NOTHING, placed | bit | under.any_bits), spent | bit), used
        bit = wanted if wanted in under.anys and not spent & wanted else _next(under.anys, spent)
        if bit:
            after = under.placed(ANY, placed | under.any_bits)
            if bit == wanted or under.placed(ANY, placed) != placed or self._helps(value, ANY, spent, used):
                yield (ANY, after, spent | bit), used
        yield from self._optional(state, used)

    def _optional(self, state: State, used: Used) -> Iterator[tuple[State, Used]]:
        value, placed, spent = state
        for gives in self.swaps.get(value, ()):
            after = self.under.placed(gives, placed)
            if after != placed or self._helps(value, gives, spent, used):
                yield (gives, after, spent), used
        for (needs, gives), sort in self.sorts.items():
            if used[sort] < self.come[sort] and gives != value and _allowed(needs, value):
                after = self.under.placed(gives, placed)
                if after != placed or self._helps(value, gives, spent, used):
                    unseen = self.under.any_bits if needs in (WHATEVER, SOMETHING) else 0
                    yield (gives, after | unseen, spent), (*used[:sort], used[sort] + 1, *used[sort + 1 :])

    def _helps(self, value: int, gives: int, spent: int, used: Used) -> bool:
        """A write is possible after `gives` that was not after `value`."""
        if gives in self.swaps or (value == NOTHING and _next(self.under.deletes, spent)):
            return True
        possible = [needs for bit, (needs, _) in self.under.writes.items() if not spent & bit]
        possible += [needs for (needs, _), sort in self.sorts.items() if used[sort] < self.come[sort]]
        return any(not _allowed(needs, value) and _allowed(needs, gives) for needs in possible)


def _without(bit: int, state: State) -> State:
    return state[0], state[1] & ~bit, state[2] & ~bit


def _next(ends: dict[int, float], spent: int) -> int:
    """The bit whose end is next; 0: none."""
    return min((bit for bit in ends if not spent & bit), key=ends.__getitem__, default=0)


def _merge(kept: dict[State, list[Used]], state: State, used: Used) -> None:
    """Of a state, those that used least stay."""
    others = kept.setdefault(state, [])
    if not any(all(a <= b for a, b in zip(other, used, strict=True)) for other in others):
        others[:] = [o for o in others if not all(b <= a for a, b in zip(o, used, strict=True))]
        others.append(used)
