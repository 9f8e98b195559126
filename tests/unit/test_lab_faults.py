"""Faults: which links a cut silences, where; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mobula.lab import faults, network
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
        return dict.fromkeys(re.findall(r'([io]ifname "\w+") counter drop', self.scripts.get(namespace, "")), 3)

    def silenced(self) -> dict[str, set[str]]:
        """What each router drops, where it drops anything."""
        return {name[-2:]: set(found) for name in self.scripts if (found := self.drops(name, "fault"))}


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
    faults.cut("lab", faults.both_ways((a, b)))
    drop = {f'iifname "l{min(a, b)}{max(a, b)}"'}
    assert routers.silenced() == {f"r{a}": drop, f"r{b}": drop}
    assert faults.standing_cuts("lab") == (frozenset({(a, b), (b, a)}), 6)


def test_one_way_silences_one_end(routers: Routers) -> None:
    faults.cut("lab", frozenset({(1, 3)}))
    assert routers.silenced() == {"r3": {'iifname "l13"'}}


def test_an_az_is_not_cut_from_itself(routers: Routers) -> None:
    with pytest.raises(LabError, match="name two different ones"):
        faults.cut("lab", faults.both_ways((2, 2)))
    assert routers.scripts == {}


def test_an_isolated_az_hears_nobody_and_is_heard_by_nobody(routers: Routers) -> None:
    faults.cut("lab", faults.alone(2))
    assert routers.silenced() == {
        "r1": {'iifname "l12"'},
        "r2": {'iifname "l12"', 'iifname "l23"', 'iifname "pub"', 'oifname "pub"'},
        "r3": {'iifname "l23"'},
    }


def test_cuts_add_up_and_are_healed_one_by_one(routers: Routers) -> None:
    faults.cut("lab", faults.alone(1))
    faults.cut("lab", faults.both_ways((2, 3)))
    assert len(faults.standing_cuts("lab")[0]) == 8
    faults.heal("lab", faults.alone(1))
    assert faults.standing_cuts("lab")[0] == faults.both_ways((2, 3))
    faults.heal("lab")
    assert routers.silenced() == {}
    assert set(routers.scripts.values()) == {"table inet fault {}\ndelete table inet fault\n"}


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
    faults.cut("lab", frozenset({(1, 2), (3, faults.PUB)}))
    machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    (tmp_path / "machines/lab-a-storage-01/disks/d01").write_bytes(b"data")
    (tmp_path / "machines/lab-a-storage-01/disks/d02").write_bytes(b"")
    assert faults.standing("lab", ZONES, tmp_path) == [
        ("az b", "AZ b can't hear AZ a", "./mobula lab heal"),
        ("az c", "the internet can't hear AZ c", "./mobula lab heal"),
        ("lab-a-storage-01", "disk d02 has failed", "./mobula up puts a new disk in its place"),
    ]
