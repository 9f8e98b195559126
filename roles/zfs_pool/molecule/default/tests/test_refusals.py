"""What the role refuses before there is a pool; on disks of its own, so that the scenario's pool is not in question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from testinfra.host import Host

from tests.molecule.plugin import Run

BAY = "/var/tmp/bay"
COUNT = 14


@pytest.fixture(scope="module")
def create(machine: Host, converge: Callable[..., Run]) -> Iterator[Callable[..., Run]]:
    """Run the role for a second pool on other disks; afterwards the machine is again as molecule's `converge` left it."""
    yield partial(converge, zfs_pool_name="second", zfs_pool_disk_folder=BAY)
    machine.check_output(f"rm -rf {BAY}")
    assert converge().changes == ["/etc/mobula/zfs-after-start", "mobula-zfs restarted"]


@pytest.fixture(autouse=True)
def bay(machine: Host) -> None:
    machine.check_output(f"rm -rf {BAY} && mkdir {BAY} && cd {BAY} && seq -f d%02g {COUNT} | xargs truncate --size=64M")


@pytest.fixture(autouse=True)
def nothing_is_touched(machine: Host, bay: None) -> Iterator[None]:
    yield
    assert machine.check_output("zpool list -H -o name") == "tank"


def test_a_disk_that_is_not_blank(machine: Host, create: Callable[..., Run]) -> None:
    machine.check_output(f"printf data | dd of={BAY}/d05 bs=1 seek=67108000 conv=notrunc status=none")
    before = machine.check_output(f"sha256sum {BAY}/*")
    assert f"create pool 'second' for mol/mol-a-storage-01: disk {BAY}/d05 is not blank" in create().refusal
    assert machine.check_output(f"sha256sum {BAY}/*") == before


def test_a_number_of_disks_that_makes_no_equal_vdevs(machine: Host, create: Callable[..., Run]) -> None:
    machine.check_output(f"rm {BAY}/d14")
    assert create().refusal == "make 3 raidz2 vdevs and 2 spares of 13 disks: 3 x n + 2 with n >= 4 are needed"


def test_no_disks_at_all(machine: Host, create: Callable[..., Run]) -> None:
    machine.check_output(f"rm {BAY}/*")
    assert f"{BAY} has no disks; look at the layout" in create().refusal


def test_a_disk_without_a_byte(machine: Host, create: Callable[..., Run]) -> None:
    machine.check_output(f"truncate --size=0 {BAY}/d07")
    assert f"disk {BAY}/d07 is not blank" in create().refusal
