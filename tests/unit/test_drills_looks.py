"""What is looked at on the machines when a drill is over: the audit of its own objects, and what healed faults have left."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from ops.audit import Counts, Finding, Report
from ops.drills import looks
from ops.drills.faults import Full, Power, RotDisk, RotFiles
from ops.drills.findings import Verdict
from ops.drills.looks import look
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from tests.drills import region_in

HOST = "lab-a-storage-01"
FAULTS = (Power(("lab-a-api-01",)), RotFiles(HOST, ()), RotDisk(HOST, "d01", ()), Full((HOST,)))
QUIET = Progress(quiet=True)


def audited(*findings: Finding, unknown: dict[str, str] | None = None) -> Report:
    return Report(Counts(), findings, {}, unknown or {}, 0, 0, 0.0, read=False)


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Region:
    """All is as it was."""
    monkeypatch.setattr(looks, "audit", lambda *_, **__: audited())
    for fault in (RotDisk, Full):
        monkeypatch.setattr(fault, "left", lambda *_: [])
    return region_in(tmp_path)


def test_nothing_is_found_where_all_is_as_it_was(region: Region) -> None:
    assert look(region, "x", FAULTS, QUIET) == []


def test_only_the_drills_own_objects_count_and_who_did_not_answer_is_unknown(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Finding("missing", "id", "/demo/stor/drills/x/d0/known000", HOST, "its copy is not there", "")
    theirs = Finding("missing", "id", "/demo/stor/drills/xy/d0/known000", HOST, "its copy is not there", "")
    monkeypatch.setattr(looks, "audit", lambda *_, **__: audited(ours, theirs, unknown={"shard 1": "no lease"}))
    found = look(region, "x", (), QUIET)
    assert [(f.check, f.verdict) for f in found] == [("O4", Verdict.FAIL), ("O4", Verdict.UNKNOWN)]
    assert [f.what for f in found] == [
        f"missing {HOST} id /demo/stor/drills/x/d0/known000: its copy is not there",
        "shard 1 could not be asked: no lease",
    ]


@pytest.mark.parametrize("kind", [RotDisk, Full])
def test_what_a_healed_fault_has_left_is_a_promise_broken(
    region: Region, monkeypatch: pytest.MonkeyPatch, kind: type[RotDisk | Full]
) -> None:
    monkeypatch.setattr(kind, "left", lambda *_: ["it is not as it was"])
    (found,) = look(region, "x", FAULTS, QUIET)
    assert (found.check, found.verdict, found.what) == ("O4", Verdict.FAIL, "it is not as it was")


def test_what_cannot_be_seen_is_unknown_and_the_audit_counts(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> NoReturn:
        raise OperatorError("reach it by SSH: no")

    monkeypatch.setattr(Full, "left", silent)
    monkeypatch.setattr(RotDisk, "left", lambda *_: ["a sector is wrong"])
    found = look(region, "x", FAULTS, QUIET)
    assert [(f.verdict, f.what) for f in found] == [
        (Verdict.FAIL, "a sector is wrong"),
        (Verdict.UNKNOWN, f"what is left of 'full: {HOST}' can't be seen: reach it by SSH: no"),
    ]
