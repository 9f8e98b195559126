"""Jobs, as both drivers do it: create, feed, wait, look. Source: the compute contract, section "HTTP API (front door)".

A job is named by its id, or by its path (``/demo/jobs/<id>``). All raise MobulaError.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mobula.client.effects import Emit, Operation, Pause, Stream, ask, body, refusal, send
from mobula.client.errors import MobulaError, NotFound, Unavailable
from mobula.client.model import Body, Entry, Request
from mobula.client.tree import list_directory, read_page

JOB_TYPE = "application/json; type=job"
POLL_S = 0.02
"""the first pause of whoever waits; the shortest jobs take 50 ms"""
POLL_GROWTH = 1.25
"""each pause is that much longer, so the end is noticed a fifth of the job's time late at most"""
POLL_S_MAX = 2.0
AWAY_MAX = 10
"""questions in a row without an answer, each of them several tries: a minute in which nobody can be reached is no end of a long job"""
LIVE_MAX = 100
"""lines that the service shows of a list, until the job is archived"""
ARCHIVE_S_MAX = 60.0
Status = Mapping[str, Any]
"""the status document, as the service says it"""


class LiveList(NamedTuple):
    """The newest names of a job, or its newest errors as JSON, the oldest first; `total`: how many there are."""

    lines: Sequence[str]
    total: int

    @property
    def whole(self) -> bool:
        return len(self.lines) >= self.total

    @property
    def said(self) -> Iterator[str]:
        """Those that say something: an error without an input has an empty name among the failures."""
        return filter(None, self.lines)


def job_path(job: str) -> str:
    """The path of a job, of its id or whatever ends in it. Pure.

    Raises:
        MobulaError: InvalidPath.
    """
    above, _, text = job.rstrip("/").rpartition("/")
    try:
        number = uuid.UUID(text)
    except ValueError:
        raise MobulaError(
            "InvalidPath", f"use the job {job!r}: neither an id nor a path that ends in one, as ~~/jobs/ID does"
        ) from None
    return f"{above if above.startswith(('/', '~~/')) else '~~/jobs'}/{number}"


def job_id(job: str) -> str:
    """The id of a job. Pure. Raises MobulaError (InvalidPath)."""
    return job_path(job).rpartition("/")[2]


def create_job(document: bytes) -> Operation[str]:
    """Start a job, of its document in JSON; answers its id. Its input is open.

    Raises:
        MobulaError: also InvalidJob, which names the property.
    """
    headers = (("Content-Type", JOB_TYPE),)
    # Not repeated: who loses the answer would have two jobs.
    request = Request("POST", "~~/jobs", (), headers, Body.of(document), repeatable=False)
    answer = yield from ask(request)
    return job_id(answer.headers.get("location", ""))


def add_inputs(job: str, names: Sequence[bytes]) -> Operation[None]:
    """More inputs, kept as they are; one that is added twice is two tasks. When it fails, some may have been added."""
    headers = (("Content-Type", "text/plain"),)
    text = Body.of(b"".join(name + b"\n" for name in names))
    yield from ask(Request("POST", f"{job_path(job)}/live/in", (), headers, text, repeatable=False))


def end_inputs(job: str) -> Operation[None]:
    """There will be no more; ending twice is no error."""
    yield from _order(f"{job_path(job)}/live/in/end")


def cancel_job(job: str) -> Operation[None]:
    """End it, done or not; it takes a moment."""
    yield from _order(f"{job_path(job)}/live/cancel")


def _order(path: str) -> Operation[None]:
    request = Request("POST", path)
    answer = yield from send(request)
    if answer.status == 409 and answer.repeated:
        return  # the first try did it, and its answer was lost
    if answer.status >= 300:
        raise (yield from refusal(request, answer))


def job_status(job: str) -> Operation[Status]:
    """How far a job is; of one that is archived, how far it came."""
    path = job_path(job)
    try:
        return (yield from _document(f"{path}/live/status"))
    except NotFound as gone:
        try:
            return (yield from _document(f"{path}/job.json"))
        except NotFound:
            raise gone from None


def _document(path: str) -> Operation[Status]:
    yield from ask(Request("GET", path))
    text = yield from body()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MobulaError("InvalidAnswer", f"read {path}: it is no JSON ({error})") from error
    if not isinstance(found, dict) or not {"state", "stats"} <= found.keys():
        raise MobulaError("InvalidAnswer", f"read {path}: it is no job's status")
    return found


def wait_job(job: str) -> Stream[Status]:
    """Its status, again and again until it is done; that is the last one."""
    return Stream(_statuses(job))


def _statuses(job: str) -> Operation[None]:
    yield from wait_done(job)


def wait_done(job: str) -> Operation[Status]:
    """Its status when it is done; what it was meanwhile is emitted."""
    pause_s, away = POLL_S, 0
    while True:
        try:
            found = yield from job_status(job)
        except Unavailable:
            away += 1
            if away == AWAY_MAX:
                raise
        else:
            away = 0
            yield Emit(found)
            if found["state"] == "done":
                return found
        yield Pause(pause_s)
        pause_s = min(pause_s * POLL_GROWTH, POLL_S_MAX)


def wait_archived(job: str) -> Operation[bool]:
    """Wait until a job that is done is archived; False: it took too long."""
    waited_s, pause_s = 0.0, POLL_S
    while not is_archived((yield from job_status(job))):
        if waited_s >= ARCHIVE_S_MAX:
            return False
        yield Pause(pause_s)
        waited_s += pause_s
        pause_s = min(pause_s * POLL_GROWTH, POLL_S_MAX)
    return True


def is_archived(status: Status) -> bool:
    """Its lists are objects by now. Pure."""
    return bool(status.get("timeArchiveDone"))


def live_list(job: str, what: str) -> Operation[LiveList]:
    """The newest names of a job that is not archived. `what`: ``in``, ``out``, ``fail``; or ``err``, its errors."""
    answer = yield from ask(Request("GET", f"{job_path(job)}/live/{what}"))
    lines = (yield from body()).decode(errors="replace").split("\n")[:-1]
    total = answer.headers.get("result-set-size", "")
    return LiveList(lines, int(total) if total.isascii() and total.isdigit() else len(lines))


def archived_path(job: str, what: str) -> str:
    """The object that has all of such a list once the job is archived. Pure."""
    return f"{job_path(job)}/{what}.txt"


def list_jobs(*, name: str | None = None, state: str | None = None) -> Stream[Entry]:
    """The account's jobs; those of that name, or in that `state` (``running``), the newest 1000 of them."""
    if name is None and state is None:
        return list_directory("~~/jobs")
    return Stream(_found(name, state))


def _found(name: str | None, state: str | None) -> Operation[None]:
    query = [(key, value) for key, value in (("name", name), ("state", state)) if value is not None]
    yield from ask(Request("GET", "~~/jobs", tuple(query), (("Accept", "*/*"),)))
    for entry in read_page((yield from body()), "~~/jobs"):
        yield Emit(entry)
