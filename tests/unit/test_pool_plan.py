"""What the pool agent would do for a pool, from recorded words of zpool and what its disks look like."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.pool.disks import Look
from mobula.pool.plan import Plan, Wanted, paths, plan, scrub_due
from mobula.pool.zpool_status import Node, Pool, Scan
from tests.unit.test_pool_status import TEXTS, recorded

OWNER = "t/t-a-storage-01"
WANTED = Wanted(OWNER, "/disks", spares=2, io_errors_max=20)
SIZE = 1 << 30
WELL = Look(size_bytes=SIZE, identity=(1, 1))
DEAD = Look("has 0 bytes")
NEW = Look("is blank", blank=True, size_bytes=SIZE)
SMALL = replace(NEW, size_bytes=SIZE // 2)
SILENT = Look(silent=True)


def planned(pool: Pool | str, **looks: Look) -> Plan:
    """Of a recorded pool whose disks look well but for these."""
    found = recorded(pool) if isinstance(pool, str) else pool
    seen = {path: looks.get(path.rpartition("/")[2], WELL) for path in paths(found, "/disks")}
    return plan(found, OWNER, seen, WANTED)


def commands(made: Plan) -> list[str]:
    return [action.text.removeprefix("zpool ").replace("/disks/", "") for action in made.actions]


def found(made: Plan) -> list[str]:
    return [finding.what.replace("/disks/", "") for finding in made.findings]


@pytest.mark.parametrize(
    ("text", "looks", "wanted"),
    [
        ("online", {}, []),
        ("online", {"d02": DEAD}, ["offline tank d02", "replace tank d02 d07"]),
        ("online", {"d02": DEAD, "d05": DEAD}, ["offline tank d02", "replace tank d02 d07", "offline tank d05", "replace tank d05 d08"]),
        # A spare that has failed itself, or does not answer, is no spare.
        ("online", {"d02": DEAD, "d07": DEAD}, ["offline tank d02", "replace tank d02 d08"]),
        ("online", {"d02": DEAD, "d07": SILENT}, ["offline tank d02", "replace tank d02 d08"]),
        ("online", {"d02": DEAD, "d07": DEAD, "d08": DEAD}, ["offline tank d02"]),
        # A new disk needs no spare; one that is too small does.
        ("online", {"d02": NEW}, ["offline tank d02", "replace tank d02"]),
        ("online", {"d02": SMALL}, ["offline tank d02", "replace tank d02 d07"]),
        ("online", {"d07": NEW}, ["remove tank d07", "add tank spare d07"]),
        # More than the vdev can do without: nothing could help, and it is rather a cable.
        ("online", {"d01": DEAD, "d02": DEAD, "d03": DEAD}, []),
        ("online", {"d02": SILENT}, []),
        ("unavail-noticed-by-scrub", {"d02": DEAD}, ["replace tank d02 d07"]),
        ("unavail-noticed-by-scrub", {"d02": NEW}, ["replace tank d02"]),
        ("unavail-after-restart", {"d02": DEAD, "d03": DEAD, "d07": DEAD}, ["replace tank d02 d08"]),
        ("unavail-after-restart", {"d02": NEW, "d03": DEAD, "d07": NEW},
         ["replace tank d02", "replace tank d03 d08", "remove tank d07", "add tank spare d07"]),
        ("spare-in-use", {"d03": DEAD, "d07": DEAD}, []),
        ("spare-in-use", {"d03": NEW, "d07": DEAD}, ["replace tank d03"]),
        ("spare-in-use", {"d03": DEAD, "d07": DEAD, "d08": DEAD}, ["offline tank d08", "detach tank d08"]),
        ("spare-in-use", {"d03": DEAD, "d07": DEAD, "d01": DEAD}, ["offline tank d01"]),
        ("two-spares-in-use", {"d02": DEAD, "d03": DEAD}, []),
        ("two-spares-in-use", {"d02": DEAD, "d03": DEAD, "d04": DEAD}, ["offline tank d04"]),
        ("two-spares-in-use", {"d02": NEW, "d03": DEAD}, ["replace tank d02"]),
        ("spare-to-return", {}, ["detach tank d07"]),
        ("spare-to-return", {"d02": DEAD}, ["offline tank d02"]),
        ("spare-to-return", {"d02": SILENT}, []),
        ("replacing-within-spare", {}, []),
        ("replacing-within-spare", {"d02": DEAD}, ["offline tank d02", "detach tank d02"]),
        ("scrub-in-progress", {}, ["replace tank d05 d07"]),  # 1.2K read errors; what it still has helps to fill the spare
        ("pool-lost", {"d04": DEAD, "d05": DEAD, "d06": DEAD}, []),
        ("pool-lost-after-restart", {"d04": NEW, "d05": NEW, "d06": NEW}, []),
        ("openzfs-resilver", {"wwn-0x5000c500a2": DEAD}, ["replace tank wwn-0x5000c500a4 wwn-0x5000c500b2"]),
        ("openzfs-resilver", {"wwn-0x5000c500a2": NEW},
         ["replace tank 12398123749812374987 wwn-0x5000c500a2", "replace tank wwn-0x5000c500a4 wwn-0x5000c500b2"]),
    ],
)  # fmt: skip
def test_what_is_done(text: str, looks: dict[str, Look], wanted: list[str]) -> None:
    assert commands(planned(text, **looks)) == wanted


@pytest.mark.parametrize(
    ("text", "looks", "wanted"),
    [
        ("online", {}, []),
        ("spare-to-return", {}, []),
        ("online", {"d02": DEAD}, ["disk d02 has 0 bytes; spare d07 takes its place"]),
        ("online", {"d08": DEAD}, ["spare d08 has 0 bytes"]),
        ("online", {"d02": DEAD, "d07": DEAD, "d08": DEAD},
         ["disk d02 has 0 bytes and no spare is left: the pool tank has less parity than it should", "spare d07 has 0 bytes",
          "spare d08 has 0 bytes"]),
        ("online", {"d01": DEAD, "d02": DEAD, "d03": DEAD},
         ["3 disks of raidz2-0 in the pool tank have failed, it can do without 2: d01, d02, d03"]),
        ("online", {"d03": SILENT}, ["disk d03 does not answer"]),
        ("two-spares-in-use", {"d02": DEAD, "d03": DEAD},
         ["disk d02 has 0 bytes; spare d07 stands for it", "disk d03 has 0 bytes; spare d08 stands for it"]),
        ("two-spares-in-use", {"d02": DEAD},
         ["disk d02 has 0 bytes; spare d07 stands for it", "disk d03 is OFFLINE, though it looks well"]),
        ("replacing-within-spare", {}, ["disk d02 is being filled"]),
        ("scrub-in-progress", {}, ["disk d02 had 3 checksum errors", "disk d05 had 1228 read and write errors; spare d07 takes its place"]),
        ("pool-lost-after-restart", {}, [
            "the pool tank is UNAVAIL: its objects can't be reached", "the pool tank has 0 hot spares, wanted are 2"]),
    ],
)  # fmt: skip
def test_what_is_said(text: str, looks: dict[str, Look], wanted: list[str]) -> None:
    made = planned(text, **looks)
    assert found(made)[: len(wanted)] == wanted
    assert all(finding.do for finding in made.findings)


def test_a_degraded_pool_is_never_said_to_be_well() -> None:
    assert found(planned(replace(recorded("online"), state="DEGRADED"))) == ["the pool tank is DEGRADED"]
    for text in TEXTS:
        pool = recorded(text)
        made = planned(text)
        assert made.findings or pool.state == "ONLINE"


@pytest.mark.parametrize("owner", ["", "other/host", "t/t-b-storage-01"])
def test_a_pool_that_is_not_ours_is_left_alone(owner: str) -> None:
    for text in TEXTS:
        pool = recorded(text)
        made = plan(pool, owner, dict.fromkeys(paths(pool, "/disks"), DEAD), WANTED)
        assert made.actions == []
        assert "it is left alone" in made.findings[0].what


def test_no_more_spares_are_used_than_are_configured() -> None:
    pool = recorded("online")
    third = replace(pool, spares=(*pool.spares, Node("/disks/d09", "AVAIL")))
    looks = dict.fromkeys(paths(third, "/disks"), WELL) | {"/disks/d01": DEAD, "/disks/d02": DEAD}
    one = replace(WANTED, spares=1)
    made = plan(third, OWNER, looks, one)
    assert [text for text in commands(made) if text.startswith("replace")] == ["replace tank d01 d07"]


STATES = st.sampled_from(["ONLINE", "ONLINE", "ONLINE", "OFFLINE", "UNAVAIL", "FAULTED", "REMOVED", "DEGRADED"])
LOOKS = st.sampled_from([WELL, WELL, WELL, DEAD, NEW, SMALL, SILENT])


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Any pool: disks in any state, some with a spare beside them, some being replaced."""
    vdevs, spares = [], [f"/disks/s{n}" for n in range(2)]
    used: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        places = []
        for disk in range(4):
            name = f"/disks/v{number}d{disk}"
            node = Node(name, draw(STATES), read_errors=draw(st.sampled_from([0, 0, 5, 50])))
            kind = draw(st.sampled_from(["disk"] * 6 + ["spare", "replacing"]))
            if kind == "replacing":
                node = Node("replacing-0", "ONLINE", children=(Node(f"{name}/old", draw(STATES)), node))
            if kind == "spare" and spares:
                used.append(spares.pop())
                node = Node("spare-0", "ONLINE", children=(node, Node(used[-1], draw(STATES))))
            places.append(node)
        vdevs.append(Node(f"raidz2-{number}", "ONLINE", children=tuple(places)))
    lines = [Node(name, "INUSE") for name in used] + [
        Node(name, draw(st.sampled_from(["AVAIL", "UNAVAIL"]))) for name in spares
    ]
    scan = Scan(draw(st.sampled_from(["", "scrub", "resilver"])), running=draw(st.booleans()))
    state = draw(st.sampled_from(["ONLINE", "DEGRADED", "UNAVAIL", "SUSPENDED"]))
    return Pool("tank", state, scan, Node("tank", state, children=tuple(vdevs)), tuple(lines), "No known data errors")


