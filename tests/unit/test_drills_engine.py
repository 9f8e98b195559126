"""The engine: whatever was begun is noted before it is done, and healed, however the drill ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NoReturn

import msgspec
import pytest

from ops import status as looking
from ops.drills import engine, standing
from ops.drills.client import Key
from ops.drills.engine import Recorded
from ops.drills.fault import Fault
from ops.drills.findings import Verdict
from ops.drills.history import Operation, encode
from ops.drills.model import Act, Drill, Scene, expect
from ops.drills.standing import Standing
from ops.drills.storage_faults import RotFiles
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import REPO, Region
from ops.repair import LostObject, Report
from ops.status import HostStatus, Status
from tests.drills import hosts, region_in, scene

HOLD_S = 33.0
QUIET = Progress(quiet=True)


class Lab:
    """What fake faults did, with what was noted when they did it; and what is to go wrong."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.did: list[tuple[str, str]] = []
        self.noted: list[list[str]] = []
        self.fails: dict[tuple[str, str], BaseException] = {}
        self.seen = [well()]
        """what looks at the region see, one after the other; the last one for ever"""
        self.folder = ""
        """of the drill's objects"""
        self.waited: list[float] = []
        self.while_waiting: dict[float, Callable[[], None]] = {}

    def do(self, what: str, name: str) -> None:
        self.did.append((what, name))
        self.noted.append([fault.name for fault in Standing(self.region).faults()])  # type: ignore[union-attr]
        if (what, name) in self.fails:
            raise self.fails[what, name]

    def of(self, *whats: str) -> list[tuple[str, str]]:
        return [step for step in self.did if step[0] in whats]

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.while_waiting.get(seconds, lambda: None)()
        return False

    def look(self, _region: Region) -> Status:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]


THE: dict[str, Lab] = {}


class Fake(Fault, frozen=True, tag="fake"):
    """A fault that only says what it did."""

    name: str

    def text(self) -> str:
        return f"fake {self.name}"

    def inject(self, _region: Region) -> None:
        THE["lab"].do("inject", self.name)

    def heal(self, _region: Region) -> None:
        THE["lab"].do("heal", self.name)

    def bit(self, _region: Region) -> list[tuple[str, bool]]:
        THE["lab"].do("bit", self.name)
        return [(f"{self.name} was there", True)]


def well(marked: Mapping[str, str] = MappingProxyType({})) -> Status:
    """All is well, and every host is marked for this region but for those named here."""
    seen = [
        HostStatus(h.name, h.az, h.pool, h.address, True, "1", "", "", h.shard, None, 0, None, (), marked.get(h.name, "lab"))
        for h in hosts("small").values()
    ]  # fmt: skip
    return Status("lab", "small", "1", ok=True, hosts=seen)


def ill(what: str = "is down") -> Status:
    found = looking.Finding("lab-a-api-01", what, "./mobula up")
    return Status("lab", "small", "1", ok=False, findings=[found])


