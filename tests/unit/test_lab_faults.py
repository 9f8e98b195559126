"""Faults: which links a cut silences, where; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mobula.lab import faults, network
from mobula.lab.network import LabError

ZONES = {"a": 1, "b": 2, "c": 3}


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The nft scripts by namespace, in place of being run."""
    scripts: dict[str, str] = {}
    monkeypatch.setattr(network, "nft", lambda namespace, script: scripts.update({namespace: script}))
    return scripts


def silenced(script: str) -> set[str]:
    """Links on which nothing comes in and nothing goes out."""
    ways = re.findall(r'(iifname|oifname) "(\w+)" drop', script)
    links = {link for _, link in ways}
    assert set(ways) == {(way, link) for way in ("iifname", "oifname") for link in links}
    return links


@pytest.mark.parametrize(("letter", "zone"), [("a", 1), ("b", 2), ("c", 3)])
def test_an_az_has_a_letter_and_a_number(letter: str, zone: int) -> None:
    assert faults.zone_of(letter, ZONES) == zone


@pytest.mark.parametrize("letter", ["", "d", "A", "ab", "1", "a "])
def test_an_az_that_is_not_there_is_named(letter: str) -> None:
    with pytest.raises(LabError, match=re.escape(f"find AZ {letter!r}: there are a, b, c")):
        faults.zone_of(letter, ZONES)


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (1, 3), (3, 2)])
def test_a_cut_silences_one_link_at_both_of_its_ends(applied: dict[str, str], a: int, b: int) -> None:
    faults.cut("lab", a, b)
    link = f"l{min(a, b)}{max(a, b)}"
    assert {name: silenced(script) for name, script in applied.items()} == {f"lab-r{a}": {link}, f"lab-r{b}": {link}}


def test_an_az_is_not_cut_from_itself(applied: dict[str, str]) -> None:
    with pytest.raises(LabError, match="name two different ones"):
        faults.cut("lab", 2, 2)
    assert applied == {}


@pytest.mark.parametrize(
    ("zone", "links"), [(1, {"l12", "l13", "pub"}), (2, {"l12", "l23", "pub"}), (3, {"l13", "l23", "pub"})]
)
def test_an_isolated_az_hears_nobody_but_management(applied: dict[str, str], zone: int, links: set[str]) -> None:
    faults.isolate("lab", zone)
    assert {name: silenced(script) for name, script in applied.items()} == {f"lab-r{zone}": links}


def test_healing_removes_the_faults_of_every_az_and_leaves_the_edge(applied: dict[str, str]) -> None:
    faults.heal("lab")
    assert set(applied) == {"lab-r1", "lab-r2", "lab-r3"}
    assert set(applied.values()) == {"table inet fault {}\ndelete table inet fault\n"}


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


def test_what_stands_is_told_and_a_half_made_machine_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machines" / "half").mkdir(parents=True)
    for name in ("lab-r1", "lab-r2"):
        (tmp_path / name).touch()
    monkeypatch.setattr(network, "NETNS", tmp_path)
    monkeypatch.setattr(network, "cut_links", lambda name, _: ["l12", "pub"] if name == "lab-r1" else [])
    machine(tmp_path, "lab-a-storage-01", "d01", "d02")
    (tmp_path / "machines/lab-a-storage-01/disks/d01").write_bytes(b"data")
    (tmp_path / "machines/lab-a-storage-01/disks/d02").write_bytes(b"")
    assert faults.standing("lab", ZONES, tmp_path) == [
        ("az a", "its links l12, pub are cut", "./mobula lab heal"),
        ("lab-a-storage-01", "disk d02 has failed", "./mobula up puts a new disk in its place"),
    ]