@given(pools(), st.data())
def test_whatever_is_found_nothing_is_destroyed_and_no_spare_is_used_twice(pool: Pool, data: st.DataObject) -> None:
    looks = {path: data.draw(LOOKS) for path in paths(pool, "/disks")}
    made = plan(pool, OWNER, looks, WANTED)
    spares = {spare.name: spare for spare in pool.spares}
    being_filled = {
        pair[1].name
        for vdev in pool.vdevs
        for place in vdev.children
        if (pair := place.children) and pair[0].name.endswith("/old")
    }
    taken = []
    for action in made.actions:
        verb, _, *disks = action.argv[1:]
        assert verb in {"offline", "replace", "detach", "remove", "add"}
        assert not any(word.startswith("-") for word in action.argv)
        if verb == "detach":
            assert disks[0] in being_filled or spares[disks[0]].state == "INUSE"
        elif verb == "replace" and len(disks) == 2:
            assert spares[disks[1]].state == "AVAIL"
            assert not looks[disks[1]].failure
            taken.append(disks[1])
        elif verb == "replace":
            assert looks[disks[0]].blank
        elif verb == "remove":
            assert spares[disks[0]].state != "INUSE"
            assert looks[disks[0]].blank
        elif verb == "offline":
            assert looks[disks[0]].failure
    assert len(taken) == len(set(taken))
    if pool.state in ("UNAVAIL", "SUSPENDED"):
        assert made.actions == []
    if any(look.failure for look in looks.values()):
        assert made.findings or made.actions