def drill(*names: str, pauses_s: tuple[float, ...] = (), worst: bool = False) -> Drill:
    def act(found: Scene, _variant: str) -> Act:
        return Act(tuple(Fake(n) for n in names), expect(found), pauses_s)  # type: ignore[arg-type]

    return Drill("fake", "", ("CL-01",), ("one",), act, hold_s=HOLD_S, worst=lambda _: worst)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The engine with everything fake at its edge: no time passes, nobody is asked."""
    made = Lab(region_in(tmp_path))
    THE["lab"] = made

    class Objects:
        root = "/demo/stor/drills/x"
        known = (Key("/demo/stor/drills/x/d0/known000", "shard:1"),)

        def __init__(self, _region: Region, name: str, cold: int) -> None:
            made.folder = name
            self.cold = tuple(Key(f"/demo/stor/drills/x/d0/known-cold{n:03}", "shard:1") for n in range(cold))

        def make(self, _region: Region) -> None:
            made.do("make", "objects")

        def remove(self, _region: Region) -> None:
            made.do("remove", "objects")

    class Watch:
        peers: tuple[Any, ...] = ()
        names: tuple[Any, ...] = ()

        def __init__(self, *_: object) -> None: ...

        def start(self) -> None:
            made.do("start", "watch")

        def end(self) -> None:
            made.do("end", "watch")

    class Clients:
        def __init__(self, _region: Region, _objects: Objects, folder: Path, _seed: int) -> None:
            self.folder = folder

        def start(self) -> None:
            made.do("start", "clients")

        def finish(self) -> list[Path]:
            made.do("finish", "clients")
            self.folder.mkdir(exist_ok=True)
            path = self.folder / "c1.jsonl"
            path.write_bytes(encode(Operation("c1", "a", "get", "k", None, 1.0, 2.0, 404)))
            return [path]

        def end(self) -> None:
            made.do("end", "clients")

    monkeypatch.setattr(standing, "_READ", msgspec.json.Decoder(list[Fake]))
    monkeypatch.setattr(engine, "threading", SimpleNamespace(Event=lambda: made))
    monkeypatch.setattr(engine, "provision", made)
    monkeypatch.setattr(engine, "Objects", Objects)

    @contextlib.contextmanager
    def bulk(_region: Region, ways: Sequence[tuple[int, int]]) -> Iterator[list[SimpleNamespace]]:
        for source, target in ways:
            made.do("begin bulk", f"{source}{target}")
        yield [SimpleNamespace(moved_bytes=source << 20) for source, _ in ways]
        for source, target in ways:
            made.do("end bulk", f"{source}{target}")

    monkeypatch.setattr(engine, "look", lambda *_: [])
    monkeypatch.setattr(engine, "bulk", bulk)
    monkeypatch.setattr(engine, "Watch", Watch)
    monkeypatch.setattr(engine, "Clients", Clients)
    monkeypatch.setattr(engine, "scene_of", lambda *_: scene("small"))
    monkeypatch.setattr(engine, "gather", lambda *_: made.do("gather", "primaries") or scene("small"))
    yield made
    del THE["lab"]


def run(lab: Lab, of: Drill) -> Recorded:
    folder = lab.region.state_dir / "histories"
    return engine.run(lab.region, of, "one", folder=folder, seed=7, progress=QUIET)


def note_of(region: Region) -> Path:
    return region.state_dir / "drill" / "standing.json"


ENDED = [("end", "clients"), ("end", "watch"), ("remove", "objects")]


def ended_well(lab: Lab, *healed: str) -> None:
    """These were healed, once, in this order; nothing stands, nobody is left."""
    assert lab.of("heal") == [("heal", name) for name in healed]
    assert lab.did[-3:] == ENDED
    assert not note_of(lab.region).exists()


def test_a_run_from_the_preflight_to_the_history(lab: Lab) -> None:
    record = run(lab, drill("x", "y", pauses_s=(1.5,)))
    assert lab.did == [
        ("make", "objects"), ("start", "watch"), ("start", "clients"), ("inject", "x"), ("inject", "y"), ("bit", "x"), ("bit", "y"),
        ("heal", "y"), ("heal", "x"), ("finish", "clients"), *ENDED,
    ]  # fmt: skip
    assert lab.waited == [engine.STEADY_S, 1.5, HOLD_S, engine.AFTER_S]
    assert 0 < record.began_s <= record.injected_s <= record.healed_s <= record.settled_s <= record.ended_s
    assert record.began_s <= time.monotonic()
    assert abs(record.wall_s - time.time()) < 60
    assert [what for _, what in record.events] == ["fake x", "fake y", "heal", "all is well"]
    assert record.proof == [("x was there", True), ("y was there", True)]
    assert record.troubles == []
    assert [o.key for o in record.history] == ["k"]
    assert (record.seed, record.variant) == (7, "one")


def test_the_primaries_are_gathered_only_for_the_worst_case(lab: Lab) -> None:
    run(lab, drill("x"))
    assert not lab.of("gather")
    run(lab, drill("x", worst=True))
    assert len(lab.of("gather")) == 1


def test_every_fault_is_noted_before_it_is_done_and_until_it_is_healed(lab: Lab) -> None:
    run(lab, drill("x", "y"))
    noted = dict(zip(lab.did, lab.noted, strict=True))
    assert noted["make", "objects"] == []
    assert noted["inject", "x"] == ["x"]
    assert noted["inject", "y"] == noted["heal", "y"] == noted["heal", "x"] == ["x", "y"]
    assert noted["finish", "clients"] == []


def test_a_fault_that_was_done_by_half_is_healed_and_the_next_is_not_done(lab: Lab) -> None:
    lab.fails["inject", "y"] = OperatorError("stop y: no")
    with pytest.raises(OperatorError, match="stop y: no"):
        run(lab, drill("x", "y", "z"))
    assert lab.of("inject") == [("inject", "x"), ("inject", "y")]
    ended_well(lab, "y", "x")


def test_a_fault_that_cannot_be_noted_is_not_done(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing.os, "fsync", full)
    with pytest.raises(OperatorError, match="note 'fake x' before it is done"):
        run(lab, drill("x"))
    assert not lab.of("inject")
    assert lab.did[-3:] == ENDED


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "end",
    [
        interrupt,
        lambda: os.kill(os.getpid(), signal.SIGINT),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: os.kill(os.getpid(), signal.SIGHUP),
    ],
    ids=["Ctrl-C", "SIGINT", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("at_s", [1.5, HOLD_S], ids=["between faults", "hold"])
def test_what_ends_the_command_ends_the_faults_first(lab: Lab, end: Callable[[], None], at_s: float) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    lab.while_waiting[at_s] = end
    with pytest.raises(KeyboardInterrupt):
        run(lab, drill("x", "y", pauses_s=(1.5,)))
    ended_well(lab, *(["x"] if at_s == 1.5 else ["y", "x"]))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_second_signal_does_not_end_the_healing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes a terminal, or stops a unit, may send both."""
    lab.while_waiting[HOLD_S] = lambda: os.kill(os.getpid(), signal.SIGHUP)
    heal = Fake.heal

    def told_again(fault: Fake, region: Region) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        heal(fault, region)

    monkeypatch.setattr(Fake, "heal", told_again)
    with pytest.raises(KeyboardInterrupt):
        run(lab, drill("x", "y"))
    ended_well(lab, "y", "x")


