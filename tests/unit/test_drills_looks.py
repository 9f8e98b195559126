"""What is found on the machines when a drill is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from ops.audit import Counts, Finding, Report
from ops.drills import looks
from ops.drills.faults import Power
from ops.drills.findings import Verdict
from ops.drills.looks import look
from ops.drills.storage_faults import Full, RotDisk, RotFiles
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Host, Region
from ops.remote import RemoteError, Result
from tests.drills import region_in

STORAGE = "lab-a-storage-01"
FAULTS = (Power(("lab-a-api-01",)), RotFiles(STORAGE, ()), RotDisk(STORAGE, ("d01",), ()), Full((STORAGE,)))
QUIET = Progress(quiet=True)
HOST = cast(Host, type("H", (), {"name": "lab-a-api-01", "address": "10.77.1.21"}))


def crashes(monkeypatch: pytest.MonkeyPatch, said: Result | RemoteError) -> list[tuple[str, Verdict]]:
    asked: list[list[str]] = []

    class Remote:
        def __init__(self, _region: object, _address: str) -> None: ...

        def run(self, argv: list[str], **_: object) -> Result:
            asked.append(argv)
            if isinstance(said, RemoteError):
                raise said
            return said

    monkeypatch.setattr(looks, "SshRemote", Remote)
    found = looks.crashes(cast(Any, None), HOST, 1234.4)
    assert "--since=@1234" in asked[0]
    assert {f.check for f in found} <= {"O10"}
    return [(f.what, f.verdict) for f in found]


def test_a_journal_in_which_nothing_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crashes(monkeypatch, Result("", "", 1)) == []


def test_each_crash_is_named_with_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = crashes(monkeypatch, Result('{"event":"request failed"}\nPANIC: could not write\n', "", 0))
    assert found == [
        ('lab-a-api-01: {"event":"request failed"}', Verdict.FAIL), ("lab-a-api-01: PANIC: could not write", Verdict.FAIL),
    ]  # fmt: skip


@pytest.mark.parametrize("said", [Result("", "no such option", 2), RemoteError("reach it by SSH: no")])
def test_a_journal_that_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch, said: Result | RemoteError) -> None:
    assert [verdict for _, verdict in crashes(monkeypatch, said)] == [Verdict.UNKNOWN]


def test_a_fault_that_still_stands_is_named() -> None:
    (found,) = looks.reverted([("az b", "AZ b can't hear AZ a", "./mobula lab heal")])
    assert (found.check, found.verdict, found.what) == (
        "O10",
        Verdict.FAIL,
        "az b AZ b can't hear AZ a still; ./mobula lab heal",
    )


# All of it.


def audited(*findings: Finding, unknown: dict[str, str] | None = None) -> Report:
    return Report(Counts(), findings, {}, unknown or {}, 0, 0, 0.0, read=False)


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Region:
    """All is as it was."""
    monkeypatch.setattr(looks, "audit", lambda *_, **__: audited())
    monkeypatch.setattr(looks, "crashes", lambda *_: [])
    monkeypatch.setattr(looks.faults, "standing", lambda *_: [])
    for fault in (RotDisk, Full):
        monkeypatch.setattr(fault, "left", lambda *_: [])
    return region_in(tmp_path)


def test_nothing_is_found_where_all_is_as_it_was(region: Region) -> None:
    assert look(region, "x", 0.0, FAULTS, QUIET) == []


def test_only_the_drills_own_objects_count_and_who_did_not_answer_is_unknown(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Finding("missing", "id", "/demo/stor/drills/x/d0/known000", STORAGE, "its copy is not there", "")
    theirs = Finding("missing", "id", "/demo/stor/drills/xy/d0/known000", STORAGE, "its copy is not there", "")
    monkeypatch.setattr(looks, "audit", lambda *_, **__: audited(ours, theirs, unknown={"shard 1": "no lease"}))
    found = look(region, "x", 0.0, (), QUIET)
    assert [(f.check, f.verdict) for f in found] == [("O4", Verdict.FAIL), ("O4", Verdict.UNKNOWN)]
    assert [f.what for f in found] == [
        f"missing {STORAGE} id /demo/stor/drills/x/d0/known000: its copy is not there",
        "shard 1 could not be asked: no lease",
    ]


@pytest.mark.parametrize("kind", [RotDisk, Full])
def test_what_a_healed_fault_has_left_is_a_promise_broken(
    region: Region, monkeypatch: pytest.MonkeyPatch, kind: type[RotDisk | Full]
) -> None:
    monkeypatch.setattr(kind, "left", lambda *_: ["it is not as it was"])
    (found,) = look(region, "x", 0.0, FAULTS, QUIET)
    assert (found.check, found.verdict, found.what) == ("O4", Verdict.FAIL, "it is not as it was")


def test_what_cannot_be_seen_is_unknown_and_the_audit_counts(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> NoReturn:
        raise OperatorError("reach it by SSH: no")

    monkeypatch.setattr(Full, "left", silent)
    monkeypatch.setattr(RotDisk, "left", lambda *_: ["a sector is wrong"])
    found = look(region, "x", 0.0, FAULTS, QUIET)
    assert [(f.verdict, f.what) for f in found] == [
        (Verdict.FAIL, "a sector is wrong"),
        (Verdict.UNKNOWN, f"what is left of 'full: {STORAGE}' can't be seen: reach it by SSH: no"),
    ]
