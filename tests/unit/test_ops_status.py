"""What is wrong and what to do, judged from recorded facts of hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.catalog import services_of
from ops.drills.engine import MARK
from ops.facts.on_host import DRILLABLE, mark_of
from ops.region import REPO, Host, Region
from ops.remote import RemoteError, Result
from ops.status import ON_HOST, Finding, Status, look, table

VERSION = "0.1.0-abc"
Facts = dict[str, Any]


def host(az: str, pool: str, shard: int = 0) -> Host:
    return Host(f"lab-{az}-{pool}-01", az, pool, 1, f"10.77.{'abc'.index(az) + 1}.41", shard, 14)


REGION = Region(
    "lab", "mobula.test", "10.77.0.0/16", 18443, Path("state"), Path("stack"),
    {h.name: h for h in (host("a", "storage"), *(host(az, "metadata", 1) for az in "abc"))}, "small",
)  # fmt: skip


def service(status: Any = None, **values: Any) -> Facts:
    return {
        "active": "active", "sub": "running", "since": "Sat 2025-11-01 00:00:00 UTC", "restarts": 0, "status": status, "digest": "d1",
        "log": "", **values,
    }  # fmt: skip


def patroni(**status: Any) -> Facts:
    return service({"state": "running", "patroni": {"version": "4.0"}, **status}, digest="p1")


def healthy() -> dict[str, Facts]:
    """Facts of a region in which all is well, by host."""
    ours = {"service": "storage", "version": VERSION, "config_digest": "d1", "since": "s", "healthy": True, "why": ""}
    leased = {"healthy": True, "lease": {"kind": "beat", "left_s": 0.9}}
    common = {
        "release": VERSION,
        "disk_free_bytes": 1 << 30,
        "disk_size_bytes": 2 << 30,
        "certificate_days_left": {"host.pem": 3649},
    }
    pool = {
        "healthy": True, "why": "", "config_digest": "d1", "state": "ONLINE", "used_percent": 1, "findings": [],
        "scan": {"kind": "", "running": False, "percent": None}, "spares": {"available": 2, "in_use": 0},
    }  # fmt: skip
    return {
        "lab-a-storage-01": {
            **common,
            "services": {"zfs": service(), "pool-agent": service(pool), "storage": service(ours)},
        },
        "lab-a-metadata-01": {**common, "services": {"patroni": patroni(role="primary"), "guard": service(leased)}},
        "lab-b-metadata-01": {
            **common,
            "cluster": {"members": [{"name": "lab-a-metadata-01"}, {"name": "lab-b-metadata-01", "lag": 0}]},
            "services": {"patroni": patroni(role="replica", sync_standby=True)},
        },
        "lab-c-metadata-01": {**common, "services": {"patroni": patroni(role="replica")}},
    }


HEALTHY_STORAGE = healthy()["lab-a-storage-01"]


class Recorded:
    """A host that answers what was recorded of it."""

    def __init__(self, facts: Facts | str | Exception) -> None:
        self.facts = facts
        self.asked: list[tuple[Sequence[str], str | None]] = []

    def run(self, argv: Sequence[str], *, stdin: str | None = None, **_: object) -> Result:
        self.asked.append((argv, stdin))
        if isinstance(self.facts, Exception):
            raise self.facts
        return Result(self.facts if isinstance(self.facts, str) else json.dumps(self.facts), "", 0)


def judge(facts: dict[str, Any], version: str = VERSION) -> Status:
    return look(REGION, {name: Recorded(found) for name, found in facts.items()}, version)


def test_a_region_in_which_all_is_well_has_nothing_to_say() -> None:
    seen = judge(healthy())
    assert (seen.ok, seen.findings) == (True, [])
    assert {h.name: h.role for h in seen.hosts} == {
        "lab-a-metadata-01": "leader",
        "lab-a-storage-01": "ONLINE",
        "lab-b-metadata-01": "sync_standby",
        "lab-c-metadata-01": "replica",
    }


STORAGE = "lab-a-storage-01"
GONE = "./mobula plan says whether it is gone; ./mobula up mends it"
NEW_DISK = f"put a new disk in; ./mobula ssh {STORAGE} -- zpool status tank"
WAIT = "wait half a minute for Patroni; then ./mobula logs <host> patroni"


def of_pool(**values: Any) -> Callable[[dict[str, Facts]], object]:
    """A change of what the pool agent says."""
    return lambda facts: facts[STORAGE]["services"]["pool-agent"]["status"].update(values)


SPARED = [{"what": "disk d03 has 0 bytes; spare d13 stands for it", "do": "put a new disk in"}]


def of_storage(**values: Any) -> Callable[[dict[str, Facts]], object]:
    """A change of the storage service's facts."""
    return lambda facts: facts[STORAGE]["services"]["storage"].update(values)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            lambda facts: facts.update({STORAGE: RemoteError("reach 10.77.1.41 by SSH: timed out")}),
            Finding(STORAGE, "does not answer by SSH: reach 10.77.1.41 by SSH: timed out", GONE),
        ),
        (
            lambda facts: facts[STORAGE].update(release="0.0.9"),
            Finding(STORAGE, f"has release 0.0.9, wanted is {VERSION}", "./mobula up installs it"),
        ),
        (
            lambda facts: facts[STORAGE].update(release=None),
            Finding(STORAGE, f"has no release, wanted is {VERSION}", "./mobula up installs it"),
        ),
        (
            of_pool(healthy=False, why="disk d03 and so on", state="DEGRADED", findings=SPARED),
            Finding(STORAGE, "ZFS pool DEGRADED: disk d03 has 0 bytes; spare d13 stands for it", NEW_DISK),
        ),
        (
            of_pool(healthy=False, state="", findings=[{"what": "there is no pool tank", "do": "put a new disk in"}]),
            Finding(STORAGE, "ZFS pool not seen: there is no pool tank", NEW_DISK),
        ),
        (
            of_pool(healthy=False, why="the pool was last seen 300 s ago"),
            Finding(STORAGE, "pool-agent: the pool was last seen 300 s ago", f"./mobula logs {STORAGE} pool-agent"),
        ),
        (
            lambda facts: facts[STORAGE]["services"]["pool-agent"].update(status={"error": "timed out"}),
            Finding(STORAGE, "pool-agent: timed out", f"./mobula logs {STORAGE} pool-agent"),
        ),
        (
            lambda facts: facts[STORAGE].update(certificate_days_left={"host.pem": 12}),
            Finding(STORAGE, "its certificate host.pem ends in 12 days", "remove it from the region's secrets; ./mobula up makes another"),
        ),
        (
            lambda facts: facts[STORAGE].update(disk_free_bytes=90 << 20),
            Finding(STORAGE, "its disk has 90 of 2048 MiB left", f"./mobula ssh {STORAGE} -- du -xh --max-depth=3 /var"),
        ),
        (
            lambda facts: facts["lab-c-metadata-01"].update(cluster={"members": [{"name": "lab-c-metadata-01", "lag": 80 << 20}]}),
            Finding("lab-c-metadata-01", "is 80 MiB behind its leader", "./mobula logs lab-c-metadata-01 patroni"),
        ),
        (
            of_storage(active="failed", sub="failed", status=None, log="config refused: no such key"),
            Finding(STORAGE, "storage: failed (failed); it last said: config refused: no such key", f"./mobula logs {STORAGE} storage"),
        ),
        (
            of_storage(status={"healthy": False, "why": "the disk is full", "config_digest": "d1"}),
            Finding(STORAGE, "storage: the disk is full", f"./mobula logs {STORAGE} storage"),
        ),
        (
            of_storage(status={"error": "Connection refused"}),
            Finding(STORAGE, "storage: Connection refused", f"./mobula logs {STORAGE} storage"),
        ),
        (
            of_storage(status={"healthy": True, "config_digest": "d0"}),
            Finding(STORAGE, "storage runs with another config than lies on disk", "./mobula up ships the right one and restarts it"),
        ),
        (
            of_storage(status=["healthy"]),
            Finding(STORAGE, "storage: its status is no JSON object", f"./mobula logs {STORAGE} storage"),
        ),
        (
            lambda facts: facts["lab-b-metadata-01"]["services"]["patroni"]["status"].pop("sync_standby"),
            Finding("shard 1", "has 0 peers in the role sync_standby, wanted is 1", WAIT),
        ),
        (
            lambda facts: facts["lab-c-metadata-01"]["services"]["patroni"]["status"].update(role="primary"),
            Finding("shard 1", "has 2 peers in the role leader, wanted is 1", WAIT),
        ),
    ],
    ids=lambda value: value.what if isinstance(value, Finding) else "",
)  # fmt: skip
def test_each_thing_that_is_wrong_is_found_with_what_to_do(
    change: Callable[[dict[str, Facts]], object], finding: Finding
) -> None:
    facts: dict[str, Facts] = healthy()
    change(facts)
    seen = judge(facts)
    assert (seen.ok, seen.findings) == (False, [finding])


