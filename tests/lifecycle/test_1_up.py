"""`make up`, killed again and again, comes to a region that is well."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from ops.region import REPO, STATE
from tests.lifecycle import traces
from tests.lifecycle.conftest import REGION, kill_up_when, make
from tests.probe.machine import until

pytestmark = pytest.mark.lifecycle


def machines_are_made(said: str) -> bool:
    """Terraform is at work: some machines are there."""
    if "create networks" in said:
        until("three machines", lambda: len(list((STATE / REGION / "machines").glob("*"))) >= 3)
        return True
    return False


@pytest.mark.parametrize(
    "reached",
    [
        pytest.param(machines_are_made, id="while machines are made"),
        pytest.param(lambda said: "Unpack the release" in said, id="while machines are prepared"),
        pytest.param(lambda said: "Bring the shard to this release's schema" in said, id="while a shard starts"),
    ],
)
def test_up_can_be_killed(before: traces.Traces, reached: Callable[[str], bool]) -> None:
    assert before
    kill_up_when(reached)
    status = subprocess.run([REPO / "mobula", "-R", REGION, "status"], capture_output=True, text=True, check=False)
    assert status.returncode != 0
    assert "Traceback" not in status.stderr


def test_the_next_up_finishes_the_job() -> None:
    done = make("up", "PROFILE=small")
    assert done.returncode == 0, done.stderr[-2000:]
    for promised in ("15 hosts", "10.78.1.41", "version", "next:"):
        assert promised in done.stdout
    status = subprocess.run(
        [REPO / "mobula", "-R", REGION, "status", "--json"], capture_output=True, text=True, check=False
    )
    assert json.loads(status.stdout)["ok"] is True
