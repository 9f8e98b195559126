"""The planner of the role zfs_pool: what it would run, and what it refuses to touch."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.pool import disks, zpool_status
from ops.region import REPO

# As Ansible puts them there (ansible.cfg).
sys.modules["ansible.module_utils.disks"] = disks
sys.modules["ansible.module_utils.zpool_status"] = zpool_status
SOURCE = REPO / "roles/zfs_pool/library/zfs_pool.py"
_spec = importlib.util.spec_from_file_location("zfs_pool", SOURCE)
assert _spec is not None
assert _spec.loader is not None
zfs = importlib.util.module_from_spec(_spec)
sys.modules["zfs_pool"] = zfs
_spec.loader.exec_module(zfs)

OWNER = "t/t-a-storage-01"
WANTED = zfs.Wanted("tank", "objects", vdevs=3, spares=2, owner=OWNER)
DISKS = {f"/disks/d{n:02}": True for n in range(1, 15)}
STANDING = zfs.Observed(
    disks=dict.fromkeys(DISKS, False), owner=OWNER, members=frozenset(DISKS), datasets=frozenset({"tank/objects"})
)


def test_blank_disks_become_three_raidz2_vdevs_and_two_spares() -> None:
    create, label, *_, dataset = zfs.plan(WANTED, zfs.Observed(disks=DISKS))
    names = sorted(DISKS)
    assert create == [
        "zpool", "create", "tank", "raidz2", *names[:4], "raidz2", *names[4:8], "raidz2", *names[8:12], "spare", *names[12:],
    ]  # fmt: skip
    assert label == ["zfs", "set", f"mobula:owner={OWNER}", "tank"]
    assert dataset == ["zfs", "create", "tank/objects"]


def test_a_standing_pool_of_ours_needs_nothing() -> None:
    assert zfs.plan(WANTED, STANDING) == []


def test_what_an_interrupted_run_left_is_completed() -> None:
    """Whichever command was the last, the next run does the rest and then nothing."""
    unlabelled = zfs.Observed(disks=STANDING.disks, owner="", members=STANDING.members)
    assert zfs.plan(WANTED, unlabelled)[0] == ["zfs", "set", f"mobula:owner={OWNER}", "tank"]
    labelled = zfs.Observed(disks=STANDING.disks, owner=OWNER, members=STANDING.members)
    assert zfs.plan(WANTED, labelled) == [["zfs", "create", "tank/objects"]]


def test_a_disk_that_is_not_blank_is_refused_by_name() -> None:
    with pytest.raises(zfs.Refused, match="disk /disks/d03 is not blank"):
        zfs.plan(WANTED, zfs.Observed(disks={**DISKS, "/disks/d03": False}))


def test_a_new_disk_in_the_place_of_a_failed_one_is_left_to_the_pool_agent() -> None:
    assert zfs.plan(WANTED, replace(STANDING, disks={**STANDING.disks, "/disks/d03": True, "/disks/d14": True})) == []


def test_a_disk_that_the_pool_does_not_know_is_left_alone() -> None:
    assert zfs.plan(WANTED, replace(STANDING, disks={**STANDING.disks, "/disks/d15": True})) == []


@pytest.mark.parametrize("owner", ["", "other/t-a-storage-01", "t/t-b-storage-01"])
def test_a_pool_of_somebody_else_is_refused(owner: str) -> None:
    found = zfs.Observed(disks=STANDING.disks, owner=owner, members=STANDING.members, datasets=STANDING.datasets)
    with pytest.raises(zfs.Refused, match="use pool 'tank'"):
        zfs.plan(WANTED, found)


def test_a_nameless_pool_on_other_disks_is_refused() -> None:
    found = zfs.Observed(disks=STANDING.disks, owner="", members=frozenset({"/dev/sda"}))
    with pytest.raises(zfs.Refused, match="its owner is not named"):
        zfs.plan(WANTED, found)


@given(st.integers(0, 60))
def test_every_disk_is_used_once_or_the_count_is_refused(count: int) -> None:
    disks = [f"/disks/d{n:02}" for n in range(count)]
    try:
        vdevs, spares = zfs.layout(disks, 3, 2)
    except zfs.Refused:
        assert count < 14 or (count - 2) % 3
    else:
        assert [d for vdev in vdevs for d in vdev] + spares == disks
        assert len({len(vdev) for vdev in vdevs}) == 1


@given(
    st.dictionaries(st.sampled_from(sorted(DISKS)), st.booleans()),
    st.sampled_from([None, "", OWNER, "other/host"]),
    st.booleans(),
)
def test_nothing_is_ever_created_over_what_is_not_blank(disks: dict[str, bool], owner: str | None, full: bool) -> None:
    found = zfs.Observed(disks=disks, owner=owner, datasets=frozenset({"tank/objects"} if full else ()))
    try:
        commands = zfs.plan(WANTED, found)
    except zfs.Refused:
        return
    if any(argv[:2] == ["zpool", "create"] for argv in commands):
        assert owner is None
        assert all(disks.values())
    assert not any("destroy" in argv or "-f" in argv or "labelclear" in argv for argv in commands)


def test_members_are_read_from_the_status_of_a_pool() -> None:
    status = """  pool: tank
 state: DEGRADED
config:
        NAME             STATE     READ WRITE CKSUM
        tank             DEGRADED     0     0     0
          raidz2-0       DEGRADED     0     0     0
            spare-0      DEGRADED     0     0     0
              /disks/d01 UNAVAIL      0     0     0  cannot open
              /disks/d13 ONLINE       0     0     0
            /disks/d02   ONLINE       0     0     0
        spares
          /disks/d13     INUSE     currently in use
          /disks/d14     AVAIL
"""
    assert zfs.members_of(status, "tank") == {"/disks/d01", "/disks/d02", "/disks/d13", "/disks/d14"}
    assert zfs.members_of("no pools available", "tank") == frozenset()
