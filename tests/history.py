"""What a history of requests for one name must not show. Pure.

A name is a register: a PUT writes a value that nobody else writes, a DELETE writes None, a GET reads. The register is linearizable only
if each read gives a value whose write began before the read ended, and which no other write, begun after that one had ended, had surely
replaced before the read began. (Necessary; for histories with few writes at a time, all that tends to go wrong.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A request and its answer: times in s of one clock. `sure` False: it may have happened, or not."""

    writes: bool
    value: str | None
    """None: nothing there"""
    began_s: float
    ended_s: float
    sure: bool = True


def stale_reads(history: Sequence[Event]) -> list[str]:
    """A sentence for each read that no order of the writes explains."""
    nothing = Event(writes=True, value=None, began_s=float("-inf"), ended_s=float("-inf"))
    writes = [nothing, *(event for event in history if event.writes)]
    found = []
    for read in (event for event in history if not event.writes and event.sure):
        sources = [write for write in writes if write.value == read.value and write.began_s <= read.ended_s]
        if not sources:
            found.append(f"a read ended at {read.ended_s:.4f} with {read.value!r}, which nobody had written")
        elif all(any(_between(write, other, read) for other in writes) for write in sources):
            found.append(f"a read began at {read.began_s:.4f} and gave {read.value!r}, which had been replaced")
    return found


def _between(write: Event, other: Event, read: Event) -> bool:
    """`other` came for sure after `write`, and was over before `read` began."""
    return other.sure and write.ended_s < other.began_s and other.ended_s < read.began_s