def test_who_ignores_the_end_of_the_terminal_goes_on_ignoring_it(lab: Lab) -> None:
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        lab.while_waiting[HOLD_S] = lambda: os.kill(os.getpid(), signal.SIGHUP)
        assert run(lab, drill("x")).history
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_healing_that_was_interrupted_stays_noted(lab: Lab) -> None:
    lab.fails["heal", "x"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(lab, drill("x", "y"))
    assert lab.did[-3:] == ENDED
    lab.fails.clear()
    assert engine.heal(lab.region, QUIET) == []
    assert lab.of("heal")[-2:] == [("heal", "y"), ("heal", "x")]
    assert not note_of(lab.region).exists()


def test_a_heal_that_fails_is_told_and_stays_noted_and_the_others_are_healed(lab: Lab) -> None:
    lab.fails["heal", "y"] = OperatorError("start y: no")
    record = run(lab, drill("x", "y", "z"))
    assert lab.of("heal") == [("heal", "z"), ("heal", "y"), ("heal", "x")]
    assert record.troubles == ["heal 'fake y': start y: no"]
    assert Standing(lab.region).faults() == [Fake("y")]
    with pytest.raises(
        OperatorError, match="begin a drill: an earlier one can't be healed: heal 'fake y': start y: no; "
    ):
        run(lab, drill("x"))
    lab.fails.clear()
    assert run(lab, drill("x")).troubles == []
    assert not note_of(lab.region).exists()


def test_what_cannot_be_shown_is_not_so_and_the_run_goes_on(lab: Lab) -> None:
    lab.fails["bit", "x"] = OperatorError("reach x by SSH: no")
    record = run(lab, drill("x", "y"))
    assert record.proof == [("fake x: reach x by SSH: no", False), ("y was there", True)]
    assert record.history
    ended_well(lab, "y", "x")


def test_objects_that_cannot_be_removed_are_told(lab: Lab) -> None:
    lab.fails["remove", "objects"] = ValueError("503")
    assert run(lab, drill("x")).troubles == ["remove /demo/stor/drills/x: ValueError 503"]


def test_objects_that_were_made_by_half_are_removed(lab: Lab) -> None:
    lab.fails["make", "objects"] = OperatorError("put: 503")
    with pytest.raises(OperatorError, match="put: 503"):
        run(lab, drill("x"))
    assert lab.did == [("make", "objects"), ("remove", "objects")]


@pytest.mark.parametrize("step", [("start", "watch"), ("start", "clients")])
def test_nothing_is_harmed_if_nobody_looks_or_asks(lab: Lab, step: tuple[str, str]) -> None:
    lab.fails[step] = OperatorError("no")
    with pytest.raises(OperatorError, match="no"):
        run(lab, drill("x"))
    assert not lab.of("inject")
    assert lab.did[-1] == ("remove", "objects")


def test_clients_that_fail_at_the_end_leave_nothing(lab: Lab) -> None:
    lab.fails["finish", "clients"] = OperatorError("talk to a client: it has ended")
    with pytest.raises(OperatorError, match="talk to a client"):
        run(lab, drill("x"))
    ended_well(lab, "x")


# Beside the faults.


def test_bulk_goes_while_the_faults_hold_and_is_over_before_they_are_healed(lab: Lab) -> None:
    def act(found: Scene, _variant: str) -> Act:
        return Act((Fake("x"),), expect(found), bulk=((1, 2), (0, 1)))  # type: ignore[arg-type]

    record = run(lab, replace(drill(), act=act))
    assert lab.of("inject", "begin bulk", "end bulk", "bit", "heal") == [
        ("inject", "x"), ("begin bulk", "12"), ("begin bulk", "01"), ("end bulk", "12"), ("end bulk", "01"), ("bit", "x"), ("heal", "x"),
    ]  # fmt: skip
    assert record.proof == [
        ("1,024 KiB of a bulk transfer arrived", True), ("0 KiB of a bulk transfer arrived", False), ("x was there", True),
    ]  # fmt: skip


@pytest.mark.parametrize(("cold", "count"), [(False, 0), (True, engine.COLD_PER_SHARD)])
def test_a_drill_knows_its_own_objects_before_it_acts(lab: Lab, *, cold: bool, count: int) -> None:
    record = run(lab, replace(drill("x"), cold=cold))
    assert lab.folder == "histories"
    assert record.scene.known == ("/demo/stor/drills/x/d0/known000",)
    assert len(record.scene.cold) == count
    assert all(path.startswith("/demo/stor/drills/x/d0/known-cold") for path in record.scene.cold)


@pytest.mark.parametrize(
    ("fails", "troubles"),
    [
        (None, []),
        ("not within 120 s", ["not within 120 s"]),
        (
            OperatorError("reach it by SSH: no"),
            ["wrong bytes in the files that s has of 0 objects: reach it by SSH: no"],
        ),
    ],
)
def test_what_should_come_right_by_itself_is_waited_for_before_it_is_healed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fails: str | OperatorError | None, troubles: list[str]
) -> None:
    rotten = RotFiles("s", ())

    def unaided(_fault: object, _region: Region) -> list[str]:
        lab.do("wait for", "s")
        if isinstance(fails, OperatorError):
            raise fails
        return [fails] if fails else []

    def act(found: Scene, _variant: str) -> Act:
        return Act((Fake("x"), rotten), expect(found))

    monkeypatch.setattr(standing, "_READ", msgspec.json.Decoder(list[Fake | RotFiles]))
    monkeypatch.setattr(lab, "do", lambda what, name: lab.did.append((what, name)))
    monkeypatch.setattr(RotFiles, "unaided", unaided)
    for what in ("inject", "heal", "bit"):
        told = [] if what == "bit" else None
        monkeypatch.setattr(RotFiles, what, lambda *_, what=what, told=told: lab.do(what, "s") or told)
    record = run(lab, replace(drill(), act=act))
    assert lab.of("inject", "bit", "wait for", "heal") == [
        ("inject", "x"), ("inject", "s"), ("bit", "x"), ("bit", "s"), ("wait for", "s"), ("heal", "s"), ("heal", "x"),
    ]  # fmt: skip
    assert record.troubles == troubles


