"""What a job needs next. Pure: its row goes in (metadata/jobs.py), steps come out, each of which may be done twice."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET

from mobula.core import job_names
from mobula.metadata.jobs import Job, State

BATCH = 500
"""items in one dispatch"""
WINDOW = 2000
"""tasks of a map phase that are open at a time: a job of any length keeps as many in memory"""


@dataclass(frozen=True, slots=True)
class Begin:
    """Make the reducers, count the job as running."""


@dataclass(frozen=True, slots=True)
class DispatchItems:
    """Turn the items of a phase's stage after `after`, up to and with `upto`, into tasks, feeds or errors."""

    phase: int
    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class EndFeed:
    """The reducers of a phase have been fed all that there will be."""

    phase: int


@dataclass(frozen=True, slots=True)
class MoveMade:
    """Names that tasks put out in great number become items, some at a time."""


@dataclass(frozen=True, slots=True)
class ClearHandedOn:
    """Objects that were handed on, and are not needed any more, are deleted."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """It was cancelled: what is open ends now."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do."""


Step = Begin | DispatchItems | EndFeed | MoveMade | ClearHandedOn | Abandon | Finish


def is_whole(job: Job, stage: int) -> bool:
    """Nothing will be added to it any more."""
    if stage == 0:
        return job.input_ended
    return is_whole(job, stage - 1) and job.cursors[stage - 1] == job.sizes[stage - 1] and not job.open[stage - 1]


def clears(job: Job, phase: int, name: str) -> bool:
    """Whether an object that a phase takes in is the job's own: made by a phase before, under a name that no user has given."""
    options = job.document.options
    keeps = options is not UNSET and options.keepIntermediate is True
    return phase > 0 and not keeps and name.startswith(f"{job_names.out_base(job.owner.login, job.id)}/")


def steps(job: Job) -> list[Step]:
    """In the order in which they are best done; none: wait for inputs or tasks."""
    if job.state == State.DONE:
        return []
    if job.cancelled:
        return [Abandon(), Finish()] if any(job.open) else [Finish()]
    if job.state == State.QUEUED:
        return [Begin()]
    found: list[Step] = []
    # The last phase first: what is nearest to its end makes room.
    for number, phase in reversed(list(enumerate(job.document.phases))):
        after, size = job.cursors[number], job.sizes[number]
        upto = min(size, after + BATCH)
        # As many as fit, in whole batches: one for each task that ends would be one look at all of them for each.
        if after < upto and (phase.reduces or job.open[number] + upto - after <= WINDOW):
            found.append(DispatchItems(number, after, upto))
        elif phase.reduces and after == size and is_whole(job, number) and job.open[number]:
            found.append(EndFeed(number))
    if job.parts:
        found.append(MoveMade())
    if job.clearing:
        found.append(ClearHandedOn())
    if is_whole(job, len(job.document.phases)) and not job.parts and not job.clearing:
        found.append(Finish())
    return found
