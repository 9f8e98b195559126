"""`mobula audit` on a standing region: clean, then one harm at a time, each named in one finding with host and object, then clean again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from ops.region import Region
from tests.region.conftest import Machines
from tests.region.signed import Client, encode
from tests.stock_clients import Output

pytestmark = pytest.mark.region
DATA = "/tank/objects"
ASIDE = "/var/tmp"
Audit = Callable[..., list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the test's own, and where its two copies are."""

    object_id: str
    file: str
    hosts: tuple[str, ...]
    other: str
    """a storage host without a copy, which has files of that account"""

    @property
    def path(self) -> str:
        return f"{DATA}/{self.file}"

    @property
    def aside(self) -> str:
        return f"{ASIDE}/audit-{self.object_id}"


@pytest.fixture
def stored(folder: str, demo: Client, machines: Machines) -> Stored:
    """An object, found among the files by its MD5."""
    assert demo.put(f"{folder}/everywhere", b"one copy on each host", durability_level="3").status == 204
    body = os.urandom(20_000)
    assert demo.put(f"{folder}/o", body).status == 204
    ending = f".{len(body)}.{hashlib.md5(body).hexdigest()}"  # noqa: S324
    files = machines.files()
    (file,) = {name for names in files.values() for name in names if name.endswith(ending)}
    account, _, name = file.partition("/")
    hosts = tuple(sorted(host for host, names in files.items() if file in names))
    assert len(hosts) == 2
    other = next(h for h, names in files.items() if h not in hosts and any(n.startswith(account) for n in names))
    return Stored(name.partition(".")[0], file, hosts, other)


@pytest.fixture
def audit(mobula: Callable[..., Output]) -> Audit:
    """Run the audit: what it finds about one object (others may be at work), and that its exit code goes with what it says."""

    def run(object_id: str, *argv: str) -> list[dict[str, Any]]:
        said = mobula("audit", "--json", "--limit", "100000", *argv)
        report = json.loads(said.stdout)
        assert not report["unknown"]
        assert report["ok"] is (report["findings_total"] == 0)
        assert said.returncode == (0 if report["ok"] else 1)
        return [finding for finding in report["findings"] if object_id == finding["object"]]

    return run


def test_audit_is_clean_and_counts_what_was_stored(folder: str, demo: Client, mobula: Callable[..., Output]) -> None:
    before = json.loads(mobula("audit", "--json").stdout)
    for copies in (1, 2, 3):
        assert demo.put(f"{folder}/{copies}", b"some bytes", durability_level=str(copies)).status == 204
    assert demo.put(f"{folder}/empty", b"").status == 204
    assert demo.put(f"{folder}/1", b"other bytes", durability_level="2").status == 204
    said = mobula("audit", "--json", "--read")
    report = json.loads(said.stdout)
    assert (report["ok"], said.returncode) == (True, 0), report["findings"] or report["unknown"]
    names = ("objects", "copies", "bytes", "empty", "garbage_rows", "garbage_files")
    assert [report[name] - before[name] for name in names] == [3, 7, 72, 1, 1, 1]


Harm = Callable[[contextlib.ExitStack, Machines, Stored], str]
"""does its harm after it has registered the heal; answers the host that audit must name"""


def put_back(machines: Machines, host: str, stored: Stored) -> None:
    """From where it was put aside, if it was."""
    machines.run(host, ["sh", "-c", '[ ! -e "$1" ] || mv --force "$1" "$2"', "sh", stored.aside, stored.path])


def remove(heals: contextlib.ExitStack, machines: Machines, stored: Stored) -> str:
    host = stored.hosts[0]
    heals.callback(put_back, machines, host, stored)
    machines.run(host, ["mv", stored.path, stored.aside])
    return host


def truncate(heals: contextlib.ExitStack, machines: Machines, stored: Stored) -> str:
    host = stored.hosts[0]
    heals.callback(put_back, machines, host, stored)
    machines.run(host, ["cp", "--preserve=all", stored.path, stored.aside])
    machines.run(host, ["truncate", "--size=-1", stored.path])
    return host


