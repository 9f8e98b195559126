"""Usage reports: which hours are due, what the job is given, and what its tasks make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mobula.core.hours import parse
from mobula.core.job import parse as parse_job
from mobula.metadata.metering import Usage
from mobula.workers import report_task
from mobula.workers.reports import CATCH_UP_HOURS, SETTLE_S, document, due, last_hour, line
from ops.usage import Report

FIVE = parse("2026-11-28T05")
STOR = {"directories": 1, "objects": 2, "bytes": 30, "storedBytes": 60}


@pytest.mark.parametrize(
    ("since_s", "first", "done", "hours"),
    [
        (0.0, 0, [], []),  # the clock says six, and webapis still have counts of five
        (SETTLE_S, 0, [], [0]),
        (SETTLE_S, 0, [0], []),
        (SETTLE_S, 1, [], []),  # nothing is known of it
        (SETTLE_S + 3 * 3600, 0, [1], [0, 2, 3]),
    ],
)
def test_hours_that_are_over_and_not_done_are_due_the_oldest_first(
    since_s: float, first: int, done: list[int], hours: list[int]
) -> None:
    now_s = (FIVE + 1) * 3600 + since_s
    assert due(now_s, FIVE + first, [FIVE + n for n in done]) == [FIVE + n for n in hours]


def test_after_a_long_outage_the_last_two_days_are_caught_up_with() -> None:
    now_s = (FIVE + 1) * 3600 + SETTLE_S
    found = due(now_s, 0, [])
    assert (len(found), found[-1]) == (CATCH_UP_HOURS, FIVE)
    assert last_hour(now_s) == FIVE


@pytest.mark.parametrize(("accounts", "reducers"), [(0, 1), (1999, 1), (2000, 2), (10**7, 64)])
def test_the_job_is_one_that_anybody_could_create(accounts: int, reducers: int) -> None:
    job = parse_job(json.dumps(document(FIVE, accounts)).encode())
    assert job.name == "usage-2026-11-28T05"
    assert (f"-n {reducers} " in job.phases[0].exec, job.phases[1].reducers) == (True, reducers)


def lines(*usages: tuple[str, Usage]) -> list[str]:
    return sorted(line(usage, login).decode() for login, usage in usages)


def reports(*usages: tuple[str, Usage]) -> dict[str, Any]:
    return {path: json.loads(body) for path, body in report_task.reports(lines(*usages), "2026-11-28T05")}


def test_what_two_shards_know_of_an_account_is_added_up() -> None:
    asked = {"type": {"GET": 2, "PUT": 1}, "bandwidth": {"in": 7, "out": 9}}
    ran = {"tasks": 2, "milliseconds": 1500, "megabyteMilliseconds": 1_536_000}
    found = reports(
        ("ann", Usage("id", json.dumps({"stor": STOR}), json.dumps(asked), json.dumps(ran))),
        ("ann", Usage("id", json.dumps({"stor": STOR, "public": STOR}), None, json.dumps(ran))),
    )
    at = {kind: f"/ann/reports/usage/{kind}/2026/11/28/05/h05.json" for kind in report_task.KINDS}
    assert set(found) == set(at.values())
    twice = {name: 2 * value for name, value in STOR.items()}
    assert found[at["storage"]] == {
        "owner": "id", "login": "ann", "date": "2026-11-28T05:00:00.000Z", "storage": {"stor": twice, "public": STOR},
    }  # fmt: skip
    assert found[at["requests"]]["requests"] == asked
    assert found[at["compute"]]["compute"] == {"tasks": 4, "seconds": 3.0, "megabyteSeconds": 3072.0}


def test_each_account_has_reports_of_what_it_has_used() -> None:
    ann, bob = (
        Usage("1", json.dumps({"stor": STOR}), None, None),
        Usage("2", None, json.dumps({"type": {"GET": 1}}), None),
    )
    assert list(reports(("ann", ann), ("b%b@x", bob))) == [
        "/ann/reports/usage/storage/2026/11/28/05/h05.json", "/b%25b%40x/reports/usage/requests/2026/11/28/05/h05.json",
    ]  # fmt: skip
    assert reports() == {}


def test_the_operator_is_told_where_the_reports_are() -> None:
    made = Report("2026-11-28T05", {"hour": "2026-11-28T05", "accounts": 3, "job": "j", "final": False})
    assert "usage of 2026-11-28T05 so far: 3 accounts" in made.text()
    assert "/LOGIN/reports/usage/{storage,requests,compute}/2026/11/28/05/h05.json" in made.text()
    assert made.as_json()["path"] == "2026/11/28/05/h05.json"
