"""What zpool says, as values: texts in `zpool_status/` were said by zfs-fuse 0.7.0 but for those named after OpenZFS, and running scans."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.pool.zpool_status import History, Node, NotUnderstood, Pool, parse_history, parse_scan, parse_status

TEXTS = {file.stem: file.read_text() for file in (Path(__file__).parent / "zpool_status").glob("*.txt")}


def recorded(name: str) -> Pool:
    return parse_status(TEXTS[name], "tank")


@pytest.mark.parametrize("name", TEXTS)
def test_every_disk_of_a_recorded_text_is_found_with_a_state(name: str) -> None:
    pool = recorded(name)
    leaves = [leaf for vdev in pool.vdevs for leaf in vdev.leaves()]
    assert len(leaves) >= 6
    assert all(node.state.isupper() and node.name not in ("NAME", "spares") for node in [*leaves, *pool.spares])
    assert len(pool.spares) == (0 if name == "pool-lost-after-restart" else 2)


def test_a_pool_that_is_well() -> None:
    pool = recorded("online")
    (vdev,) = pool.vdevs
    assert (pool.state, pool.data_errors, vdev.name, vdev.kind, vdev.parity) == ("ONLINE", "", "raidz2-0", "raidz2", 2)
    assert [leaf.name for leaf in vdev.leaves()] == [f"/disks/d0{n}" for n in range(1, 7)]
    assert [(spare.name, spare.state) for spare in pool.spares] == [("/disks/d07", "AVAIL"), ("/disks/d08", "AVAIL")]


def test_a_spare_in_use_stands_beside_its_disk_and_among_the_spares() -> None:
    pool = recorded("spare-in-use")
    place = pool.vdevs[0].children[2]
    assert (place.name, place.kind, [leaf.state for leaf in place.leaves()]) == (
        "spare-2",
        "spare",
        ["UNAVAIL", "ONLINE"],
    )
    assert pool.spares == (
        Node("/disks/d07", "UNAVAIL", note="corrupted data"),
        Node("/disks/d08", "INUSE", note="currently in use"),
    )


def test_what_replaces_a_disk_within_a_spare_is_found_at_its_depth() -> None:
    place = recorded("replacing-within-spare").vdevs[0].children[1]
    replacing, spare = place.children
    assert [leaf.path("/x") for leaf in replacing.leaves()] == ["/disks/d02", "/disks/d02"]
    assert (replacing.kind, spare.name) == ("replacing", "/disks/d07")


def test_errors_are_counted() -> None:
    counts = {leaf.name: leaf for leaf in recorded("scrub-in-progress").vdevs[0].leaves()}
    assert counts["/disks/d02"].checksum_errors == 3
    assert counts["/disks/d05"].read_errors == 1228
    assert recorded("pool-lost").data_errors == "810 data errors, use '-v' for a list"


def test_openzfs_names_disks_without_their_folder_and_lost_ones_by_number() -> None:
    pool = recorded("openzfs-resilver")
    assert [vdev.name for vdev in pool.vdevs] == ["raidz2-0"]
    assert [leaf.path("/disks") for leaf in pool.vdevs[0].leaves()][:3] == [
        "/disks/wwn-0x5000c500a1", "/disks/wwn-0x5000c500a2", "/disks/wwn-0x5000c500b1",
    ]  # fmt: skip
    assert (pool.scan.kind, pool.scan.running, pool.scan.percent, pool.scan.eta_s) == ("resilver", True, 22.32, 3845)


@pytest.mark.parametrize(
    ("text", "kind", "running", "percent", "eta_s"),
    [
        (" none requested", "", False, None, None),
        (" resilver in progress for 0h12m, 37.25% done, 1h20m to go", "resilver", True, 37.25, 4800),
        (" scrub in progress for 0h3m, 12.34% done, 0h25m to go", "scrub", True, 12.34, 1500),
        (" scrub completed after 0h0m with 0 errors on Fri Nov 27 08:14:28 2026", "scrub", False, None, None),
        (" scrub stopped after 0h0m with 0 errors on Fri Nov 27 08:14:28 2026", "scrub", False, None, None),
        (" resilvered 30.6M in 00:00:01 with 0 errors on Sun Jan  1 00:24:01 2023", "resilver", False, None, None),
        (" scrub repaired 0B in 00:00:01 with 0 errors on Sun Jan  1 00:24:01 2023", "scrub", False, None, None),
        (" scrub in progress since Sun\n\t1G / 2G\n\t0B repaired, 5.00% done, 2 days 01:00:01 to go", "scrub", True, 5.0, 176401),
        (" resilver in progress since Sun\n\t0B resilvered, 0.00% done, no estimated completion time", "resilver", True, 0.0, None),
        (" something new in progress", "", True, None, None),
        ("", "", False, None, None),
    ],
)  # fmt: skip
def test_how_far_a_scan_is(text: str, kind: str, running: bool, percent: float | None, eta_s: int | None) -> None:
    scan = parse_scan(text)
    assert (scan.kind, scan.running, scan.percent, scan.eta_s) == (kind, running, percent, eta_s)


@pytest.mark.parametrize(
    "text",
    ["", "no pools available\n", "  pool: other\n state: ONLINE\nconfig:\n\n\tother  ONLINE  0 0 0\n", "  pool: tank\n state: ONLINE\n",
     "  pool: tank\nconfig:\n\n\ttank  ONLINE\n", "internal error: out of memory", "\0\xff" * 9],
)  # fmt: skip
def test_what_is_no_status_of_the_pool_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood, match="read zpool status: no configuration of pool 'tank' in"):
        parse_status(text, "tank")


@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_a_text_that_was_cut_or_mixed_up_is_read_or_refused(name: str, data: st.DataObject) -> None:
    text = TEXTS[name]
    lines = text[: data.draw(st.integers(0, len(text)))].splitlines(keepends=True)
    lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.text(max_size=40)))
    with contextlib.suppress(NotUnderstood):
        parse_status("".join(lines), "tank")


HISTORY = """History for 'tank':
2026-11-27.08:14:04 zpool create -m /tank tank raidz2 /disks/d01 /disks/d02
2026-11-27.08:14:28 zpool scrub tank
2026-11-28.08:14:28 zpool scrub tank
2026-11-28.09:00:00 zpool scrub -s tank
2026-11-29.08:14:08 zpool replace tank /disks/d02 /disks/d07
"""


def test_the_last_scrub_is_found_in_the_pools_history() -> None:
    at = lambda text: time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))  # noqa: E731
    assert parse_history(HISTORY) == History(at("2026-11-27 08:14:04"), at("2026-11-28 08:14:28"))
    assert parse_history("History for 'tank':\n") == History()
