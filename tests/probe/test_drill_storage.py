"""The drills' faults of storage hosts, on a real zfs-fuse: a disk that goes wrong where the drill's objects are, a pool without room."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ops.drills import fault, storage_faults
from ops.drills.client import known_body
from ops.drills.storage_faults import Full, RotDisk, RotFiles
from ops.region import REPO, Host, Region
from ops.remote import RemoteError, Result
from tests.drills import region_in
from tests.probe.machine import until
from tests.probe.zfs import HOST, POOL, PrivateZfs, private_zfs

pytestmark = pytest.mark.probe
OBJECTS = tuple(f"/demo/stor/drills/20261127-080000-rot-disk/d0/known-cold{number:03}" for number in range(60))
ACCOUNT = str(uuid.UUID(int=7))
OTHERS_BYTES = 4 << 20
STORE = """
import hashlib, json, os, sys, uuid
root, account = sys.argv[1:3]
for folder in ("tmp", "log", account):
    os.makedirs(f"{root}/{folder}")
for number, body in enumerate(json.loads(sys.stdin.read())):
    body = body.encode()
    path = f"{root}/{account}/{uuid.UUID(int=number)}.{len(body)}.{hashlib.md5(body).hexdigest()}"
    with open(path, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
"""
ASK = """
import sys, time
from pathlib import Path
from mobula.storage.files import NoSpace, ObjectFiles, ObjectName
files = ObjectFiles(Path(sys.argv[1]), fill_max=0.92)
try:
    files.admit(ObjectName(sys.argv[2], sys.argv[2], 500, "0" * 32))
    print("takes")
except NoSpace:
    print("full")
"""


class Inside:
    """A host of which there is nothing but its ZFS."""

    def __init__(self, zfs: PrivateZfs) -> None:
        self._zfs = zfs

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float, check: bool = True) -> Result:
        done = subprocess.run(
            self._zfs.inside(*argv), input=stdin or "", env={**self._zfs.environment, "PYTHONPATH": str(REPO / "src")},
            capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode:
            raise RemoteError(f"{argv[0]}: {done.stderr}")
        return Result(done.stdout, done.stderr, done.returncode)


@pytest.fixture
def zfs(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateZfs]:
    """Six disks in a raidz2 vdev, two spares, and a data directory with the drill's objects."""
    with private_zfs(8) as found:
        found.create(2)
        found.run("zfs", "create", f"{POOL}/objects")
        monkeypatch.setattr(fault, "SshRemote", lambda *_: Inside(found))
        monkeypatch.setattr(storage_faults, "DATA_DIR", str(found.folder / "tank/objects"))
        monkeypatch.setattr(storage_faults, "DISKS", str(found.disks))
        found.run("mkdir", "/run/mobula")
        bodies = [known_body(path).decode() for path in OBJECTS]
        program = [sys.executable, "-c", STORE, storage_faults.DATA_DIR, ACCOUNT]
        Inside(found).run(program, stdin=json.dumps(bodies), timeout_s=60)
        yield found


@pytest.fixture
def region(zfs: PrivateZfs) -> Region:
    host = Host(HOST, "a", "storage", 1, "10.99.1.41", 0, 8)
    return replace(region_in(zfs.folder), hosts={HOST: host})


def sums(zfs: PrivateZfs) -> str:
    """Of everything in the pool."""
    return zfs.run("sh", "-c", f"cd {zfs.folder}/tank && find . -type f | sort | xargs md5sum")


def test_zfs_mends_a_disk_that_is_wrong_where_the_drills_objects_are(zfs: PrivateZfs, region: Region) -> None:
    zfs.write("others", OTHERS_BYTES)
    before = sums(zfs)
    fault = RotDisk(HOST, ("d02",), OBJECTS)
    fault.inject(region)
    ((said, so),) = fault.bit(region)
    assert so, said
    fault.heal(region)
    assert fault.left(region) == []
    assert sums(zfs) == before
    pool = zfs.pool()
    assert (pool.state, pool.data_errors) == ("ONLINE", "")
    assert not any(leaf.checksum_errors for vdev in pool.vdevs for leaf in vdev.leaves())


def test_what_zfs_found_is_counted_on_that_disk_and_on_no_other(zfs: PrivateZfs, region: Region) -> None:
    fault = RotDisk(HOST, ("d02",), OBJECTS)
    fault.inject(region)
    storage_faults._wait_for_scan(region, fault.host)
    errors = {Path(leaf.name).name: leaf.checksum_errors for vdev in zfs.pool().vdevs for leaf in vdev.leaves()}
    assert errors.pop("d02") > 0
    assert not any(errors.values())


def test_a_disk_that_nobody_has_spoiled_is_healed_at_once(zfs: PrivateZfs, region: Region) -> None:
    RotDisk(HOST, ("d02",), OBJECTS).heal(region)
    assert "scrub completed" not in zfs.run("zpool", "status", POOL)


def test_a_full_pool_takes_nothing_gives_what_it_has_and_has_room_again(zfs: PrivateZfs, region: Region) -> None:
    def takes() -> str:
        program = [sys.executable, "-c", ASK, storage_faults.DATA_DIR, ACCOUNT]
        return Inside(zfs).run(program, timeout_s=60).stdout.strip()

    before = sums(zfs)
    fault = Full((HOST,))
    assert takes() == "takes"
    assert not fault.bit(region)[0][1]
    fault.inject(region)
    ((said, so),) = fault.bit(region)
    assert so, said
    assert takes() == "full"
    assert [line for line in sums(zfs).splitlines() if "drill-full" not in line] == before.splitlines()
    for _ in range(2):
        fault.heal(region)
        assert takes() == "takes"
        assert sums(zfs) == before
        assert zfs.run("zfs", "list", "-H", "-o", "name").split() == [POOL, f"{POOL}/objects"]
    assert fault.left(region) == [f"{HOST} has room again and has taken no copy since"]

    def stored() -> bool:
        body = b"a new one"
        name = f"{uuid.uuid4()}.{len(body)}.{hashlib.md5(body, usedforsecurity=False).hexdigest()}"
        zfs.run("sh", "-c", f"printf %s {body.decode()!r} >{storage_faults.DATA_DIR}/{ACCOUNT}/{name}")
        return fault.left(region) == []

    # Of files that are as old as the emptying by zfs-fuse's clock, which counts seconds, nobody can say.
    until("one of the new ones to be seen", stored)


def test_a_pool_that_was_filled_by_half_is_emptied(zfs: PrivateZfs, region: Region) -> None:
    zfs.run("zfs", "create", "-o", "mountpoint=none", f"{POOL}/drill-full")
    zfs.run("sh", "-c", f"echo >{storage_faults.DATA_DIR}/tmp/drill-full")
    Full((HOST,)).heal(region)
    assert "drill-full" not in zfs.run("zfs", "list", "-H") + sums(zfs)


def test_files_are_spoiled_above_zfs_and_nothing_below_it_notices(zfs: PrivateZfs, region: Region) -> None:
    zfs.write("others", OTHERS_BYTES)
    before = sums(zfs).splitlines()
    fault = RotFiles(HOST, OBJECTS[:4], OBJECTS[4:10])
    fault.inject(region)
    assert fault.bit(region) == [("0 copies had wrong bytes and were put aside, 10 have them still", True)]
    assert len(set(before) - set(sums(zfs).splitlines())) == 10
    assert zfs.pool().data_errors == ""
