"""The pool that the role has made: as laid out, ours, kept over a restart, refused when it is not ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host

from mobula.lab import faults, machines
from tests.molecule import lab
from tests.molecule.plugin import Run

NAME = "mol-a-storage-01"
OWNER = f"mol/{NAME}"
RESILVER_BOUND_S = 60.0
DISKS = [f"/disks/d{number:02}" for number in range(1, 15)]


def layout(machine: Host) -> list[tuple[str, str]]:
    """Every line of the pool's configuration: name, state."""
    status = machine.check_output("zpool status tank").partition("config:")[2].partition("errors:")[0]
    return re.findall(r"^\s+(\S+)(?:\s+([A-Z]+)\b(?!\s+READ).*)?$", status, re.MULTILINE)


def resilvered(machine: Host) -> list[tuple[str, str]]:
    """The pool's configuration once no disk is being filled any more."""
    end = time.monotonic() + RESILVER_BOUND_S
    while "resilver in progress" in machine.check_output("zpool status tank") or "replacing" in str(layout(machine)):
        assert time.monotonic() < end, machine.check_output("zpool status tank")
        time.sleep(0.2)
    return layout(machine)


@pytest.fixture
def stored(machine: Host) -> Iterator[str]:
    """A command that fails unless what was stored in the pool before the test is still the same."""
    # zfs-fuse keeps through a crash what is fsynced by who wrote it (measured: not what another process opens and fsyncs).
    machine.check_output("dd if=/dev/urandom of=/tank/objects/o bs=1M count=3 conv=fsync status=none")
    digest = machine.check_output("sha256sum /tank/objects/o")
    yield f"echo '{digest}' | sha256sum --check --quiet"
    machine.check_output("rm /tank/objects/o")


def test_the_pool_has_three_raidz2_vdevs_of_equal_width_and_two_spares(machine: Host) -> None:
    names = [name for name, _ in layout(machine)]
    assert [n for n in names if n.startswith("raidz")] == ["raidz2-0", "raidz2-1", "raidz2-2"]
    assert [names.index(f"raidz2-{n}") for n in range(3)] == [names.index("tank") + 1 + 5 * n for n in range(3)]
    assert [n for n in names if n.startswith("/")] == DISKS
    assert names[names.index("spares") + 1 :] == DISKS[-2:]
    assert {state for _, state in layout(machine) if state} == {"ONLINE", "AVAIL"}


def test_the_pool_says_whose_it_is(machine: Host) -> None:
    assert machine.check_output("zfs get -H -o value mobula:owner tank") == OWNER
    assert machine.check_output("zpool get failmode tank").split()[-2:] == ["continue", "local"]


def test_the_dataset_for_objects_is_mounted(machine: Host) -> None:
    mount = machine.mount_point("/tank/objects")
    assert (mount.exists, mount.device) == (True, "tank/objects")


def test_zfs_runs_and_is_enabled(machine: Host) -> None:
    unit = machine.service("mobula-zfs")
    assert (unit.is_running, unit.is_enabled) == (True, True), machine.check_output("journalctl -n 20 -u mobula-zfs")


@pytest.mark.parametrize("how", ["restart", "kill --signal=KILL"], ids=["a restart", "a crash"])
def test_the_pool_and_its_data_come_back_after(
    machine: Host, stored: str, converge: Callable[..., Run], how: str
) -> None:
    machine.check_output(f"systemctl {how} mobula-zfs")
    assert [change for change in converge().changes if change != "mobula-zfs started"] == []
    machine.check_output(stored)


def replace_disks(*disks: str) -> None:
    """Somebody takes disks out of their bays and puts new ones in."""
    for disk in disks:
        faults.fail_disk(lab.STATE_DIR, NAME, disk)
    machines.ensure(machines.load(lab.STATE_DIR, NAME))


def test_failed_disks_and_new_ones_in_their_places_are_left_to_the_pool_agent(
    machine: Host, stored: str, converge: Callable[..., Run]
) -> None:
    before = layout(machine)
    faults.fail_disk(lab.STATE_DIR, NAME, "d06")
    assert converge().changes == []
    replace_disks("d06")
    assert converge().changes == []
    machine.check_output("zpool replace tank /disks/d06")
    assert resilvered(machine) == before
    machine.check_output(stored)
    assert converge().changes == []


def test_a_pool_of_another_owner_is_refused(machine: Host, converge: Callable[..., Run]) -> None:
    owner = "mol/mol-b-storage-01"
    machine.check_output(f"zfs set mobula:owner={owner} tank")
    try:
        refusal = converge().refusal
        assert refusal.startswith(f"use pool 'tank' for {OWNER}: its owner is {owner}; if its data is not needed")
        assert machine.check_output("zfs get -H -o value mobula:owner tank") == owner
    finally:
        machine.check_output(f"zfs set mobula:owner={OWNER} tank")


def test_disks_of_a_pool_that_is_not_imported_are_refused(
    machine: Host, stored: str, converge: Callable[..., Run]
) -> None:
    machine.check_output("zpool export tank")
    try:
        assert "create pool 'tank' for mol/mol-a-storage-01: disk /disks/d01 is not blank" in converge().refusal
    finally:
        machine.check_output("zpool import -d /disks tank")
    machine.check_output(stored)
