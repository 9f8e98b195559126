"""A job is judged by what it comes to without a fault, and by nothing less."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mobula.core.job import parse
from ops.drills.findings import Verdict
from ops.drills.job_run import REDUCERS, TASKS, WORDS, document, not_as_calm

STATS = {"tasks": TASKS + REDUCERS, "tasksDone": TASKS + REDUCERS, "retries": 0, "errors": 0, "outputs": REDUCERS}


def outputs(counts: Mapping[str, int] = {}) -> list[str]:
    """As `uniq -c` writes them; `counts` are otherwise than they should be."""
    lines = [f"{counts.get(word, TASKS):7} {word}" for word in WORDS]
    return ["".join(f"{line}\n" for line in lines[number::REDUCERS]) for number in range(REDUCERS)]


def test_the_job_is_one() -> None:
    assert [phase.reducers for phase in parse(document()).phases] == [0, REDUCERS]
    assert json.loads(document())["phases"][0]["exec"].endswith(f"-n {REDUCERS}")


@pytest.mark.parametrize("retries", [0, 17])
def test_a_calm_run_and_one_with_lost_attempts_pass(retries: int) -> None:
    stats = {**STATS, "tasks": TASKS + REDUCERS + retries, "tasksDone": TASKS + REDUCERS + retries, "retries": retries}
    assert not_as_calm({"stats": stats}, outputs()) == []


@pytest.mark.parametrize(
    ("stats", "texts", "says"),
    [
        ({}, outputs({WORDS[7]: TASKS + 1}), "1 words were counted wrongly, 'word-0007' 241 times and not 240"),
        ({}, outputs({WORDS[0]: TASKS - 1, WORDS[9]: 0}), "2 words were counted wrongly"),
        ({}, outputs()[:-1], "3 outputs and not 4"),
        ({}, [*outputs(), ""], "5 outputs and not 4"),
        ({}, [outputs()[0] + "      1 another\n", *outputs()[1:]], "'another' 1 times and not 0"),
        ({}, [outputs()[0].replace("240 ", "many ", 1), *outputs()[1:]], "counted wrongly"),
        ({"errors": 1}, outputs(), "1 errors"),
        ({"retries": 1}, outputs(), "244 tasks, 244 done, 1 retries"),
        ({"tasksDone": TASKS}, outputs(), "244 tasks, 240 done"),
    ],
)
def test_whatever_is_otherwise_fails(stats: Mapping[str, int], texts: Sequence[str], says: str) -> None:
    status: dict[str, Any] = {"stats": {**STATS, **stats}}
    found = not_as_calm(status, texts)
    assert any(says in finding.what for finding in found), found
    assert {(finding.check, finding.verdict) for finding in found} == {("O7", Verdict.FAIL)}
