"""The jobs API: create, add inputs, end, cancel, look. Source: the compute contract, section "HTTP API (front door)"."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator

import msgspec

from mobula.core.errors import ApiError
from mobula.core.job import BODY_BYTES_MAX, InvalidJob, check_images, parse
from mobula.core.paths import Path
from mobula.metadata import job_said
from mobula.metadata.job_said import error_line, first_input, stamp, status
from mobula.metadata.jobs import InvalidState, Job, JobDoor, Owner
from mobula.metadata.model import Entry, Kind, Metadata, NotFound
from mobula.webapi.context import Context, JobsOfRegion

LIVE_MAX = 100
"""names and errors that a live list shows"""
LIST_MAX = 1000
NAMES_AT_ONCE = 1000
NAME_BYTES_MAX = 16_384
"""of a line of inputs: far more than any object's name may have"""
LISTING_KEYS = frozenset({"state", "status", "name"})
FILTER_KEYS = ("state", "status")
RUNNING = frozenset({"running", "live"})
WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
JOB_TYPE = "application/x-json-stream; type=job"
ERROR_TYPE = "application/x-json-stream; type=job-error"
TEXT_TYPE = "text/plain"
ARCHIVED = frozenset((name,) for name in ("in.txt", "out.txt", "fail.txt", "err.txt", "job.json"))
FOLDERS = ("", "/live", "/stor")


async def handle(context: Context, jobs: JobsOfRegion, metadata: Metadata) -> bool:
    """Answer a request below ``/:login/jobs``, whose caller may do so; False: it is about directories and objects, as any other.

    Raises:
        ApiError: as the contract says.
    """
    method, names = context.request.method, context.path.names[1:]
    if not names:
        if method == "POST":
            await _create(context, jobs, metadata)
        elif method == "GET" and LISTING_KEYS & context.query.keys():
            await _list(context, jobs.door)
        else:
            return False
        return True
    if len(names) > 2 and names[1] == "live":
        await _live(context, jobs, _id(context), (method, *names[2:]))
        return True
    if method == "PUT":
        _may_put(context)
    return False


def _may_put(context: Context) -> None:
    """Nobody but the job itself puts anything there, and who archives it its lists. Raises ApiError."""
    names, caller = context.path.names, context.caller
    may = caller is not None and caller.job is not None and names[1] == str(caller.job)
    if not may or not (names[2:3] == ("stor",) or (caller and caller.archives and names[2:] in ARCHIVED)):
        raise ApiError.of("AuthorizationFailed", who=caller or "anonymous", path=context.path)


def _id(context: Context) -> uuid.UUID:
    """Raises ApiError: it is no job's id."""
    try:
        return uuid.UUID(context.path.names[1])
    except ValueError as error:
        raise _unknown(context) from error


def _unknown(context: Context) -> ApiError:
    return ApiError.of("ResourceNotFound", path=Path(context.path.login, context.path.names[:2]))


async def live_job(context: Context, door: JobDoor, job: uuid.UUID) -> Job:
    """The job, if it is the account's, and live. Raises ApiError."""
    try:
        found = await door.look(job)
    except NotFound as error:
        raise _unknown(context) from error
    if found.owner.account != context.owner.uuid or not found.live:
        raise _unknown(context)
    return found


async def _create(context: Context, jobs: JobsOfRegion, metadata: Metadata) -> None:
    caller = context.caller
    if caller is None:
        raise ApiError.of("AuthorizationFailed", who="anonymous", path=context.path)
    body = await context.body(BODY_BYTES_MAX)
    try:
        document = parse(body, operator=caller.account.operator)
        check_images(document, jobs.images)
    except InvalidJob as error:
        raise ApiError.of("InvalidJob", why=str(error)) from error
    job = uuid.uuid4()
    base = f"/{context.owner.uuid}/jobs"
    for folder in FOLDERS:
        above, _, name = f"{base}/{job}{folder}".rpartition("/")
        entry = Entry(name, Kind.DIRECTORY, dt.datetime.now(dt.UTC))
        await metadata.put_directory(above, entry, parent_is_root=above == base)
    # The account whose job it is, not an operator who asks for it.
    owner = Owner(context.owner.uuid, context.owner.login, caller.user.uuid if caller.user else None)
    await jobs.door.create(job, owner, document)
    jobs.wake(job)
    await context.response.send(201, [("Location", f"/{context.owner.login}/jobs/{job}"), *context.cors()])