# After: a pool that is lost is repaired, the machines are looked at.


ONE, TWO = LostObject("/demo/stor/one", "1", 4, copies=1), LostObject("/demo/stor/two", "2", 4, copies=2)


class Mending:
    """A repair's end, or why there is none."""

    objects = 9
    left = 0
    lost: tuple[LostObject, ...] = ()
    fails = ""

    def __init__(self, *_: object) -> None: ...

    def declare(self, host: str, _rate_mb_s: float) -> str:
        THE["lab"].do("declare", host)
        if self.fails:
            raise OperatorError(self.fails)
        return ""

    def conclude(self, host: str, note: str) -> Report:
        counted = {"copied": 0, "present": 0, "changed": 0, "lost": len(self.lost), "left": self.left}
        status = {"server": host, "declared_at": "", "done": True, "objects": self.objects, "bytes": 0, **counted}
        return Report(status, self.lost, note)


@dataclass(frozen=True)
class Ends:
    """How a repair ends; what is kept of it."""

    mending: Mapping[str, object]
    proofs: tuple[bool, ...] = ()
    troubles: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "ends",
    [
        Ends({}, (True,)),
        Ends({"objects": 0}, (False,)),
        Ends({"left": 1}, (False,)),
        Ends({"lost": (ONE,)}, (True, True)),
        Ends({"lost": (ONE, TWO)}, (True, True), findings=(f"lost: {TWO}",)),
        Ends({"fails": "ask: no"}, troubles=("repair the pool of s: ask: no",)),
    ],
    ids=["repaired", "of nothing", "not done", "a single copy lost", "both copies lost", "failed"],
)
def test_a_lost_pool_is_repaired_after_healing_and_whatever_comes_of_it_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ends: Ends
) -> None:
    monkeypatch.setattr(engine, "Administration", lambda _: None)
    monkeypatch.setattr(engine, "Follow", Mending)
    for name, value in ends.mending.items():
        monkeypatch.setattr(Mending, name, value)
    record = run(lab, replace(drill("x"), repairs=lambda *_: ("s",)))
    assert lab.did.index(("heal", "x")) < lab.did.index(("declare", "s")) < lab.did.index(("finish", "clients"))
    assert tuple(so for _, so in record.proof[1:]) == ends.proofs
    assert tuple(record.troubles) == ends.troubles
    assert [(f.check, f.verdict, f.what) for f in record.looked] == [
        ("O4", Verdict.FAIL, what) for what in ends.findings
    ]
    assert record.history


