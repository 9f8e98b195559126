"""Runs a drill: preflight, load, steady state, heal registered, harm, hold, heal, settle, and what was recorded.

A fault is noted on disk before it is done (`standing.Standing`), and healed whatever happens: at the end, on an error, on Ctrl-C, SIGTERM
and SIGHUP.
A `kill -9` leaves the note: `mobula drill heal` and the next drill's preflight heal it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mobula.client.errors import MobulaError
from mobula.lab.network import LabError
from ops import provision
from ops.accounts import Administration
from ops.drills.bulk import bulk
from ops.drills.clients import Clients, Objects
from ops.drills.fault import Fault
from ops.drills.findings import Finding, Verdict
from ops.drills.history import Operation, decode
from ops.drills.job_run import JobRun
from ops.drills.looks import look
from ops.drills.model import Act, Drill, Scene
from ops.drills.scene import gather, scene_of
from ops.drills.standing import Standing
from ops.drills.watch import Watch
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from ops.repair import Follow
from ops.status import Status

STEADY_S = 6.0
"""of load before the fault: what is normal"""
SETTLE_BOUND_S = 240.0
LOOK_AGAIN_S = 5.0
REPAIR_MB_S = 20.0
COLD_PER_SHARD = 200
"""objects that nobody reads before the end: what is read is mended one by one"""
AFTER_S = 5.0
"""of load after all is well again"""
MARK = "/etc/mobula/drillable"
"""on each host that drills may harm, with the region's name; the role `base` writes it, `facts/on_host.py` reads it"""