@pytest.mark.parametrize("digest", [None, "d1"])
def test_a_service_that_names_no_config_or_the_right_one_is_not_restarted(digest: str | None) -> None:
    facts = healthy()
    facts[STORAGE]["services"]["storage"]["status"]["config_digest"] = digest
    assert judge(facts).ok


@pytest.mark.parametrize(
    "said", ["", "no JSON", "[]", "null", "{}", '{"services": []}', '{"services": {"storage": null}}']
)
def test_a_host_that_answers_something_else_is_one_finding(said: str) -> None:
    seen = judge({**healthy(), STORAGE: said})
    assert [(f.host, f.what.startswith("does not answer by SSH: ")) for f in seen.findings] == [(STORAGE, True)]
    assert not next(h for h in seen.hosts if h.name == STORAGE).reachable


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
VALUES = st.recursive(
    JSON, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["role", "error", "healthy"]), v)
)


@given(VALUES)
def test_no_status_of_a_service_is_too_odd_to_be_judged(said: Any) -> None:
    facts = healthy()
    facts["lab-c-metadata-01"]["services"]["patroni"]["status"] = said
    facts[STORAGE]["services"]["storage"]["status"] = said
    text = table(judge(facts))
    assert "lab-c-metadata-01" in text


def test_a_host_is_asked_for_its_own_services_at_its_own_address() -> None:
    remotes = {name: Recorded(found) for name, found in healthy().items()}
    look(REGION, remotes, VERSION)
    ((argv, stdin),) = remotes[STORAGE].asked
    wanted = json.loads(argv[-1])
    assert (argv[:3], stdin) == (["nice", "python3", "-"], ON_HOST)
    assert [s["name"] for s in wanted["services"]] == [s.name for s in services_of("storage")]
    assert {s["url"] for s in wanted["services"] if s["name"] == "storage"} == {"http://10.77.1.41:8060/status"}


