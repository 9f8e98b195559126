"""`make up`, killed again and again, comes to a region that is well."""

from __future__ import annotations

import json
import subprocess

import pytest

from ops.region import REPO
from tests.lifecycle import traces
from tests.lifecycle.conftest import REGION, kill_up_when, make

pytestmark = pytest.mark.lifecycle


@pytest.mark.parametrize(
    "line",
    ["create networks", "Unpack the release", "Bring the shard to this release's schema"],
    ids=["while machines are made", "while machines are prepared", "while a shard starts"],
)
def test_up_can_be_killed(before: traces.Traces, line: str) -> None:
    assert before
    assert line in kill_up_when(lambda said: line in said)[-1]


def test_the_next_up_finishes_the_job() -> None:
    done = make("up", "PROFILE=small")
    assert done.returncode == 0, done.stderr[-2000:]
    for promised in ("15 hosts", "10.78.1.41", "version", "next:"):
        assert promised in done.stdout
    status = subprocess.run(
        [REPO / "mobula", "-R", REGION, "status", "--json"], capture_output=True, text=True, check=False
    )
    assert json.loads(status.stdout)["ok"] is True