def test_machines_that_cannot_be_looked_at_are_unknown_and_the_history_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(*_: object) -> NoReturn:
        raise OperatorError("reach it by SSH: no")

    monkeypatch.setattr(engine, "look", unseen)
    record = run(lab, drill("x"))
    assert [(f.check, f.verdict) for f in record.looked] == [("O4", Verdict.UNKNOWN)]
    assert record.history
    ended_well(lab, "x")


# Settling.


def test_a_region_that_takes_its_time_is_waited_for(lab: Lab) -> None:
    lab.seen = [well(), ill(), ill(), well()]
    assert run(lab, drill("x")).troubles == []
    assert lab.waited[-3:] == [engine.LOOK_AGAIN_S, engine.LOOK_AGAIN_S, engine.AFTER_S]


def test_a_region_that_does_not_get_well_is_a_trouble_and_no_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SETTLE_BOUND_S", -1.0)
    lab.seen = [well(), ill("does not answer")]
    record = run(lab, drill("x"))
    assert record.troubles == ["not well again within -1 s: lab-a-api-01: does not answer"]
    assert record.history


# Before.


def test_a_region_that_is_not_well_is_not_harmed_and_told_so_in_a_sentence(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.seen = [ill()]
    now_s = iter(range(0, 1000, 20))
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: float(next(now_s))))
    with pytest.raises(OperatorError) as refused:
        run(lab, drill("x"))
    assert str(refused.value) == (
        "begin a drill: lab-a-api-01: is down; a drill needs a region that is well: ./mobula up"
    )
    assert lab.did == []
    assert lab.waited == [engine.LOOK_AGAIN_S]  # one more look, and then the 30 s are over