def test_no_disk_more_than_the_parity_is_taken_offline_whatever_fails() -> None:
    names = [f"d0{n}" for n in range(1, 7)]
    for count in range(7):
        for failed in itertools.combinations(names, count):
            made = planned("online", **dict.fromkeys(failed, DEAD))
            assert sum(action.argv[1] == "offline" for action in made.actions) == (count if count <= 2 else 0)


DAY = 86400.0


@pytest.mark.parametrize(
    ("text", "looks", "age_s", "due"),
    [
        ("online", {}, 8 * DAY, True),
        ("online", {}, 6 * DAY, False),
        ("online", {"d02": DEAD}, 8 * DAY, False),
        ("two-spares-in-use", {"d02": DEAD, "d03": DEAD}, 8 * DAY, False),  # it resilvers
        ("scrub-in-progress", {}, 8 * DAY, False),
        ("spare-in-use", {"d03": DEAD, "d07": DEAD}, 8 * DAY, True),  # nothing is being done, and it may last
        ("pool-lost", {}, 8 * DAY, False),
    ],
)
def test_when_a_scrub_is_due(text: str, looks: dict[str, Look], age_s: float, due: bool) -> None:
    assert scrub_due(recorded(text), planned(text, **looks), 0.0, age_s, 7 * DAY) is due