def test_a_host_says_whose_drills_may_harm_it(tmp_path: Path) -> None:
    facts = healthy()
    facts[STORAGE]["drillable"] = "lab"
    facts["lab-a-metadata-01"]["drillable"] = None
    seen = {h.name: h.drillable for h in judge(facts).hosts}
    assert {name: mark for name, mark in seen.items() if mark} == {STORAGE: "lab"}
    assert str(DRILLABLE) == MARK
    file = tmp_path / "drillable"
    assert mark_of(file) is None
    assert mark_of(tmp_path) is None
    for said, mark in [(b"lab\n", "lab"), (b"", ""), (b"\xff" * 1000, "\ufffd" * 64)]:
        file.write_bytes(said)
        assert mark_of(file) == mark


def test_as_json_it_has_ok_and_hosts_with_their_names_at_the_top() -> None:
    found = json.loads(json.dumps(judge(healthy()).as_json()))
    assert found["ok"] is True
    assert [h["name"] for h in found["hosts"]] == sorted(REGION.hosts)
    assert {"active", "healthy", "why", "version", "since"} < set(found["hosts"][1]["services"][0])


def test_for_people_it_is_a_line_for_each_host_and_then_what_to_do() -> None:
    facts: dict[str, Any] = healthy()
    facts["lab-c-metadata-01"] = RemoteError("gone")
    of_storage(active="failed", sub="failed")(facts)
    lines = table(judge(facts)).splitlines()
    assert lines[0] == f"region lab  profile small  version {VERSION}  NOT OK"
    assert lines[2:6] == [
        "lab-a-metadata-01  10.77.1.41   leader        leased by beat    patroni guard",
        "lab-a-storage-01   10.77.1.41   ONLINE        1% full           zfs pool-agent STORAGE!",
        "lab-b-metadata-01  10.77.2.41   sync_standby  lag 0 B           patroni",
        "lab-c-metadata-01  10.77.3.41   -                               UNREACHABLE",
    ]
    assert lines[-2:] == [
        "! lab-c-metadata-01: does not answer by SSH: gone",
        "  -> " + GONE,
    ]


@pytest.mark.parametrize(
    ("said", "role", "note"),
    [
        ({"scan": {"kind": "resilver", "running": True, "percent": 12.5}, "spares": {"available": 1, "in_use": 1}, "state": "DEGRADED"},
         "DEGRADED", "1% full, resilver 12.5% done, 1 spares in use"),
        ({"scan": {"kind": "scrub", "running": True, "percent": None}}, "ONLINE", "1% full, scrub running"),
        ({"scan": None, "used_percent": None, "state": ""}, "no pool", ""),
        ({"spares": "two"}, "unknown", ""),
    ],
)  # fmt: skip
def test_a_storage_hosts_line_is_what_its_pool_agent_says(said: Facts, role: str, note: str) -> None:
    facts = healthy()
    of_pool(**said)(facts)
    line = next(h for h in judge(facts).hosts if h.name == STORAGE)
    assert (line.role, line.note) == (role, note)


def test_a_region_without_hosts_has_a_table_too() -> None:
    assert table(Status("lab", "", VERSION, ok=True)) == f"region lab  profile   version {VERSION}  ok\n"


FIRST_LOOK = """
import sys
from dataclasses import replace
from tests.unit.test_ops_status import HEALTHY_STORAGE, REGION, STORAGE, VERSION, Recorded, look
sys.setswitchinterval(1e-6)
hosts = {name: replace(REGION.hosts[STORAGE], name=name) for name in map(str, range(24))}
look(replace(REGION, hosts=hosts), {name: Recorded(HEALTHY_STORAGE) for name in hosts}, VERSION)
"""


@pytest.mark.parametrize("attempt", range(6))
def test_the_first_look_of_a_process_does_not_crash_it(attempt: int) -> None:
    # msgspec builds what it knows of a type at its first use, and crashes (4 times in 10) if several threads come first.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "src")])}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_LOOK], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
