"""`make down` leaves nothing of a region on the machine, also of one that was killed half made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.region import STATE
from tests.lifecycle import traces
from tests.lifecycle.conftest import REGION, kill_up_when, make

pytestmark = pytest.mark.lifecycle


def check_nothing_left(before: traces.Traces) -> None:
    done = make("down")
    assert done.returncode == 0, done.stderr
    assert traces.left(before, traces.of_machine(REGION, STATE / REGION)) == {}
    # Not compared with before: what an older version left there goes too.
    assert not list(Path("/run/systemd/nspawn").glob(f"*/{REGION}-*"))


def test_down_leaves_nothing(before: traces.Traces) -> None:
    check_nothing_left(before)


def test_down_leaves_nothing_of_an_up_that_was_killed(before: traces.Traces) -> None:
    kill_up_when(lambda said: "Ship what every machine has" in said)
    assert traces.of_machine(REGION, STATE / REGION)["processes"]
    check_nothing_left(before)


def test_down_of_nothing_is_well(before: traces.Traces) -> None:
    check_nothing_left(before)