NOT_DESCRIBED = (
    "begin a drill: region 'lab' is not described as drillable; if it may be harmed, say \"drillable\": true in "
    "terraform/regions/lab/region.auto.tfvars.json and run ./mobula up"
)


def test_a_region_that_is_not_described_as_drillable_is_left_alone(lab: Lab) -> None:
    lab.region = replace(lab.region, drillable=False)
    lab.seen = []  # nobody looks
    with pytest.raises(OperatorError) as refused:
        run(lab, drill("x", worst=True))
    assert str(refused.value) == NOT_DESCRIBED
    assert lab.did == []
    assert lab.waited == []
    assert [path for path in lab.region.state_dir.rglob("*") if path.is_file()] == []


def test_what_a_drill_left_is_healed_though_the_region_may_be_drilled_no_more(lab: Lab) -> None:
    Standing(lab.region).note(Fake("x"))  # type: ignore[arg-type]
    lab.region = replace(lab.region, drillable=False)
    with pytest.raises(OperatorError, match="is not described as drillable"):
        run(lab, drill("y"))
    assert lab.did == [("heal", "x")]
    assert not note_of(lab.region).exists()


@pytest.mark.parametrize(
    ("mark", "what", "do"),
    [
        ("", "not marked drillable: /etc/mobula/drillable is not there, or says nothing", "run ./mobula up, which writes it"),
        (
            "lab2",
            "marked for another region: /etc/mobula/drillable says 'lab2', not 'lab'",
            "find out whose host it is, then run ./mobula up",
        ),
    ],
    ids=["no mark", "another region's"],
)  # fmt: skip
def test_one_host_that_is_not_marked_saves_the_region(lab: Lab, mark: str, what: str, do: str) -> None:
    lab.seen = [well({"lab-b-storage-01": mark})]
    with pytest.raises(OperatorError) as refused:
        run(lab, drill("x"))
    assert str(refused.value) == f"begin a drill: lab-b-storage-01 is {what}; {do}"
    assert lab.did == []


def test_the_first_host_that_is_not_marked_is_named_also_if_nobody_looked_at_it(tmp_path: Path) -> None:
    region = region_in(tmp_path)
    marks = dict.fromkeys(region.hosts, "lab")
    assert engine.unmarked(region, marks) == ""
    assert engine.unmarked(region, {**marks, "lab-z-api-01": ""}) == ""  # it is no host of the region
    del marks["lab-c-api-01"], marks["lab-b-api-01"]
    assert engine.unmarked(region, marks).startswith("lab-b-api-01 is not marked drillable")


def test_a_region_that_is_not_up_is_not_said_to_lack_a_mark(tmp_path: Path) -> None:
    region = region_in(tmp_path)
    assert engine.undescribed(region) == ""
    assert engine.undescribed(replace(region, drillable=False)) == NOT_DESCRIBED.removeprefix("begin a drill: ")
    assert engine.undescribed(replace(region, drillable=False, hosts={})) == ""  # the look says that it is not up


