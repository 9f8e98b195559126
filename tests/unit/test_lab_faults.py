"""Faults: which links are silenced or bad, where; what is spoiled on a disk; and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mobula.lab import faults, network
from mobula.lab.faults import LABELS_BYTES, SECTOR_BYTES, Drop, Kind
from mobula.lab.network import LabError

ZONES = {"a": 1, "b": 2, "c": 3}


class Routers:
    """The AZs' routers, as far as nft would see them."""

    def __init__(self) -> None:
        self.scripts: dict[str, str] = {}

    def nft(self, namespace: str, script: str) -> None:
        self.scripts[namespace] = script

    def drops(self, namespace: str, table: str) -> dict[str, int]:
        assert table == "fault"
        return dict.fromkeys(re.findall(r'counter drop comment "(.*)"', self.scripts.get(namespace, "")), 3)

    def rules(self) -> dict[str, list[str]]:
        """Of each router, where there are any, in their order."""
        found = {
            name[-2:]: re.findall(r"    (.*) counter drop comment", script) for name, script in self.scripts.items()
        }
        return {name: rules for name, rules in found.items() if rules}

    def silenced(self) -> dict[str, set[str]]:
        """What each router drops, where it drops anything."""
        return {name: set(rules) for name, rules in self.rules().items()}


@pytest.fixture
def routers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Routers:
    made = Routers()
    for zone in ZONES.values():
        (tmp_path / f"lab-r{zone}").touch()
    monkeypatch.setattr(network, "NETNS", tmp_path)
    monkeypatch.setattr(network, "nft", made.nft)
    monkeypatch.setattr(network, "drops", made.drops)
    return made


@pytest.mark.parametrize(("letter", "zone"), [("a", 1), ("b", 2), ("c", 3)])
def test_an_az_has_a_letter_and_a_number(letter: str, zone: int) -> None:
    assert faults.zone_of(letter, ZONES) == zone


@pytest.mark.parametrize("letter", ["", "d", "A", "ab", "1", "a "])
def test_an_az_that_is_not_there_is_named(letter: str) -> None:
    with pytest.raises(LabError, match=re.escape(f"find AZ {letter!r}: there are a, b, c")):
        faults.zone_of(letter, ZONES)


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (1, 3), (3, 2)])
def test_a_cut_silences_one_link_at_both_of_its_ends(routers: Routers, a: int, b: int) -> None:
    faults.drop("lab", faults.cuts(faults.both_ways((a, b))))
    drop = {f'iifname "l{min(a, b)}{max(a, b)}"'}
    assert routers.silenced() == {f"r{a}": drop, f"r{b}": drop}
    assert faults.standing_drops("lab") == {Drop(a, b, Kind.CUT): 3, Drop(b, a, Kind.CUT): 3}


def test_one_way_silences_one_end(routers: Routers) -> None:
    faults.drop("lab", faults.cuts(frozenset({(1, 3)})))
    assert routers.silenced() == {"r3": {'iifname "l13"'}}


def test_an_az_is_not_cut_from_itself(routers: Routers) -> None:
    with pytest.raises(LabError, match="name two different ones"):
        faults.drop("lab", faults.cuts(faults.both_ways((2, 2))))
    assert routers.scripts == {}


def test_an_isolated_az_hears_nobody_and_is_heard_by_nobody(routers: Routers) -> None:
    faults.drop("lab", faults.cuts(faults.alone(2)))
    assert routers.silenced() == {
        "r1": {'iifname "l12"'},
        "r2": {'iifname "l12"', 'iifname "l23"', 'iifname "pub"', 'oifname "pub"'},
        "r3": {'iifname "l23"'},
    }


def test_cuts_add_up_and_are_healed_one_by_one(routers: Routers) -> None:
    faults.drop("lab", faults.cuts(faults.alone(1)))
    faults.drop("lab", faults.cuts(faults.both_ways((2, 3))))
    assert len(faults.standing_drops("lab")) == 8
    faults.heal("lab", faults.cuts(faults.alone(1)))
    assert faults.standing_drops("lab").keys() == faults.cuts(faults.both_ways((2, 3)))
    faults.heal("lab")
    assert routers.silenced() == {}
    assert set(routers.scripts.values()) == {"table inet fault {}\ndelete table inet fault\n"}


def test_a_bad_link_stands_beside_a_cut_and_each_is_healed_by_itself(routers: Routers) -> None:
    way = frozenset({(1, 2)})
    kinds = [faults.limits(way, 10_000), faults.losses(way, 2), faults.cuts(way)]
    for drops in kinds:
        faults.drop("lab", drops)
    link = 'iifname "l12"'
    loss, narrow = f"{link} numgen random mod 100 < 2", f"{link} limit rate over 1250000 bytes/second burst 65536 bytes"
    assert routers.rules() == {"r2": [link, loss, narrow]}  # a cut first: it leaves nothing for the others
    faults.heal("lab", faults.cuts(way))
    assert routers.rules() == {"r2": [loss, narrow]}
    faults.heal("lab", faults.losses(way, 3))  # not this one
    assert faults.standing_drops("lab").keys() == faults.limits(way, 10_000) | faults.losses(way, 2)
    faults.heal("lab", faults.losses(way, 2))
    assert routers.rules() == {"r2": [narrow]}
    faults.heal("lab")
    assert routers.rules() == {}


@pytest.mark.parametrize("comment", ["", "cut", "cut 1 2", "cut 1 x 0", "flood 1 2 0", "cut 1 2 0 0"])
def test_a_rule_of_somebody_else_is_no_drop(routers: Routers, monkeypatch: pytest.MonkeyPatch, comment: str) -> None:
    monkeypatch.setattr(network, "drops", lambda *_: {comment: 7, "loss 1 2 2": 9})
    assert faults.standing_drops("lab") == {Drop(1, 2, Kind.LOSS, 2): 9}


