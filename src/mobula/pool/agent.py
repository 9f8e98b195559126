"""The pool agent: looks, has `plan` decide, runs what that says, looks again; and says what it saw.

A hot spare comes in by itself on no file system that we run: zfs-fuse has no daemon for it, and it notices a failed disk only when it
reads from it. So the disks themselves are looked at as well, each in a thread of its own, as a read from a dying disk may never end.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import prometheus_client

from mobula.core import log
from mobula.core.clock import Clock, SystemClock
from mobula.pool import disks
from mobula.pool.config import DAY_S, PoolConfig
from mobula.pool.disks import Look
from mobula.pool.plan import UNSEEN, UNUSABLE_STATES, Action, Finding, Plan, Wanted, paths, plan, scrub_due
from mobula.pool.zpool import Zpool, ZpoolFailed
from mobula.pool.zpool_status import OWNER_PROPERTY, Node, NotUnderstood, Pool, parse_history, parse_status

_THREADS = 64
_ROUNDS_MAX = 6
"""of acting and looking again without a pause: a spare that has failed is detached, then the other takes its place"""
_ASK_AGAIN_S = 3600.0
"""after a scrub that could not be begun, or a history that could not be read"""
_SPREAD = 0.1
"""hosts scrub up to this part of the interval earlier, each at its own time: not all at once"""

_disk_well = prometheus_client.Gauge(
    "pool_disk_well", "1 for a disk that works as ZFS and its own bytes say", ["disk", "state"]
)
_disk_errors = prometheus_client.Gauge("pool_disk_errors", "Errors that ZFS has counted", ["disk", "kind"])
_spares = prometheus_client.Gauge("pool_spares", "Hot spares by state", ["state"])
_well = prometheus_client.Gauge("pool_well", "1 while nothing is to be done about the pool")
_running = prometheus_client.Gauge("pool_scan_running", "1 while it resilvers or scrubs", ["kind"])
_percent = prometheus_client.Gauge("pool_scan_percent", "How far the running resilver or scrub is", ["kind"])
_eta_s = prometheus_client.Gauge("pool_scan_eta_seconds", "When it is expected to end", ["kind"])
_scrubbed_s = prometheus_client.Gauge("pool_scrubbed_timestamp_seconds", "When the last scrub was begun")
_looked_s = prometheus_client.Gauge("pool_looked_timestamp_seconds", "When the pool was last seen")
_actions = prometheus_client.Counter("pool_actions", "Commands that changed the pool", ["verb", "result"])


@dataclass(frozen=True, slots=True)
class Seen:
    """The pool at one moment; without it `trouble` says why."""

    pool: Pool | None = None
    owner: str = ""
    used_percent: int | None = None
    looks: Mapping[str, Look] = field(default_factory=dict)
    trouble: Finding | None = None


class PoolAgent:
    """mobula.wire.service.Service."""

    def __init__(self, config: PoolConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._wanted = Wanted(config.owner, config.folder, config.spares, config.io_errors_max)
        self._zpool = Zpool()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="disk")
        self._looking: dict[str, asyncio.Future[Look]] = {}
        self._looks: dict[str, Look] = {}
        self._seen = Seen()
        self._findings: tuple[Finding, ...] = (Finding("the pool was not looked at yet", "wait a moment"),)
        self._states: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        """by command: why it failed when it was last tried"""
        self._last_action = ""
        self._scrubbed_s: float | None = None
        self._scrub_not_before_s = 0.0
        self._looked_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self.cycle()
            except Exception as error:  # noqa: BLE001 (the outermost loop: a look that fails must not be the last)
                log.get_logger().error(
                    "look failed", why=str(error), do="report it; the next look follows", exc_info=error
                )
                self._findings = (Finding(f"the last look failed: {error}", "the agent's log has more"),)
            await asyncio.sleep(self._config.period_s)

    async def cycle(self) -> None:
        """Look, act, look again until there is nothing more to do."""
        for _ in range(_ROUNDS_MAX):
            seen = await self._see()
            made = self._decide(seen)
            self._tell(seen, made)
            done = [await self._act(action) for action in made.actions]
            if not any(done):
                break
        if seen.pool is not None:
            await self._scrub_if_due(seen.pool, made)

    def _decide(self, seen: Seen) -> Plan:
        if seen.pool is None:
            return Plan(findings=[seen.trouble] if seen.trouble else [])
        made = plan(seen.pool, seen.owner, seen.looks, self._wanted)
        wished = {action.text for action in made.actions}
        self._refused = {text: why for text, why in self._refused.items() if text in wished}
        made.findings += [
            Finding(why, f"zpool status {seen.pool.name}; it is tried again every {self._config.period_s:g} s")
            for why in self._refused.values()
        ]
        return made

    async def _see(self) -> Seen:
        name = self._config.pool
        try:
            pool = parse_status(await self._ask("zpool", "status", name), name)
            # One that has lost too many disks can't say whose it is. Nothing is done to it anyway.
            lost = pool.state in UNUSABLE_STATES
            owner = (
                self._wanted.owner if lost else await self._ask("zfs", "get", "-H", "-o", "value", OWNER_PROPERTY, name)
            )
            used = "" if lost else await self._ask("zpool", "list", "-H", "-o", "capacity", name)
        except (ZpoolFailed, NotUnderstood) as error:
            gone = "no such pool" in str(error)
            what = f"there is no pool {name}" if gone else f"the pool {name} can't be asked: {error}"
            do = (
                "./mobula up imports it, or makes it of blank disks"
                if gone
                else "look at mobula-zfs: its log, its disks"
            )
            return Seen(trouble=Finding(what, do))
        looks = await self._look(tuple(paths(pool, self._config.folder)))
        doubtful = [p for p, seen in looks.items() if seen.failure and not self._looks.get(p, UNSEEN).failure]
        if doubtful:
            await asyncio.sleep(self._config.confirm_s)
            looks |= await self._look(doubtful)
        self._looks = {path: self._looks.get(path, UNSEEN) if seen.silent else seen for path, seen in looks.items()}
        self._looked_s = self._clock.now_s()
        used_percent = used.strip().rstrip("%")
        return Seen(pool, owner.strip().removeprefix("-"), int(used_percent) if used_percent.isdigit() else None, looks)

    async def _look(self, wanted: Sequence[str]) -> dict[str, Look]:
        """At these disks, all at once. One that does not answer in time is asked nothing more until it does."""
        loop = asyncio.get_running_loop()
        for path in wanted:
            if path not in self._looking:
                before = self._looks.get(path)
                self._looking[path] = loop.run_in_executor(self._threads, disks.look, Path(path), before)
        asked = {path: self._looking[path] for path in wanted}
        if asked:
            await asyncio.wait(asked.values(), timeout=self._config.look_timeout_s)
        answered = {path: self._looking.pop(path).result() for path, future in asked.items() if future.done()}
        return {path: answered.get(path, UNSEEN) for path in wanted}

    async def _ask(self, *argv: str) -> str:
        return await self._zpool.run(argv, self._config.command_timeout_s / 6)

    async def _act(self, action: Action) -> bool:
        """Whether ZFS did it."""
        verb = action.argv[1]
        self._last_action = f"{action.text} ({action.why})"
        try:
            await self._zpool.run(action.argv, self._config.command_timeout_s)
        except ZpoolFailed as error:
            if self._refused.get(action.text) != str(error):
                log.get_logger().error(
                    "refused", what=str(error), why=action.why, do="it is tried again at the next look"
                )
            self._refused[action.text] = str(error)
            _actions.labels(verb, "refused").inc()
            return False
        self._refused.pop(action.text, None)
        _actions.labels(verb, "done").inc()
        log.get_logger().warning("acted", what=action.text, why=action.why)
        return True

    async def _scrub_if_due(self, pool: Pool, made: Plan) -> None:
        now_s = self._clock.now_s()
        every_s = self._config.scrub_every_days * DAY_S
        if not every_s or now_s < self._scrub_not_before_s or self._seen.owner != self._wanted.owner:
            return
        if self._scrubbed_s is None:
            self._scrub_not_before_s = now_s + _ASK_AGAIN_S
            try:
                history = parse_history(await self._ask("zpool", "history", pool.name))
            except ZpoolFailed as error:
                log.get_logger().warning("last scrub unknown", what=str(error), do="it is asked again in an hour")
                return
            self._scrubbed_s = history.scrubbed_s or history.created_s or now_s
            self._scrub_not_before_s = 0.0
            _scrubbed_s.set(self._scrubbed_s)
        if not scrub_due(pool, made, self._scrubbed_s, now_s, every_s * (1 - _SPREAD * _fraction(self._config.host))):
            return
        why = f"the last scrub began {(now_s - self._scrubbed_s) / DAY_S:.1f} days ago"
        if await self._act(Action(("zpool", "scrub", pool.name), why)):
            self._scrubbed_s = now_s
            _scrubbed_s.set(now_s)
        else:
            self._refused.clear()
            self._scrub_not_before_s = now_s + _ASK_AGAIN_S

    def _tell(self, seen: Seen, made: Plan) -> None:
        """Keep it for `/status`, count it for `/metrics`, and log what has changed."""
        logger = log.get_logger()
        before, now = set(self._findings), set(made.findings)
        for finding in made.findings:
            if finding not in before:
                logger.warning("found", what=finding.what, do=finding.do)
        for finding in self._findings:
            if finding not in now:
                logger.info("over", what=finding.what)
        states = {line.disk: line.state for line in _disk_lines(seen, self._config.folder)}
        for disk, state in states.items():
            if self._states.get(disk, state) != state:
                logger.info("disk changed", disk=disk, before=self._states[disk], state=state)
        if seen.pool is not None:
            was = self._seen.pool.scan if self._seen.pool is not None else None
            scan = seen.pool.scan
            if was is not None and (was.kind, was.running) != (scan.kind, scan.running):
                logger.info("scan changed", what=scan.text)
            self._states = states
        self._seen, self._findings = seen, tuple(made.findings)
        self._count()

    def _count(self) -> None:
        for gauge in (_disk_well, _disk_errors, _spares, _running, _percent, _eta_s):
            gauge.clear()
        _well.set(not self._findings)
        pool = self._seen.pool
        if pool is None:
            return
        _looked_s.set(self._looked_s)
        for line in _disk_lines(self._seen, self._config.folder):
            well = not line.why and line.state in {"ONLINE", "AVAIL", "INUSE"}
            _disk_well.labels(line.disk, line.state).set(well)
            for kind, count in (
                ("read", line.read_errors),
                ("write", line.write_errors),
                ("checksum", line.checksum_errors),
            ):
                _disk_errors.labels(line.disk, kind).set(count)
        for spare in pool.spares:
            _spares.labels(spare.state).inc()
        if pool.scan.running:
            _running.labels(pool.scan.kind).set(1)
            _percent.labels(pool.scan.kind).set(pool.scan.percent or 0)
            if pool.scan.eta_s is not None:
                _eta_s.labels(pool.scan.kind).set(pool.scan.eta_s)

    def status(self) -> Mapping[str, object]:
        pool = self._seen.pool
        scan = pool.scan if pool else None
        age_s = self._clock.now_s() - self._looked_s
        late = pool is not None and age_s > 6 * self._config.period_s + 2 * self._config.command_timeout_s
        why = [f"the pool was last seen {age_s:.0f} s ago"] * late + [finding.what for finding in self._findings]
        return {
            "healthy": not why,
            "why": "; ".join(why),
            "pool": self._config.pool,
            "state": pool.state if pool else "",
            "used_percent": self._seen.used_percent,
            "findings": [{"what": finding.what, "do": finding.do} for finding in self._findings],
            "scan": asdict(scan) if scan else None,
            "spares": {"available": _spares_in(pool, "AVAIL"), "in_use": _spares_in(pool, "INUSE")},
            "disks": [asdict(line) for line in _disk_lines(self._seen, self._config.folder)],
            "last_scrub_s": self._scrubbed_s,
            "last_action": self._last_action,
        }  # fmt: skip


def _spares_in(pool: Pool | None, state: str) -> int:
    return sum(spare.state == state for spare in pool.spares) if pool else 0


def _fraction(text: str) -> float:
    """Between 0 and 1, always the same for the same text."""
    return zlib.crc32(text.encode()) / 2**32


@dataclass(frozen=True, slots=True)
class DiskLine:
    """A disk: where it stands, its state and errors as ZFS has them, and what a look at itself found. A spare in use is there twice."""

    disk: str
    place: str
    state: str
    read_errors: int
    write_errors: int
    checksum_errors: int
    why: str


def _disk_lines(seen: Seen, folder: str) -> list[DiskLine]:
    return [
        DiskLine(
            leaf.name, place, leaf.state, leaf.read_errors, leaf.write_errors, leaf.checksum_errors,
            "does not answer" if look.silent else look.failure,
        )
        for place, leaf in _places(seen.pool)
        for look in [seen.looks.get(leaf.path(folder), UNSEEN)]
    ]  # fmt: skip


def _places(pool: Pool | None) -> Iterator[tuple[str, Node]]:
    """Every disk and where it stands."""
    if pool is not None:
        yield from ((vdev.name, leaf) for vdev in pool.vdevs for leaf in vdev.leaves())
        yield from (("spares", spare) for spare in pool.spares)


def build(config: PoolConfig) -> PoolAgent:
    return PoolAgent(config, SystemClock())
