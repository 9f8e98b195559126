"""Whom an asynchronous peer streams from, by what it sees."""

from __future__ import annotations

import pytest

from mobula.metadata.chain import FORGIVE_S, HOLD_S, STALL_S, Chain, Keys, standby_above

ALL = frozenset("pqs")


def keys(
    leader: str | None = "p", sync_leader: str | None = "p", voters: str = "s", running: frozenset[str] = ALL
) -> Keys:
    return Keys(leader, sync_leader, frozenset(voters), running)


@pytest.mark.parametrize(
    ("me", "seen", "above"),
    [
        ("q", keys(), "s"),
        ("s", keys(), None),
        ("p", keys(), None),
        ("q", keys(voters=""), None),
        ("q", keys(voters="q"), None),
        ("q", keys(running=frozenset("pq")), None),
        # A fresh failover: /sync is the old leader's still.
        ("q", keys(leader="s", sync_leader="p", voters="s"), None),
        # No leader: stay where we are, the standby will be it.
        ("q", keys(leader=None), "s"),
        # Patroni lists the leader among the voters in some versions.
        ("q", keys(voters="ps"), "s"),
        ("q", keys(voters="st", running=frozenset("pqst")), None),
    ],
)
def test_the_one_synchronous_standby_of_the_present_leader_is_above(me: str, seen: Keys, above: str | None) -> None:
    assert standby_above(me, seen) == above


def test_a_standby_that_gives_nothing_while_the_leader_goes_on_is_passed_over_and_tried_again() -> None:
    chain = Chain("q")
    asked: list[int] = []

    def leader() -> int:
        asked.append(1)
        return 200

    assert chain.above(keys(), 100, 0.0, leader) == "s"
    assert chain.above(keys(), 100, STALL_S, leader) == "s"
    assert not asked
    assert chain.above(keys(), 100, STALL_S + 0.1, leader) is None
    # From the leader it gets on: that does not send it back at once.
    assert chain.above(keys(), 200, STALL_S + 1.0, leader) is None
    back_s = STALL_S + 0.2 + HOLD_S
    assert chain.above(keys(), 200, back_s, leader) == "s"
    # Nothing again: passed over for twice as long.
    again_s = back_s + STALL_S + 0.1
    assert chain.above(keys(), 300, back_s + 0.05, leader) == "s"
    assert chain.above(keys(), 300, again_s, leader) is None
    assert chain.above(keys(), 300, again_s + HOLD_S + 1, leader) is None
    assert chain.above(keys(), 300, again_s + 2 * HOLD_S + 0.1, leader) == "s"


def test_stalls_that_are_long_past_are_forgiven() -> None:
    chain = Chain("q")
    chain.above(keys(), 1, 0.0, lambda: 2)
    assert chain.above(keys(), 1, 1.0, lambda: 2) is None
    late_s = 1.0 + HOLD_S + FORGIVE_S
    assert chain.above(keys(), 3, late_s, lambda: 3) == "s"
    assert chain.above(keys(), 3, late_s + 1, lambda: 4) is None
    assert chain.above(keys(), 3, late_s + 1.1 + HOLD_S, lambda: 4) == "s"


@pytest.mark.parametrize("position", [None, 100])
def test_a_leader_that_is_silent_or_no_further_on_passes_nobody_over(position: int | None) -> None:
    chain = Chain("q")
    for now_s in (0.0, 1.0, 2.0):
        assert chain.above(keys(), 100, now_s, lambda: position) == "s"


def test_another_standby_ends_the_passing_over() -> None:
    chain = Chain("q")
    chain.above(keys(), 1, 0.0, lambda: 2)
    assert chain.above(keys(), 1, 1.0, lambda: 2) is None
    assert chain.above(keys(leader="s", sync_leader="s", voters="p"), 1, 1.1, lambda: 2) == "p"
