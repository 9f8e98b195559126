"""Hourly usage reports: what the shards have counted in an hour becomes objects of the system account, and a job of that account makes each
account's reports of them (docs/decisions/0014).

    shards, page by page -> <work>/<run>/shard-<n>-<page> -> job: msplit by account, sort, report_task.py -> /:login/reports/usage/...
    -> <done>/<hour>: that hour is done -> what was worked on is removed

Whatever breaks off is begun anew, and reports that are made twice are the same. Hours are made one after the other, the oldest first.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from importlib import resources

import msgspec
import structlog

from mobula.core.clock import Clock
from mobula.core.dates import parse_date
from mobula.core.hours import hour_of, name_of, parse
from mobula.jobs.runner import StoreError
from mobula.metadata.directory import SYSTEM_LOGIN
from mobula.metadata.metering import Metering, Usage
from mobula.metadata.model import MetadataError
from mobula.workers.folding import fold_all
from mobula.workers.system_store import SystemStore

log = structlog.get_logger()

PERIOD_S = 30.0
SETTLE_S = 120.0
"""after an hour's end, until every webapi has handed over what it has counted, and every transaction of it is over"""
CATCH_UP_HOURS = 48
LATE_HOURS = 6
"""an hour that has been due for longer is something for an operator"""
PAGE = 1000
"""accounts in one object of a shard"""
ACCOUNTS_EACH = 2000
"""accounts, as shards count them, for one reducer: minutes"""
REDUCERS_MAX = 64
JOB_BOUND_S = 1800.0
JOB_LOOK_S = 1.0
LEFT_S = 6 * 3600.0
"""what a run that broke off has left is removed when it is older"""
HOME = f"/{SYSTEM_LOGIN}/stor/usage"
WORK, MARKS, PROGRAM = f"{HOME}/runs", f"{HOME}/done", f"{HOME}/report_task.py"
LINES, TEXT = "application/x-json-stream", "text/plain"


def last_hour(now_s: float) -> int:
    """The last one that is over, and of which everything is counted."""
    return hour_of(now_s - SETTLE_S) - 1


def due(now_s: float, first: int, done: Collection[int]) -> list[int]:
    """Hours that are over, and of which there are no reports, the oldest first."""
    last = last_hour(now_s)
    return [hour for hour in range(max(first, last - CATCH_UP_HOURS + 1), last + 1) if hour not in done]


def line(usage: Usage, login: str) -> bytes:
    """Of one account on one shard, as report_task.py reads it."""
    parts = (f'"{kind}":{said or "null"}' for kind, said in usage_kinds(usage))
    return f'{usage.account}\t{{"login":{msgspec.json.encode(login).decode()},{",".join(parts)}}}\n'.encode()


def usage_kinds(usage: Usage) -> tuple[tuple[str, str | None], ...]:
    return ("storage", usage.storage), ("requests", usage.requests), ("compute", usage.compute)