@dataclass
class Recorded:
    """All that a run left to judge. Times are seconds of this machine's monotonic clock."""

    drill: Drill
    variant: str
    scene: Scene
    act: Act
    seed: int
    wall_s: float
    """of the wall clock, when the monotonic one said `began_s`"""
    began_s: float
    injected_s: float = 0.0
    healing_s: float = 0.0
    """when healing began"""
    healed_s: float = 0.0
    settled_s: float = 0.0
    ended_s: float = 0.0
    fault_at_s: list[float] = field(default_factory=list)
    """of each fault that was injected, in their order"""
    events: list[tuple[float, str]] = field(default_factory=list)
    proof: list[tuple[str, bool]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """what the drill itself could not do: heal, settle"""
    looked: list[Finding] = field(default_factory=list)
    """what was found on the machines at the end"""
    watch: Watch | None = None
    history: list[Operation] = field(default_factory=list)


def heal(region: Region, progress: Progress) -> list[str]:
    """Heal whatever a drill left behind; answers what could not be healed."""
    standing = Standing(region)
    for fault in reversed(standing.faults()):
        progress(f"heal: {fault.text()}")
    return standing.heal()


def undescribed(region: Region) -> str:
    """Why drills may not harm a standing region, by its description; "" if they may."""
    if region.drillable or not region.hosts:
        return ""
    return (
        f'region {region.name!r} is not described as drillable; if it may be harmed, say "drillable": true in '
        f"terraform/regions/{region.name}/region.auto.tfvars.json and run ./mobula up"
    )


def unmarked(region: Region, marks: Mapping[str, str]) -> str:
    """Why drills may not harm the region, by the file on each of its hosts (`marks`: what it says, "" without it); "" if they may."""
    for host in sorted(region.hosts):
        mark = marks.get(host, "")
        if not mark:
            return f"{host} is not marked drillable: {MARK} is not there, or says nothing; run ./mobula up, which writes it"
        if mark != region.name:
            return (
                f"{host} is marked for another region: {MARK} says {mark!r}, not {region.name!r}; "
                "find out whose host it is, then run ./mobula up"
            )
    return ""


def preflight(region: Region, progress: Progress) -> Status:
    """A region that may be harmed: marked so, nothing left of an earlier drill, everything well.

    Raises:
        OperatorError: it isn't; the sentence says what is wrong.
    """
    troubles = heal(region, progress)
    if troubles:
        raise OperatorError(f"begin a drill: an earlier one can't be healed: {troubles[0]}; run ./mobula up")
    if why := undescribed(region):
        raise OperatorError(f"begin a drill: {why}")
    seen = _settled(region, 30.0, progress)
    if not seen.ok:
        first = seen.findings[0]
        raise OperatorError(
            f"begin a drill: {first.host}: {first.what}; a drill needs a region that is well: {first.do}"
        )
    if why := unmarked(region, {host.name: host.drillable for host in seen.hosts}):
        raise OperatorError(f"begin a drill: {why}")
    return seen


def run(region: Region, drill: Drill, variant: str, *, folder: Path, seed: int, progress: Progress) -> Recorded:
    """Do it. `folder` takes the clients' histories and logs.

    Raises:
        OperatorError: the region can't be drilled now, or the drill could not be carried out. Whatever was done is healed.
    """
    with _interruptible():
        with progress.step("preflight"):
            seen = preflight(region, progress)
        if drill.worst(variant):
            with progress.step("move the primaries to the AZ of ZooKeeper's leader"):
                scene = gather(region, seen, progress)
        else:
            scene = scene_of(region, seen)
        repairs = drill.repairs(scene, variant)
        objects = Objects(region, folder.name, cold=COLD_PER_SHARD if repairs or drill.cold else 0)
        known, cold = (tuple(key.path for key in keys) for keys in (objects.known, objects.cold))
        scene = replace(scene, known=known, cold=cold)
        record = Recorded(drill, variant, scene, drill.act(scene, variant), seed, time.time(), time.monotonic())
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, objects, region, record)
            with _as_operators_error("make the objects of a drill"):
                objects.make(region)
            record.watch = Watch(region)
            record.watch.start()
            stack.callback(record.watch.end)
            clients = Clients(region, objects, folder, seed)
            stack.callback(clients.end)
            clients.start()
            job = JobRun(region, objects.root) if drill.jobs else None
            if job is not None:
                with _as_operators_error("begin the job of a drill"):
                    job.start()
            _harm(region, record, progress)
            for host in repairs:
                _repair(region, host, record, progress)
            with progress.step("settle"):
                _settle(region, record, progress)
            with progress.step("wait for the clients' last answers, read everything once"):
                files = clients.finish()
            if job is not None:
                _conclude(job, record, progress)
            record.looked += _look(region, folder.name, record.wall_s, record.act.faults, progress)
            record.ended_s = time.monotonic()
            for path in files:
                with path.open("rb") as lines:
                    record.history += decode(lines)
        return record


@contextlib.contextmanager
def _as_operators_error(what: str) -> Iterator[None]:
    """Raises OperatorError for what the service refuses or can't do now."""
    try:
        yield
    except MobulaError as error:
        raise OperatorError(f"{what}: {error}") from error


def _harm(region: Region, record: Recorded, progress: Progress) -> None:
    with progress.step(f"steady state, {STEADY_S:.0f} s of load"):
        threading.Event().wait(STEADY_S)
    standing = Standing(region)
    with contextlib.ExitStack() as stack:
        stack.callback(_heal, standing, record, progress)
        for number, fault in enumerate(record.act.faults):
            if number and record.act.pauses_s:
                threading.Event().wait(record.act.pauses_s[number - 1])
            progress(f"harm: {fault.text()}")
            standing.note(fault)
            if not record.injected_s:
                record.injected_s = time.monotonic()
            record.fault_at_s.append(time.monotonic())
            record.events.append((time.monotonic(), fault.text()))
            fault.inject(region)
        with progress.step(f"hold {record.drill.hold_s:.0f} s"), bulk(region, record.act.bulk) as transfers:
            threading.Event().wait(record.drill.hold_s)
        record.proof += [
            (f"{transfer.moved_bytes >> 10:,} KiB of a bulk transfer arrived", transfer.moved_bytes > 0)
            for transfer in transfers
        ]
        for fault in record.act.faults:
            record.proof += _proof(fault, region)
            record.troubles += _unaided(fault, region, progress)


