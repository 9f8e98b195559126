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
    asked = rounds(2, ("stale-read", "az-loss/worst", "az-loss/b", "az-loss/b", "shard-peers/sync"))
    variants = [("stale-read", variant) for variant in DRILLS["stale-read"].variants]
    assert Counter(asked) == Counter(
        [("az-loss", "worst")] * 2 + [("az-loss", "b"), ("shard-peers", "sync"), *variants]
    )
    # In the order of the catalog, whatever theirs was; a variant beside its whole drill is in it already.
    assert [name for name, _ in asked] == sorted((name for name, _ in asked), key=list(DRILLS).index)
    assert rounds(3, ("az-loss/a", "az-loss")) == rounds(3, ("az-loss",))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("flood", "run drill 'flood': there are az-loss, partition"),
        ("flood/worst", "run drill 'flood': there are az-loss, partition"),
        ("", "run drill '': there are az-loss"),
        ("/worst", "run drill '': there are az-loss"),
        ("az-loss/", "run drill 'az-loss' as '': it has the variants worst, a, b, c"),
        ("az-loss/z", "run drill 'az-loss' as 'z': it has the variants worst, a, b, c"),
        ("az-loss/worst/a", "run drill 'az-loss' as 'worst/a': it has the variants worst, a, b, c"),
    ],
)
def test_what_is_no_drill_and_no_variant_is_refused_in_a_sentence(asked: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        rounds(1, ("az-loss/worst", asked))
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_what_could_not_be_run_is_unknown_and_named() -> None:
    outcome = Outcome("az-loss", "worst", None, "the region is not well")
    assert verdict([outcome]) is Verdict.UNKNOWN
    assert verdict([]) is Verdict.PASS
    assert "az-loss (worst) was not run: the region is not well" in text([outcome])
