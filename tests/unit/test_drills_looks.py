"""What is found on the machines when a drill is over."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ops.drills import looks
from ops.drills.findings import Verdict
from ops.region import Host
from ops.remote import RemoteError, Result

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
