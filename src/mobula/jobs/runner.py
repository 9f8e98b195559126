"""Runs a task on a storage host: a sandbox of its job and phase, the command in it, and what came of it to where it belongs.

Source: the compute contract, sections "Task life", "Environment variables", "Names of anonymous objects", "Reducers".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from mobula.core import job_names, medusa
from mobula.core.job import Phase
from mobula.jobs.board import Group, group_of
from mobula.jobs.lead import Order
from mobula.jobs.posting import Emitted, Keeper, Posting
from mobula.jobs.verdict import INIT_ABORTED, INVALID_ARGUMENT, NO_IMAGE, TASK_INIT, USER_TASK, failure
from mobula.metadata.jobs import Attempt, Feed, JobError, Made, Result, Version, task_id
from mobula.metadata.model import MetadataError
from mobula.sandbox.sandbox import Command, Ended, Sandbox, SandboxError

log = structlog.get_logger()

PATH = "/usr/local/lib/mobula/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
URL = "http://localhost:80/"
FEEDS = 16
"""names that a reducer asks for at a time"""
FEED_PAUSE_S = 0.2
SMALL_BYTES = 64 << 10
"""an output up to this is put when its sandbox is somebody else's already"""
PUTS = 32
"""small outputs on their way at a time; a task that has one more counts as running until there is room"""

Source = bytes | int
"""bytes, or a descriptor, whose file is meant from its beginning to its end"""


class Lost(Exception):
    """An attempt came to nothing for a reason that is not the user's: somebody else may have it."""


class StoreError(Exception):
    """The store did not do what it was asked, and was asked often enough."""


class NoAsset(Exception):
    """An asset could not be had; the sentence is the contract's."""


class NoImage(Exception):
    """This host has no image of a version that the job asks for."""


class Store(Protocol):
    """The storage API, as a job's user."""

    async def fetch(self, order: Order, name: str, into: Path) -> None:
        """Raises NoAsset, StoreError."""

    async def put(self, order: Order, name: str, source: Source) -> None:
        """Directories above are made. Raises StoreError."""


class Copies(Protocol):
    """The bytes of objects."""

    def path(self, version: Version) -> Path:
        """Of the copy on this host. Raises StoreError: it is not whole; OSError."""

    def read(self, version: Version, hosts: Sequence[str]) -> AsyncIterator[bytes]:
        """From any of these hosts. Raises StoreError."""


class Feeder(Keeper, Protocol):
    """What a task asks its supervisor."""

    async def feed(
        self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int
    ) -> tuple[Sequence[Feed], bool]:
        """Of a reducer: what it gets beyond that number, and whether that is all. Raises MetadataError."""


class Served(Emitted, Protocol):
    """The storage API, as a sandbox's tasks see it (`door.Door`)."""

    def failed(self) -> bool:
        """Whether it failed one of them since the last call."""


class Makes(Protocol):
    """Makes and ends sandboxes."""

    async def make(self, order: Order) -> Sandbox:
        """Prepared, not started. Raises NoImage, SandboxError."""

    async def start(self, sandbox: Sandbox, order: Order) -> Served:
        """With the storage API in it, as the job's user. Raises SandboxError."""

    async def end(self, sandbox: Sandbox) -> None:
        """With all that is in it."""


