"""What `mobula repair` says of what the region answers, and when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from ops.errors import BadInput, OperatorError
from ops.progress import Progress
from ops.repair import Follow, check_host, line, named

UUID = "930896af-bf8c-48d4-885c-6573a94b1853"
STATUS: dict[str, Any] = {
    "id": "r", "server": "lab-a-storage-01", "declared_at": "2026-03-01T12:00:00+00:00", "done": True,
    "shards": {"1": "done", "2": "done"}, "objects": 10, "bytes": 1000, "copied": 7, "present": 1, "changed": 2, "lost": 0,
    "done_bytes": 1000, "left": 0, "waits_for": [],
}  # fmt: skip


class Region:
    """Answers of its api hosts, in turn; the last one stays."""

    def __init__(self, *statuses: dict[str, Any], why: str = "", lost: int = 0) -> None:
        self._statuses = list(statuses)
        self._why = why
        self._lost = lost
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.now_s = 0.0

    def call(self, verb: str, payload: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((verb, payload))
        if verb == "repair-declare":
            return {"declared": True, "why": self._why}
        if verb == "repair-status":
            return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        if verb == "account-list":
            return {"accounts": [{"login": "demo", "uuid": UUID}]}
        names = range(self._lost) if payload["shard"] == 1 else range(0)
        page = [n for n in names if n > payload["after"][0]][:2]
        found = [{"path": f"/{UUID}/stor/o{n}", "object_id": str(n), "bytes": n, "copies": 1 + n} for n in page]
        return {"lost": found, "next": [page[-1], "d", "n"] if len(page) == 2 else None}

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def follow(region: Region) -> Follow:
    return Follow(region, Progress(quiet=True), clock=lambda: region.now_s, sleep=region.sleep)


def changed(**fields: Any) -> dict[str, Any]:
    return {**STATUS, **fields}


def test_a_repair_that_brings_back_everything_is_ok() -> None:
    listing = changed(done=False, shards={"1": "listing", "2": "waiting"}, left=10)
    region = Region(listing, changed(done=False, shards={"1": "copying", "2": "copying"}, left=4), STATUS)
    report = follow(region).conclude("lab-a-storage-01", follow(region).declare("lab-a-storage-01", 2.5))
    assert region.asked[0] == ("repair-declare", {"server": "lab-a-storage-01", "bytes_per_s": 2621440})
    assert report.ok
    assert report.text().splitlines()[-1] == (
        "done: 10 = 7 + 1 + 2 + 0 + 0: every reference is accounted for, nothing is lost"
    )
    assert report.as_json()["ok"] is True


def test_what_is_lost_is_named_as_clients_name_it() -> None:
    region = Region(changed(copied=2, lost=5), lost=5)
    report = follow(region).conclude("lab-a-storage-01", "")
    assert not report.ok
    assert [lost.path for lost in report.lost] == [f"/demo/stor/o{n}" for n in range(5)]
    assert report.text().splitlines()[:2] == [
        "! lost  /demo/stor/o0  (0 bytes, its only copy, object 0)",
        "! lost  /demo/stor/o1  (1 bytes, all 2 copies, object 1)",
    ]
    assert [lost["copies"] for lost in report.as_json()["lost_objects"]] == [1, 2, 3, 4, 5]
    assert "WITH LOSS" in report.text()
    assert named("/0000/stor/a/b", {}) == "/0000/stor/a/b"


def test_it_ends_when_it_waits_for_a_host_and_says_for_which() -> None:
    waiting = changed(done=False, shards={"1": "copying"}, copied=0, left=7, waits_for=["lab-a-storage-01"])
    region = Region(waiting)
    report = follow(region).conclude("lab-a-storage-01", "")
    assert 60 < region.now_s < 70
    assert "waits for lab-a-storage-01" in report.note
    assert (report.ok, report.left) == (False, 7)
    assert "NOT DONE" in report.text()


def test_it_ends_when_nobody_works() -> None:
    region = Region(changed(done=False, shards={"1": "listing"}, left=10))
    report = follow(region).conclude("lab-a-storage-01", "")
    assert region.now_s > 180
    assert "nothing moves" in report.note


def test_a_finished_repair_is_shown_again() -> None:
    region = Region(STATUS, why="nothing more is lost: ...")
    report = follow(region).conclude("lab-a-storage-01", follow(region).declare("lab-a-storage-01", 20))
    assert report.ok
    assert report.note.startswith("nothing more is lost")
    assert [verb for verb, _ in region.asked] == ["repair-declare", "repair-status"]


def test_a_line_says_how_far_it_is() -> None:
    assert line(changed(shards={"1": "listing", "2": "copying"}, objects=5)) == "shard 1 still lists; 5 objects so far"
    assert line(changed(left=4, lost=1, done_bytes=600, waits_for=["x"])) == (
        "6 of 10 objects, 600 of 1,000 bytes, 1 lost; waits for x"
    )


def test_only_storage_hosts_have_pools() -> None:
    hosts = {"lab-a-storage-01": "storage", "lab-a-api-01": "api"}
    check_host("lab-a-storage-01", hosts)
    with pytest.raises(BadInput, match=r"no such host; its storage hosts are lab-a-storage-01"):
        check_host("nonsense", hosts)
    with pytest.raises(OperatorError, match="not a storage host"):
        check_host("lab-a-api-01", hosts)
