"""Small objects on a real zfs-fuse that loses its power: what was acknowledged is there, also after its log segment went."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.region import REPO
from tests.probe.machine import until
from tests.probe.zfs import POOL, PrivateZfs, private_zfs

pytestmark = pytest.mark.probe

# Stores objects, says their files, and when their segment is on its way or gone; ends as in a crash.
STORE = """
import asyncio, json, os, sys, threading, uuid
from pathlib import Path
from mobula.storage.commits import Commits
from mobula.storage.files import ObjectFiles

root, until_gone = Path(sys.argv[1]), sys.argv[2] == "gone"
files = ObjectFiles(root, fill_max=1.0)
files.start()
commits = Commits(files, segment_bytes=1)
commits.start()

async def put(count):
    return await asyncio.gather(*(commits.put(str(uuid.UUID(int=7)), str(uuid.uuid4()), os.urandom(900)) for _ in range(count)))

names = asyncio.run(put(20))
while any(map(commits.holds, names)) and (until_gone or not (root / "tmp/mark").exists()):
    threading.Event().wait(0.05)
names += asyncio.run(put(1))  # with its record it lasts that the segment went
print(json.dumps([name.path for name in names]), flush=True)
os._exit(0)
"""
# Starts like the storage server, and says which of these files are not what their names say.
LOOK = """
import hashlib, json, os, sys
from pathlib import Path
from mobula.storage.commits import Commits
from mobula.storage.files import ObjectFiles

root = Path(sys.argv[1])
if sys.argv[2] == "replay":
    files = ObjectFiles(root, fill_max=1.0)
    files.start()
    Commits(files).start()

def is_right(name):
    path = root / name
    return path.exists() and hashlib.md5(path.read_bytes()).hexdigest() == name.rpartition(".")[2]

print(json.dumps([name for name in json.load(sys.stdin) if not is_right(name)]), flush=True)
os._exit(0)
"""


@pytest.fixture
def zfs() -> Iterator[PrivateZfs]:
    with private_zfs(8) as found:
        found.create(2)
        found.run("zfs", "create", f"{POOL}/objects")
        yield found


def begin(zfs: PrivateZfs, script: str, *args: str) -> subprocess.Popen[str]:
    argv = zfs.inside(sys.executable, "-c", script, str(_root(zfs)), *args)
    environment = {**zfs.environment, "PYTHONPATH": str(REPO / "src")}
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _root(zfs: PrivateZfs) -> Path:
    return zfs.folder / POOL / "objects"


def wrong_after_a_loss_of_power(zfs: PrivateZfs, names: str, how: str) -> list[str]:
    zfs.restart()
    said, _ = begin(zfs, LOOK, how).communicate(names, timeout=60)
    found: list[str] = json.loads(said)
    return found


def test_a_segment_stays_while_a_loss_of_power_would_take_its_files(zfs: PrivateZfs) -> None:
    names, _ = begin(zfs, STORE, "on its way").communicate(timeout=60)
    assert wrong_after_a_loss_of_power(zfs, names, "replay") == []


def test_the_files_of_a_segment_that_went_stay(zfs: PrivateZfs) -> None:
    storing = begin(zfs, STORE, "gone")

    def gone() -> bool:
        """ZFS writes a group for every property that is set: nobody waits for the clock."""
        zfs.run("zfs", "set", "mobula:mark=set", POOL)
        return storing.poll() is not None

    until("the segment to go", gone)
    names, _ = storing.communicate()
    assert wrong_after_a_loss_of_power(zfs, names, "as it is") == []