@dataclass(slots=True)
class Box:
    """A sandbox of one job and phase, what its tasks emit, and its two files for what they say."""

    sandbox: Sandbox
    emitted: Served
    out: int
    err: int
    ran_s: float = 0.0
    """how long the last command ran"""

    def clear(self) -> None:
        """Nothing is left of what the last one put out."""
        self.emitted.take()
        self.emitted.failed()
        for fd in (self.out, self.err):
            os.ftruncate(fd, 0)

    def close(self) -> None:
        os.close(self.out)
        os.close(self.err)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a task came to, and what is still to be put: under its name, "" for nothing."""

    result: Result
    name: str = ""
    body: bytes = b""


class Runner:
    """As many tasks at a time as it is given: who calls `run` decides.

    `feeders`: by shard. `empty`: a file without bytes, which any empty object is like.
    """

    def __init__(
        self, makes: Makes, store: Store, copies: Copies, feeders: Mapping[int, Feeder], *, empty: Path
    ) -> None:
        self._makes = makes
        self._store = store
        self._copies = copies
        self._feeders = feeders
        self._empty = empty
        self._idle: dict[Group, list[Box]] = defaultdict(list)
        """sandboxes that wait for more work of their group"""
        self._idle_since_s: dict[Group, float] = {}
        self._running: dict[Attempt, Sandbox] = {}
        self._broken: set[Group] = set()
        """groups of which a sandbox could not be initialised"""
        self._puts = asyncio.Semaphore(PUTS)

    @property
    def running(self) -> int:
        """Tasks that have a sandbox."""
        return len(self._running)

    async def run(self, order: Order, ran: Callable[[], None] = lambda: None) -> Result:
        """`ran` is called when the task has no sandbox any more, though its output may still be on its way. Raises Lost."""
        try:
            said = await self._run(order)
            async with self._puts:
                ran()
                if said.name:
                    await self._store.put(order, said.name, said.body)
            return said.result
        except (SandboxError, StoreError, MetadataError, OSError) as error:
            log.warning("attempt lost", job=str(order.job.id), task=order.task.attempt.task, why=str(error))
            raise Lost(str(error)) from error

    async def _run(self, order: Order) -> _Said:
        group = group_of(order.task)
        if group in self._broken:
            return _Said(_failed(order, TASK_INIT, INIT_ABORTED))
        try:
            box = self._idle[group].pop() if self._idle[group] else await self._new(order)
        except NoImage:
            return _Said(_failed(order, INVALID_ARGUMENT, NO_IMAGE))
        if isinstance(box, _Said):
            self._broken.add(group)
            return box
        self._running[order.task.attempt] = box.sandbox
        try:
            said = await self._in_box(order, box)
            result = replace(said.result, seconds=box.ran_s, memory_mb=_phase(order).memory_mb)
        except BaseException:
            await self._drop(box)
            raise
        finally:
            del self._running[order.task.attempt]
        self._idle[group].append(box)
        self._idle_since_s[group] = time.monotonic()
        return replace(said, result=result)

    async def _drop(self, box: Box) -> None:
        box.close()
        await self._makes.end(box.sandbox)

    async def reset(self, group: Group) -> None:
        """There is no more work of this group, for now: its sandboxes go."""
        self._broken.discard(group)
        self._idle_since_s.pop(group, None)
        for box in self._idle.pop(group, []):
            await self._drop(box)

    async def expire(self, idle_s: float) -> None:
        """End the sandboxes of groups that have had no work for so long."""
        for group, since_s in list(self._idle_since_s.items()):
            if time.monotonic() - since_s >= idle_s:
                await self.reset(group)

    def kill(self, attempt: Attempt) -> None:
        """End an attempt; `run` then returns or raises, of which nobody wants to know."""
        if attempt in self._running:
            self._running[attempt].kill()

    async def close(self) -> None:
        """End all that wait."""
        for group in list(self._idle):
            await self.reset(group)

    # a new sandbox

    async def _new(self, order: Order) -> Box | _Said:
        """A sandbox with its assets, initialised; or why the task fails."""
        phase = _phase(order)
        sandbox = await self._makes.make(order)
        try:
            await self._lay_assets(order, phase, sandbox)
            emitted = await self._makes.start(sandbox, order)
            box = Box(sandbox, emitted, sandbox.output(), sandbox.output())
        except NoAsset as error:
            await self._makes.end(sandbox)
            return _Said(_failed(order, TASK_INIT, f"failed to dispatch task: first of 1 error: {error}"))
        except BaseException:
            await self._makes.end(sandbox)
            raise
        if not phase.init:
            return box
        try:
            ended = await sandbox.run(Command(phase.init, _environment(order, of_task=False)), box.out, box.err)
            why = failure(ended.status, ended.cores, out_of_memory=ended.out_of_memory)
            failed = await self._fail(order, box, TASK_INIT, why) if why else None
        except BaseException:
            await self._drop(box)
            raise
        if failed is None:
            box.clear()
            return box
        await self._drop(box)
        return failed

    async def _lay_assets(self, order: Order, phase: Phase, sandbox: Sandbox) -> None:
        fetches = []
        for name in dict.fromkeys(phase.assets or ()):
            into = sandbox.files / "assets" / name.strip("/")
            into.parent.mkdir(parents=True, exist_ok=True)
            fetches.append(self._store.fetch(order, name, into))
        for said in await asyncio.gather(*fetches, return_exceptions=True):
            if isinstance(said, BaseException):
                raise said

    # a task in it

    async def _in_box(self, order: Order, box: Box) -> _Said:
        box.clear()
        work, phase = order.task.work, _phase(order)
        place, unusual = job_names.place(work.name) if work.name else ("", False)
        environment = _environment(order, place=place)
        posting = Posting(self._feeders[order.shard], order.task.attempt, box.emitted, box.sandbox.kill)
        began_s = time.monotonic()
        async with posting.running():
            if work.reducer is None:
                given = self._copies.path(work.version) if work.version is not None else self._empty
                ended = await self._on_object(box, Command(phase.exec, environment, given, f"/manta/{place}"))
            else:
                ended = await self._on_feeds(order, box, Command(phase.exec, environment))
            box.ran_s = time.monotonic() - began_s
        cores = () if medusa.is_interactive(phase.exec, phase.assets or ()) else ended.cores
        if posting.counts and (
            why := failure(ended.status, cores, out_of_memory=ended.out_of_memory, unusual_place=unusual)
        ):
            return await self._fail(order, box, USER_TASK, why)
        made = await posting.rest()
        if not posting.counts:
            raise Lost("the attempt is not ours any more")
        if made or posting.kept:
            return _Said(Result(order.task.attempt, made))
        name = _name(order, "")
        return await self._said(order, Result(order.task.attempt, [Made(name)]), name, box.out)

    async def _said(self, order: Order, result: Result, name: str, source: int) -> _Said:
        """What is small is put later: its sandbox need not wait for that."""
        if os.fstat(source).st_size <= SMALL_BYTES:
            return _Said(result, name, os.pread(source, SMALL_BYTES, 0))
        await self._store.put(order, name, source)
        return _Said(result)

    async def _on_object(self, box: Box, command: Command) -> Ended:
        ended = await box.sandbox.run(command, box.out, box.err)
        # What read from a file system that is not there any more may have said that all was well. A file that was deleted does no harm.
        with contextlib.suppress(FileNotFoundError):
            (command.object or self._empty).stat()
        return ended

    async def _on_feeds(self, order: Order, box: Box, command: Command) -> Ended:
        """A reducer: its input comes through a pipe. It is over once it was given all, even if it ended before."""
        source, target = os.pipe()
        feeding = asyncio.create_task(self._feed(order, target))
        try:
            ended = await box.sandbox.run(replace(command, pipe=source), box.out, box.err)
            os.close(source)
            source = -1
            await feeding
        finally:
            feeding.cancel()
            if source >= 0:
                os.close(source)
        return ended

    async def _feed(self, order: Order, target: int) -> None:
        """Everything that the reducer gets, in whatever order, into the pipe; nothing more once nobody reads."""
        work, feeder, after, is_read = order.task.work, self._feeders[order.shard], 0, True
        async with _writer(target) as write:
            while True:
                feeds, is_whole = await feeder.feed(order.job.id, work.phase, work.reducer or 0, after, FEEDS)
                for feed in feeds:
                    after = feed.number
                    if is_read and feed.version is not None:
                        is_read = await self._pour(feed.version, feed.hosts, write)
                if is_whole:
                    return
                if not feeds:
                    await asyncio.sleep(FEED_PAUSE_S)

    async def _pour(self, version: Version, hosts: Sequence[str], write: _Write) -> bool:
        """Whether somebody still reads."""
        async for chunk in self._copies.read(version, hosts):
            if not await write(chunk):
                return False
        return True

    async def _fail(self, order: Order, box: Box, code: str, why: str) -> _Said:
        """What it said on standard error is kept. Raises Lost: the storage API had failed it, so it may do better elsewhere."""
        if box.emitted.failed():
            raise Lost(f"{why}, after the storage API had failed it")
        name = _name(order, "err.")
        return await self._said(order, _failed(order, code, why, stderr=name), name, box.err)


class _Write(Protocol):
    async def __call__(self, chunk: bytes) -> bool:
        """Whether somebody reads."""


@contextlib.asynccontextmanager
async def _writer(target: int) -> AsyncIterator[_Write]:
    """Into a pipe, which is closed in the end, and which may be full."""
    os.set_blocking(target, False)
    loop = asyncio.get_running_loop()

    async def write(chunk: bytes) -> bool:
        left = memoryview(chunk)
        while left:
            try:
                left = left[os.write(target, left) :]
            except BlockingIOError:
                await _writable(loop, target)
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                return False
        return True

    try:
        yield write
    finally:
        os.close(target)


async def _writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


def _phase(order: Order) -> Phase:
    return order.job.document.phases[order.task.work.phase]


def _failed(order: Order, code: str, message: str, stderr: str = "") -> Result:
    work = order.task.work
    return Result(order.task.attempt, error=JobError(work.phase, code, message, work.name, work.first_input, stderr))


def _base(order: Order) -> tuple[str, str]:
    """Below which the job's objects lie, and what this task's outputs begin with."""
    work, below = order.task.work, job_names.out_base(order.job.owner.login, order.job.id)
    first = work.first_input or ("" if work.phase else work.name)
    return below, job_names.base(below, reduces=work.reducer is not None, name=work.name, first_input=first)


def _name(order: Order, kind: str) -> str:
    """Of what this attempt puts out; no other attempt's is the same."""
    below, base = _base(order)
    return job_names.anonymous(below, base, order.task.work.phase, f"{kind}{task_id(order.task.attempt)}")


def _environment(order: Order, *, of_task: bool = True, place: str = "") -> dict[str, str]:
    job, work = order.job, order.task.work
    found = {
        "HOME": "/root",
        "PATH": PATH,
        "MANTA_USER": job.owner.login,
        "MANTA_URL": URL,
        "MANTA_NO_AUTH": "true",
        "MANTA_JOB_ID": str(job.id),
        "MANTA_OUTPUT_BASE": job_names.anonymous(*_base(order), work.phase, ""),
    }
    if of_task and work.reducer is None:
        found |= {"MANTA_INPUT_OBJECT": work.name, "MANTA_INPUT_FILE": f"/manta/{place}"}
    elif of_task:
        found["MANTA_REDUCER"] = str(work.reducer)
    return found
