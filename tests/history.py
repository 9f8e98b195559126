"""What a history of requests for one name must not show. Pure.

A name is a register: a PUT writes a value that nobody else writes, a DELETE writes None, a GET reads. The register is linearizable only
if each read gives a value whose write began before the read ended, and which no later write had surely replaced before the read began.
Later is what began after the other had ended, and what was read after the other was. A write has surely happened when it was answered,
or when a read has given its value. (Necessary, not sufficient.)
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
        elif all(any(_replaced(write, other, read, history) for other in writes) for write in sources):
            found.append(f"a read began at {read.began_s:.4f} and gave {read.value!r}, which had been replaced")
    return found


def _replaced(write: Event, other: Event, read: Event, history: Sequence[Event]) -> bool:
    """`other` is later than `write`, and had happened before `read` began."""
    if other.value == write.value:
        return False
    seen = [event for event in _reads(history, other) if event.ended_s < read.began_s]
    happened = bool(seen) or (other.sure and other.ended_s < read.began_s)
    later = write.ended_s < other.began_s or any(
        first.ended_s < second.began_s for first in _reads(history, write) for second in seen
    )
    return happened and later


def _reads(history: Sequence[Event], write: Event) -> list[Event]:
    """Reads that show that this write has happened: nobody else writes its value. None is written by many."""
    if write.value is None:
        return []
    return [event for event in history if not event.writes and event.value == write.value]
