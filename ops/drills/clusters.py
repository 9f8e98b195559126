"""Linearizability of a register by the zones of its values (Gibbons and Korach): a sort, no search. Pure.

All that speaks of one value (its write, its reads) is a cluster, and in any order that explains the history a cluster stands together.
A write that needed a value follows that value's cluster directly, so such clusters are welded to a chain, in one order only. Of two
chains one is wholly before the other; it can't be before if anything of the other ended before something of it began. So with `first`
the earliest end in a chain and `last` the latest beginning, chains A and B contradict each other if first(A) < last(B) and
first(B) < last(A); if no two do, there is an order of all (a longer cycle would have first(A) < first(C) < ... < first(A)).

This is exact unless something was, or may have been, deleted (who reads nothing does not say since which delete), or a precondition
failed (which says only what was not there). Then what is found here is still a contradiction, but nothing found proves nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ops.drills.history import short
from ops.drills.register import Contradiction, Register, Step, What


@dataclass(frozen=True, slots=True)
class Chain:
    """Clusters that stand together."""

    values: tuple[str | None, ...]
    first: Step
    """whose end is the earliest"""
    last: Step
    """whose beginning is the latest"""

    @property
    def name(self) -> str:
        """For people."""
        names = [short(value) for value in self.values]
        return names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"


def exact(register: Register) -> bool:
    """No contradiction found by `compare` means that there is none."""
    return not register.may_be_deleted and not any(s.what is What.NOT for s in register.steps)


def compare(register: Register) -> None:
    """Raises Contradiction if the values can't have followed each other in any order."""
    chains = _chains(register)
    # A zone is the time in which a chain was surely there; what has none may have been there for a moment between.
    zones = sorted((c for c in chains if c.first.ended_s < c.last.began_s), key=lambda c: c.first.ended_s)
    for one, other in pairwise(zones):
        if other.first.ended_s < one.last.began_s:
            raise _apart(one, other)
    firsts = [zone.first.ended_s for zone in zones]
    for chain in chains:
        if chain.first.ended_s >= chain.last.began_s:
            at = bisect_left(firsts, chain.last.began_s) - 1
            if at >= 0 and chain.first.ended_s < zones[at].last.began_s:
                raise _apart(zones[at], chain)


def _apart(one: Chain, other: Chain) -> Contradiction:
    return Contradiction(
        f"{one.name} and {other.name} were each there both before and after the other",
        [one.first, other.last, other.first, one.last],
    )


def _chains(register: Register) -> list[Chain]:
    """Of every value that has surely been there."""
    deletions = register.may_be_deleted
    follower: dict[str | None, Step] = {}
    for value, needing in register.needed.items():
        swaps = [s for s in needing if s.what is What.SWAP]
        if value is None and deletions:
            continue  # may have needed the nothing of different times
        if len(swaps) > 1:
            raise Contradiction(f"{len(swaps)} writes succeeded on {short(value)}, which the first had replaced", swaps)
        if swaps:
            follower[value] = swaps[0]
    chains, seen = [], set[str | None]()
    for value, writer in register.writers.items():
        if writer.optional or (value is None and deletions):
            continue
        if writer.what is What.SWAP and follower.get(writer.needs) is writer:
            continue  # in the midst of a chain
        chains.append(_chain(register, value, follower))
        seen.update(chains[-1].values)
    rest = [
        w for v, w in register.writers.items() if v not in seen and not w.optional and not (v is None and deletions)
    ]
    if rest:
        raise Contradiction("writes each of which needed the value of another one", rest)
    return chains


def _chain(register: Register, head: str | None, follower: dict[str | None, Step]) -> Chain:
    """From its head; raises Contradiction if it can't be in this order."""
    values: list[str | None] = []
    value, writer = head, register.writers[head]
    first, last = writer, writer
    groups: list[Sequence[Step]] = []
    while True:
        values.append(value)
        following = follower.get(value)
        groups += [[writer], [s for s in register.needed.get(value, ()) if s is not following]]
        if following is None or following.gives is None:
            groups += [[following]] if following else []
            break
        value, writer = following.gives, following
    for group in groups:
        for one in group:
            if one.ended_s < last.began_s:
                raise Contradiction(f"{_of(last)} comes before {_of(one)} and began after that had ended", [last, one])
        last = max([last, *group], key=lambda s: s.began_s)
        first = min([first, *group], key=lambda s: s.ended_s)
    return Chain(tuple(values), first, last)


def _of(step: Step) -> str:
    if step.what is What.READ:
        return f"the read of {short(step.needs)}"
    return f"the write of {short(step.gives)}" if step.gives is not None else f"the removal of {short(step.needs)}"
