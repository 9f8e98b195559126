"""Which drills a matrix runs, how often, and what a run that could not be made comes to."""

from __future__ import annotations

from collections import Counter

import pytest

from ops.drills.catalog import DRILLS
from ops.drills.findings import Verdict
from ops.drills.matrix import OFTEN, Outcome, rounds, text, verdict
from ops.errors import BadInput


def test_everything_is_run_once_and_the_great_losses_more_often() -> None:
    counted = Counter(rounds(3, ()))
    assert set(counted) == {(d.name, v) for d in DRILLS.values() for v in d.variants}
    assert {one for one, times in counted.items() if times == 3} == OFTEN
    assert set(counted.values()) == {1, 3}


def test_only_some_can_be_asked_for_by_their_names() -> None:
    assert {name for name, _ in rounds(1, ("az-loss", "stale-read"))} == {"az-loss", "stale-read"}
    with pytest.raises(BadInput, match="run drill 'flood': there are az-loss, partition"):
        rounds(1, ("flood",))


def test_what_could_not_be_run_is_unknown_and_named() -> None:
    outcome = Outcome("az-loss", "worst", None, "the region is not well")
    assert verdict([outcome]) is Verdict.UNKNOWN
    assert verdict([]) is Verdict.PASS
    assert "az-loss (worst) was not run: the region is not well" in text([outcome])