def document(hour: int, accounts: int) -> dict[str, object]:
    """The job of an hour."""
    reducers = min(REDUCERS_MAX, 1 + accounts // ACCOUNTS_EACH)
    script = f"set -o pipefail; sort | python3 /assets{PROGRAM} {name_of(hour)}"
    return {
        "name": f"usage-{name_of(hour)}",
        "phases": [
            {"type": "map", "exec": f"msplit -n {reducers} -f 1"},
            {"type": "reduce", "count": reducers, "assets": [PROGRAM], "exec": script},
        ],
    }


@dataclass(frozen=True, slots=True)
class Made:
    """What came of an hour. `accounts`: as shards count them, so one may be in it once for each shard. `final`: the hour is over."""

    hour: int
    accounts: int
    job: uuid.UUID | None
    final: bool


class JobFailed(Exception):
    """The job did not make all reports."""


class Reports:
    """Makes the reports of one hour. Raises MetadataError, StoreError, JobFailed: it may be made again."""

    def __init__(self, metering: Metering, store: SystemStore, clock: Clock) -> None:
        self._metering = metering
        self._store = store
        self._clock = clock

    async def due(self) -> list[int]:
        """Hours that wait for their reports."""
        first, now_s = await self._metering.first_hour(), self._clock.now_s()
        if not (wanted := due(now_s, first, ())):
            return []
        done = {parse(entry.name) async for entry in self._store.entries(MARKS, name_of(wanted[0]))}
        return due(now_s, first, done)

    async def make(self, hour: int) -> Made:
        """Every account's reports of that hour; of one that goes on, as far as it has come."""
        final = hour <= last_hour(self._clock.now_s())
        run = f"{WORK}/{name_of(hour)}-{uuid.uuid4()}"
        await self._store.make_directory(run)
        names: list[str] = []
        accounts, job = 0, None
        for shard in self._metering.shards:
            await fold_all(self._metering, shard)
            async for count, body in self._pages(shard, hour):
                names.append(f"{run}/shard-{shard}-{len(names)}")
                await self._store.put(names[-1], body, LINES)
                accounts += count
        if names:
            program = resources.files("mobula.workers").joinpath("report_task.py").read_bytes()
            await self._store.put(PROGRAM, program, TEXT)
            job = await self._run(hour, accounts, names)
        if final:
            await self._store.make_directory(MARKS)
            await self._store.put(f"{MARKS}/{name_of(hour)}", msgspec.json.encode({"job": job}), "application/json")
        await self._store.remove(run)
        log.info("usage reports made", hour=name_of(hour), accounts=accounts, job=str(job), final=final)
        return Made(hour, accounts, job, final)

    async def _pages(self, shard: int, hour: int) -> AsyncIterator[tuple[int, bytes]]:
        """How many accounts, and their lines, a page at a time; accounts of which there is nothing are left out."""
        after = ""
        while page := await self._metering.page(shard, hour, after, PAGE):
            after = page[-1].account
            used = [usage for usage in page if any(said for _, said in usage_kinds(usage))]
            logins = await self._metering.logins([usage.account for usage in used]) if used else {}
            if known := [usage for usage in used if usage.account in logins]:
                yield len(known), b"".join(line(usage, logins[usage.account]) for usage in known)

    async def _run(self, hour: int, accounts: int, names: list[str]) -> uuid.UUID:
        job = await self._store.run_job(SYSTEM_LOGIN, document(hour, accounts), names)
        end_s = self._clock.monotonic_s() + JOB_BOUND_S
        while (said := await self._store.job_status(SYSTEM_LOGIN, job)).state != "done":
            if self._clock.monotonic_s() > end_s:
                await self._store.cancel_job(SYSTEM_LOGIN, job)
                raise JobFailed(f"job {job} is not done after {JOB_BOUND_S:.0f} s; it was cancelled")
            await asyncio.sleep(JOB_LOOK_S)
        if said.cancelled or said.stats["errors"]:
            raise JobFailed(f"job {job} had {said.stats['errors']} errors; see /{SYSTEM_LOGIN}/jobs/{job}/err.txt")
        return job

    async def tidy(self) -> None:
        """Remove what runs have left that broke off long ago."""
        async for entry in self._store.entries(WORK):
            at = parse_date(entry.mtime)
            if at is not None and self._clock.now_s() - at.timestamp() > LEFT_S:
                await self._store.remove(f"{WORK}/{entry.name}")


class Reporting:
    """mobula.workers.app.Duty: one of the region makes the reports of each hour that is over."""

    def __init__(self, reports: Reports, clock: Clock) -> None:
        self._reports = reports
        self._clock = clock
        self._why = ""
        self._oldest: int | None = None
        self._last: Made | None = None

    @property
    def says(self) -> str:
        last = f"usage reports made up to {name_of(self._last.hour)}" if self._last else "no usage reports made yet"
        return f"{last}; {self._why}" if self._why else last

    @property
    def wrong(self) -> str:
        if self._oldest is None or hour_of(self._clock.now_s()) - self._oldest <= LATE_HOURS:
            return ""
        return f"usage reports of {name_of(self._oldest)} and later are not made: {self._why or 'being caught up with'}"

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.turn()
                self._why = ""
            except (MetadataError, StoreError, JobFailed) as error:
                self._why = str(error)
                log.warning("usage reports not made", why=str(error))
            await asyncio.sleep(PERIOD_S)

    async def turn(self) -> None:
        """All hours that wait. Raises what `Reports` raises."""
        hours = await self._reports.due()
        self._oldest = hours[0] if hours else None
        for hour in hours:
            self._oldest = hour
            self._last = await self._reports.make(hour)
        self._oldest = None
        if hours:
            await self._reports.tidy()