FLIP = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(777); b = f.read(1)[0]; f.seek(777); f.write(bytes([b ^ 1]))"
WRITE = "import base64, sys; open(sys.argv[1], 'xb').write(base64.b64decode(sys.argv[2]))"


def flip_a_bit(heals: contextlib.ExitStack, machines: Machines, stored: Stored) -> str:
    host = stored.hosts[1]
    heals.callback(put_back, machines, host, stored)
    machines.run(host, ["cp", "--preserve=all", stored.path, stored.aside])
    machines.run(host, ["python3", "-c", FLIP, stored.path])
    return host


def move(heals: contextlib.ExitStack, machines: Machines, stored: Stored) -> str:
    encoded = machines.run(stored.hosts[0], ["base64", "--wrap=0", stored.path])
    remove(heals, machines, stored)
    heals.callback(machines.run, stored.other, ["rm", "--force", stored.path])
    machines.run(stored.other, ["python3", "-c", WRITE, stored.path, encoded])
    return stored.other


@pytest.mark.parametrize(
    ("harm", "kind"),
    [(remove, "missing"), (truncate, "size"), (move, "misplaced"), (flip_a_bit, "content")],
)
def test_one_harm_to_a_copy_is_one_finding(
    harm: Harm, kind: str, stored: Stored, machines: Machines, audit: Audit
) -> None:
    argv = ["--read"] if kind == "content" else []
    assert audit(stored.object_id, *argv) == []
    with contextlib.ExitStack() as heals:
        host = harm(heals, machines, stored)
        found = audit(stored.object_id, *argv)
    assert [(f["kind"], f["host"]) for f in found] == [(kind, host)]
    assert audit(stored.object_id, *argv) == []


def test_a_flipped_bit_is_not_seen_by_name_and_size(stored: Stored, machines: Machines, audit: Audit) -> None:
    with contextlib.ExitStack() as heals:
        flip_a_bit(heals, machines, stored)
        assert audit(stored.object_id) == []


def test_a_file_that_nothing_names_is_one_finding_once_it_is_old(
    stored: Stored, machines: Machines, audit: Audit
) -> None:
    host, object_id = stored.hosts[0], str(uuid.uuid4())
    path = stored.path.replace(stored.object_id, object_id)
    with contextlib.ExitStack() as heals:
        heals.callback(machines.run, host, ["rm", "--force", path])
        machines.run(host, ["cp", stored.path, path])
        assert audit(object_id) == []
        machines.run(host, ["touch", "--date=2 days ago", path])
        found = audit(object_id)
    assert [(f["kind"], f["host"], f"{DATA}/{f['path']}") for f in found] == [("orphan", host, path)]
    assert audit(object_id) == []


@contextlib.contextmanager
def busy(region: Region, folder: str) -> Iterator[None]:
    """A client that stores, replaces and removes objects as fast as it can, until the block ends."""
    stop = threading.Event()

    def work() -> int:
        with contextlib.closing(
            Client(region.relay_port, "demo", (region.secrets / "demo.pem").read_bytes())
        ) as client:
            done = 0
            while not stop.is_set():
                path = f"{folder}/busy-{done % 5}"
                assert client.put(path, os.urandom(1000 + done)).status == 204
                if done % 3 == 2:
                    assert client.request("DELETE", encode(path)).status == 204
                done += 1
        return done

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        try:
            yield
        finally:
            stop.set()
        assert worker.result(60) > 3


def test_audit_says_nothing_false_while_a_client_stores_replaces_and_removes(
    folder: str, region: Region, mobula: Callable[..., Output]
) -> None:
    for _ in range(3):
        with busy(region, folder):
            report = json.loads(mobula("audit", "--json").stdout)
        assert [f for f in report["findings"] if folder.rpartition("/")[2] in f["path"]] == []
        assert "orphan" not in report["kinds"]