def test_what_a_drill_that_was_killed_has_left_is_healed_by_hand_and_by_the_next_one(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    path = note_of(lab.region)
    path.parent.mkdir()
    left = msgspec.json.encode([Fake("x"), Fake("y")])
    for again in (lambda: engine.heal(lab.region, Progress()), lambda: engine.preflight(lab.region, Progress())):
        lab.did.clear()
        path.write_bytes(left)
        again()
        assert lab.did == [("heal", "y"), ("heal", "x")]
        assert not path.exists()
        said = capsys.readouterr().err
        assert said.index("heal: fake y") < said.index("heal: fake x")


def test_nothing_left_is_nothing_to_heal(lab: Lab) -> None:
    assert engine.heal(lab.region, QUIET) == []
    assert lab.did == []


@pytest.mark.parametrize("noted", [b"", b"[", b'[{"type":"flood"}]', b"\xff\xfe"])
def test_a_note_that_cannot_be_read_stops_one_drill_and_not_the_next(lab: Lab, noted: bytes) -> None:
    note_of(lab.region).parent.mkdir()
    note_of(lab.region).write_bytes(noted)
    with pytest.raises(OperatorError, match="begin a drill: an earlier one can't be healed: read what a drill left: "):
        run(lab, drill("x"))
    assert lab.did == []
    assert run(lab, drill("x")).troubles == []
    assert note_of(lab.region).with_suffix(".unreadable").read_bytes() == noted


# Processes.

SCRIPT = """
import signal, sys
from pathlib import Path

from mobula.lab import network
from ops.drills import engine
from ops.drills.faults import Cut
from ops.drills.standing import Standing
from ops.drills.model import Act, Drill, expect
from ops.progress import Progress
from tests.drills import region_in, scene

signal.alarm(120)  # whatever happens to who waits for us
state, what = Path(sys.argv[1]), sys.argv[2]
routers = state / "routers"
network.NETNS = routers


def say(word):
    print(word, flush=True)


def nft(namespace, script):
    # As a router keeps it. Where it is told to hang, it does, after it has done it.
    (routers / namespace).write_text(script)
    say(f"set {namespace}")
    if what == f"hang-{namespace}" and "drop" in script:
        signal.pause()


def drops(namespace, table):
    found = (routers / namespace).read_text()
    return {line.split('"')[-2]: 1 for line in found.splitlines() if "counter drop" in line}


network.nft, network.drops = nft, drops
region, found = region_in(state), scene("small")
if what == "heal":
    say(repr(engine.heal(region, Progress())))
    sys.exit()
cuts = Cut(((1, 2), (2, 1)), "a, b"), Cut(((1, 3), (3, 1)), "a, c")
drill = Drill("cut", "", (), ("one",), lambda *_: Act(cuts, expect(found)), hold_s=600.0)
record = engine.Recorded(drill, "one", found, drill.act(found, "one"), 1, 0.0, 0.0)
engine.STEADY_S = 0.0
with engine._interruptible():
    engine._harm(region, record, Progress())
"""


def process(state: Path, what: str) -> subprocess.Popen[str]:
    (state / "routers").mkdir(exist_ok=True)
    for zone in (1, 2, 3):
        (state / f"routers/lab-r{zone}").touch()
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(state), what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{REPO}/src:{REPO}"},
    )  # fmt: skip


def until(lines: Any, word: str) -> None:
    """It has said the word; if it never does, it ends."""
    for line in lines:
        if word in line:
            return
    raise AssertionError(f"it has ended before it said {word!r}")


def cut_at(state: Path) -> set[str]:
    return {path.name for path in (state / "routers").iterdir() if "counter drop" in path.read_text()}


@pytest.mark.parametrize(
    ("what", "line", "harmed"),
    [
        ("hang-lab-r1", "set lab-r1", {"lab-r1"}),
        ("hold", "hold 600 s", {"lab-r1", "lab-r2", "lab-r3"}),
    ],
    ids=["in the midst of a fault", "while it holds"],
)
def test_what_a_killed_process_left_is_healed_by_a_new_one(
    tmp_path: Path, what: str, line: str, harmed: set[str]
) -> None:
    with process(tmp_path, what) as victim:
        until(victim.stderr if what == "hold" else victim.stdout, line)
        victim.kill()
    assert cut_at(tmp_path) == harmed
    with process(tmp_path, "heal") as healer:
        said, _ = healer.communicate(timeout=60)
    assert said.splitlines()[-1] == "[]"
    assert healer.returncode == 0
    assert cut_at(tmp_path) == set()
    assert not (tmp_path / "drill/standing.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_heals_even_if_nobody_reads_what_it_says(
    tmp_path: Path, number: signal.Signals
) -> None:
    with process(tmp_path, "hold") as told:
        until(told.stderr, "hold 600 s")
        assert told.stderr is not None
        told.stderr.close()
        assert cut_at(tmp_path) == {"lab-r1", "lab-r2", "lab-r3"}
        told.send_signal(number)
        told.communicate(timeout=60)
    assert told.returncode != 0
    assert cut_at(tmp_path) == set()
    assert not (tmp_path / "drill/standing.json").exists()