def _conclude(job: JobRun, record: Recorded, progress: Progress) -> None:
    with progress.step("wait for the end of the job"):
        found, proof = job.conclude(record.wall_s + record.injected_s - record.began_s)
    record.looked += found
    record.proof += proof


def _proof(fault: Fault, region: Region) -> list[tuple[str, bool]]:
    """That it can't be shown is no reason to lose the run: the gate says unknown."""
    try:
        return fault.bit(region)
    except (LabError, OperatorError, OSError) as error:
        return [(f"{fault.text()}: {error}", False)]


def _unaided(fault: Fault, region: Region, progress: Progress) -> list[str]:
    """What should have become right by itself, before it is healed."""
    if not fault.mends:
        return []
    try:
        with progress.step(f"wait until {fault.mends}, by itself"):
            return fault.unaided(region)
    except (OperatorError, OSError) as error:
        return [f"{fault.text()}: {error}"]


def _heal(standing: Standing, record: Recorded, progress: Progress) -> None:
    with progress.step("heal"):
        record.healing_s = time.monotonic()
        record.events.append((record.healing_s, "heal"))
        record.troubles += standing.heal()
        record.healed_s = time.monotonic()


def _look(region: Region, name: str, since_s: float, done: Sequence[Fault], progress: Progress) -> list[Finding]:
    try:
        return look(region, name, since_s, done, progress)
    except (LabError, OperatorError, OSError) as error:
        return [Finding("O4", Verdict.UNKNOWN, f"the machines could not be looked at: {error}")]


def _repair(region: Region, host: str, record: Recorded, progress: Progress) -> None:
    """What the runbook says after a lost pool: declare it, follow the workers, keep the proof."""
    follow = Follow(Administration(region), progress)
    try:
        with progress.step(f"repair the pool of {host}"):
            record.events.append((time.monotonic(), f"repair --pool {host}"))
            report = follow.conclude(host, follow.declare(host, REPAIR_MB_S))
    except OperatorError as error:
        record.troubles.append(f"repair the pool of {host}: {error}")
        return
    record.proof.append(
        (f"repair: {report.text().splitlines()[-1]}", report.accounted and report.status["objects"] > 0)
    )
    record.proof += [
        (f"lost with its pool, as a single copy is: {lost}", True) for lost in report.lost if lost.copies == 1
    ]
    record.looked += [Finding("O4", Verdict.FAIL, f"lost: {lost}") for lost in report.lost if lost.copies > 1]


def _settle(region: Region, record: Recorded, progress: Progress) -> None:
    seen = _settled(region, SETTLE_BOUND_S, progress)
    if not seen.ok:
        first = seen.findings[0]
        record.troubles.append(f"not well again within {SETTLE_BOUND_S:.0f} s: {first.host}: {first.what}")
    record.settled_s = time.monotonic()
    record.events.append((record.settled_s, "all is well"))
    threading.Event().wait(AFTER_S)


def _settled(region: Region, bound_s: float, progress: Progress) -> Status:
    end_s = time.monotonic() + bound_s
    while True:
        seen = provision.look(region)
        if seen.ok or time.monotonic() > end_s:
            return seen
        progress(f"{seen.findings[0].host}: {seen.findings[0].what}"[:160])
        threading.Event().wait(LOOK_AGAIN_S)


def _remove(objects: Objects, region: Region, record: Recorded) -> None:
    """The drill's objects. That they can't be removed says nothing of the drill but that the region is not well."""
    try:
        objects.remove(region)
    except Exception as error:  # noqa: BLE001 (whatever it is, what was recorded is not lost for it)
        record.troubles.append(f"remove {objects.root}: {type(error).__name__} {error}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and the end of the terminal end a drill as Ctrl-C does. Both may come, or one twice: that does not end the healing."""
    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