async def _list(context: Context, door: JobDoor) -> None:
    query = context.query
    for key in FILTER_KEYS:
        if query.get(key) and query[key] not in RUNNING:
            raise ApiError.of("InvalidParameter", name=key, found=query[key][:80])
    name = query.get("name") or None
    if name is not None and not WORD.issuperset(name):
        raise ApiError.of("InvalidParameter", name="name", found=name[:80])
    running = any(query.get(key) for key in FILTER_KEYS)
    found = await door.of_account(context.owner.uuid, name=name, running=running, limit=LIST_MAX)
    lines = (job_said.line({"name": str(job.id), "type": "directory", "mtime": stamp(job.created)}) for job in found)
    await context.response.send(
        200, [("Content-Type", JOB_TYPE), ("Result-Set-Size", str(len(found)))], b"".join(lines)
    )


async def _live(context: Context, jobs: JobsOfRegion, job: uuid.UUID, asked: tuple[str, ...]) -> None:
    row = await live_job(context, jobs.door, job)
    match asked:
        case "GET", "status":
            body = msgspec.json.encode(status(row))
            await context.response.send(200, [("Content-Type", "application/json")], body)
        case "GET", "in":
            await _names(context, await jobs.door.newest(job, 0, LIVE_MAX), row.sizes[0])
        case "GET", "out":
            await _names(context, await jobs.door.newest(job, len(row.sizes) - 1, LIVE_MAX), row.sizes[-1])
        case "GET", "fail":
            errors = await jobs.door.newest_errors(job, LIVE_MAX)
            names = [name for error in errors if (name := first_input(error))]
            await _names(context, names, row.errors - (len(errors) - len(names)))  # a reducer's error has none
        case "GET", "err":
            errors = await jobs.door.newest_errors(job, LIVE_MAX)
            headers = [("Content-Type", ERROR_TYPE), ("Result-Set-Size", str(row.errors))]
            await context.response.send(200, headers, b"".join(job_said.line(error_line(error)) for error in errors))
        case "POST", "in":
            await _add(context, jobs, row)
        case "POST", "in", "end":
            await context.body(BODY_BYTES_MAX)
            await _change(jobs, job, jobs.door.end)
            await context.response.send(202)
        case "POST", "cancel":
            await context.body(BODY_BYTES_MAX)
            await _change(jobs, job, jobs.door.cancel)
            await context.response.send(202)
        case _:
            raise ApiError.of("ResourceNotFound", path=context.path)


async def _names(context: Context, names: Iterable[str], total: int) -> None:
    body = "".join(f"{name}\n" for name in names).encode()
    await context.response.send(200, [("Content-Type", TEXT_TYPE), ("Result-Set-Size", str(total))], body)


async def _change(jobs: JobsOfRegion, job: uuid.UUID, change: Callable[[uuid.UUID], Awaitable[None]]) -> None:
    """Raises ApiError: its state forbids it."""
    try:
        await change(job)
    except InvalidState as error:
        raise _wrong_state(job, error) from error
    jobs.wake(job)


def _wrong_state(job: uuid.UUID, error: InvalidState) -> ApiError:
    return ApiError.of("InvalidJobState", job=job, state=error.found)


async def _add(context: Context, jobs: JobsOfRegion, row: Job) -> None:
    """Names are kept while the body still comes; of one that is refused in its middle, those before are."""
    try:
        await jobs.door.add(row.id, [])  # before a byte is taken
        lines = Lines()
        with context.bound.paused():
            async for chunk in context.request.chunks():
                for names in lines.feed(chunk):
                    await jobs.door.add(row.id, names)
                    jobs.wake(row.id)
        if names := lines.end():
            await jobs.door.add(row.id, names)
        if context.query.get("end") == "true":
            await jobs.door.end(row.id)
    except InvalidState as error:
        raise _wrong_state(row.id, error) from error
    jobs.wake(row.id)
    await context.response.send(204)


class Lines:
    """Names out of a body, one a line, ended by LF or CR LF or the body's end; empty ones are none."""

    def __init__(self) -> None:
        self._rest = b""
        self._names: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[list[str]]:
        """Batches that are full. Raises ApiError: a line is longer than any name, or has NUL."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        _check(self._rest)
        for line in lines:
            self._keep(line)
            if len(self._names) >= NAMES_AT_ONCE:
                yield self._take()

    def end(self) -> list[str]:
        """The last ones."""
        self._keep(self._rest)
        return self._take()

    def _take(self) -> list[str]:
        names, self._names = self._names, []
        return names

    def _keep(self, line: bytes) -> None:
        _check(line)
        if name := line.removesuffix(b"\r").decode(errors="replace"):
            self._names.append(name)


def _check(line: bytes) -> None:
    if len(line) > NAME_BYTES_MAX or b"\0" in line:
        raise ApiError.of(
            "BadRequestError", why=f"an input begins with {line[:60]!r}: it is too long for a name, or has NUL"
        )