def machine(state: Path, name: str, *disks: str) -> Path:
    """A machine's folder with its label and disks."""
    folder = state / "machines" / name
    folder.mkdir(parents=True)
    label = {
        "region": "lab", "cidr": "10.77.0.0/16", "name": name, "zone": 1, "address": "10.77.1.41", "disks": len(disks),
        "disk_size_bytes": 4, "state_dir": str(state), "image": str(state / "image"),
    }  # fmt: skip
    (folder / "label.json").write_text(json.dumps(label))
    (folder / "disks").mkdir()
    for disk in disks:
        (folder / "disks" / disk).write_bytes(b"data")
    return folder / "disks"


def test_a_failed_disk_holds_nothing_any_more_and_the_others_do(tmp_path: Path) -> None:
    disks = machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    faults.fail_disk(tmp_path, "lab-a-storage-01", "d02")
    assert {p.name: p.stat().st_size for p in disks.iterdir()} == {"d01": 4, "d02": 0}


@pytest.mark.parametrize(
    ("host", "disk", "says"),
    [
        ("lab-a-storage-01", "d09", "fail disk 'd09' of lab-a-storage-01: it has d01, d02"),
        ("lab-a-storage-01", "../label.json", "it has d01, d02"),
        ("lab-a-api-01", "d01", "it has no disks"),
        ("lab-z-api-01", "d01", "find machine 'lab-z-api-01': there is lab-a-api-01, lab-a-storage-01"),
    ],
)
def test_a_disk_that_is_not_there_is_refused_by_naming_those_that_are(
    tmp_path: Path, host: str, disk: str, says: str
) -> None:
    machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    machine(tmp_path, "lab-a-api-01")
    with pytest.raises(LabError, match=re.escape(says)):
        faults.fail_disk(tmp_path, host, disk)


def test_what_stands_is_told_and_a_half_made_machine_is_nobody(tmp_path: Path, routers: Routers) -> None:
    (tmp_path / "machines" / "half").mkdir(parents=True)
    faults.drop("lab", faults.cuts(frozenset({(1, 2), (3, faults.PUB)})))
    faults.drop("lab", faults.losses(frozenset({(2, 3)}), 2) | faults.limits(frozenset({(2, 3)}), 10_000))
    machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    (tmp_path / "machines/lab-a-storage-01/disks/d01").write_bytes(b"data")
    (tmp_path / "machines/lab-a-storage-01/disks/d02").write_bytes(b"")
    assert faults.standing("lab", ZONES, tmp_path) == [
        ("az b", "AZ b can't hear AZ a", "./mobula lab heal"),
        ("az c", "AZ c loses 2 % of what AZ b sends", "./mobula lab heal"),
        ("az c", "AZ c gets 10000 kbit/s of what AZ b sends", "./mobula lab heal"),
        ("az c", "the internet can't hear AZ c", "./mobula lab heal"),
        ("lab-a-storage-01", "disk d02 has failed", "./mobula up puts a new disk in its place"),
    ]


# Wrong bytes on a disk.


def sector(text: str) -> bytes:
    return text.encode().ljust(SECTOR_BYTES, b"\0")


def test_only_the_sectors_that_are_meant_are_spoiled_and_only_between_the_labels(tmp_path: Path) -> None:
    disk = machine(tmp_path, "lab-a-storage-01", "d01") / "d01"
    size, inner = 64 << 20, LABELS_BYTES + (3 << 20)
    os.truncate(disk, size)
    ours, theirs = sector("ours"), sector("theirs")
    # In a label, inside, where it is not a sector's beginning, beside others', twice, at the last place, in the other label.
    places = {
        0: ours, LABELS_BYTES: ours, inner + 100: ours, inner + 4096: theirs + ours + theirs, inner + (20 << 20): ours,
        size - LABELS_BYTES - SECTOR_BYTES: ours, size - LABELS_BYTES: ours,
    }  # fmt: skip
    with disk.open("r+b") as file:
        for at, data in places.items():
            file.seek(at)
            file.write(data)
    before = disk.read_bytes()
    found = (tmp_path, "lab-a-storage-01", "d01", [ours, sector("nowhere")])
    assert faults.count_sectors(*found) == 4
    assert faults.spoil_sectors(*found) == 4
    spoiled = [LABELS_BYTES, inner + 4096 + SECTOR_BYTES, inner + (20 << 20), size - LABELS_BYTES - SECTOR_BYTES]
    wanted = bytearray(before)
    for at in spoiled:
        wanted[at : at + SECTOR_BYTES] = faults.inverted(ours)
    assert disk.read_bytes() == wanted
    assert disk.stat().st_blocks * 512 < 2 << 20  # the holes are holes still
    assert faults.count_sectors(*found) == 0
    assert faults.count_sectors(tmp_path, "lab-a-storage-01", "d01", [faults.inverted(ours)]) == 4


def test_a_disk_that_has_failed_has_nothing_to_spoil_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    disks = machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    (disks / "d01").write_bytes(b"")
    assert faults.spoil_sectors(tmp_path, "lab-a-storage-01", "d01", [sector("ours")]) == 0
    for act, verb in ((faults.spoil_sectors, "spoil"), (faults.count_sectors, "read")):
        with pytest.raises(LabError, match=re.escape(f"{verb} disk 'd09' of lab-a-storage-01: it has d01, d02")):
            act(tmp_path, "lab-a-storage-01", "d09", [sector("ours")])
