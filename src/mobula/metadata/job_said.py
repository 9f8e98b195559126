"""What the API says of a job and its errors, live and in its archive. Pure.

Source: the compute contract, sections "Job document", "Errors".
"""

from __future__ import annotations

import datetime as dt

import msgspec
from msgspec import UNSET

from mobula.core.dates import iso_ms
from mobula.metadata.jobs import Attempt, Job, JobError, State, task_id


def status(job: Job) -> dict[str, object]:
    """The status document."""
    document = job.document
    found: dict[str, object] = {
        "id": str(job.id),
        "name": document.name,
        "state": job.state.value,
        "cancelled": job.cancelled,
        "inputDone": job.input_ended,
        "transient": document.transient,
        "stats": {
            "errors": job.errors, "outputs": job.sizes[-1], "retries": job.retries, "tasks": job.tasks, "tasksDone": job.tasks_done,
        },
        "timeCreated": stamp(job.created),
        "phases": msgspec.to_builtins(document.phases),
    }  # fmt: skip
    if document.options is not UNSET:
        found["options"] = msgspec.to_builtins(document.options)
    if job.state == State.DONE:
        found["timeDone"] = stamp(job.done)
    for name, at in (("timeArchiveStarted", job.archive_started), ("timeArchiveDone", job.archived)):
        if at is not None:
            found[name] = stamp(at)
    return found


def first_input(error: JobError) -> str:
    """The job's input that an error goes back to; "" if there is none."""
    return error.first_input or ("" if error.phase else error.name)


def error_line(error: JobError) -> dict[str, object]:
    """An error as the API says it."""
    first, what = first_input(error), f"phase {error.phase}: reduce"
    if error.name:
        what = f'phase {error.phase}: input "{error.name}"'
        if error.phase and first:
            what += f' (from job input "{first}")'
    found: dict[str, object] = {
        "phase": str(error.phase), "phaseNum": str(error.phase), "what": what, "code": error.code, "message": error.message,
    }  # fmt: skip
    more = {"input": error.name, "p0input": first, "stderr": error.stderr, "core": error.core}
    return found | {name: value for name, value in more.items() if value}


def archived_error_line(job: Job, error: JobError) -> dict[str, object]:
    """The same, and which attempt on which host it was, if there was one."""
    found = error_line(error)
    if error.task is not None:
        found["taskId"] = str(task_id(Attempt(job.id, error.task, error.attempt)))
    if error.server:
        found["server"] = error.server
    return found


def line(value: dict[str, object]) -> bytes:
    """Of JSON."""
    return msgspec.json.encode(value) + b"\n"


def stamp(at: dt.datetime | None) -> str:
    """None: long ago."""
    return iso_ms(at or dt.datetime.fromtimestamp(0, dt.UTC))
