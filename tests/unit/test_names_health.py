"""`fall` failures in a row take a service out of DNS, `rise` successes bring it in."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.names.health import Health


def after(results: str | list[bool], *, fall: int, rise: int, start: Health | None = None) -> Health:
    """The state after results: + passed, - failed."""
    passed = [r == "+" for r in results] if isinstance(results, str) else results
    return functools.reduce(lambda h, p: h.after(p, fall=fall, rise=rise), passed, start or Health())


@pytest.mark.parametrize(
    ("results", "registered"),
    [
        ("", False), ("+", False), ("++", True), ("+-+", False), ("+-++", True),
        ("++--", True), ("++---", False), ("++--+--", True), ("++---+", False), ("++---++", True),
    ],
)  # fmt: skip
def test_it_takes_two_successes_to_come_and_three_failures_to_go(results: str, registered: bool) -> None:
    assert after(results, fall=3, rise=2).registered is registered


@pytest.mark.parametrize("results", ["+", "+-+", "-+"])
def test_with_one_as_both_bounds_the_last_result_decides(results: str) -> None:
    assert after(results, fall=1, rise=1).registered is True


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_the_state_is_what_the_last_long_enough_row_of_results_said(results: list[bool], fall: int, rise: int) -> None:
    wanted = False
    for end in range(1, len(results) + 1):
        row = results[:end]
        if row[-rise:] == [True] * rise:
            wanted = True
        elif row[-fall:] == [False] * fall:
            wanted = False
    assert after(results, fall=fall, rise=rise).registered is wanted


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_what_speaks_against_the_state_stays_below_its_bound(results: list[bool], fall: int, rise: int) -> None:
    state = after(results, fall=fall, rise=rise)
    assert 0 <= state.against < (fall if state.registered else rise)


@pytest.mark.parametrize(
    ("state", "why", "sentence"),
    [
        (Health(), "", "webapi is not registered: not checked long enough yet"),
        (Health(), "refused", "webapi is not registered: refused"),
        (Health(registered=True), "", "webapi is registered"),
        (Health(registered=True, against=2), "refused", "webapi is registered, 2 failed in a row: refused"),
    ],
)
def test_the_state_is_told_in_words(state: Health, why: str, sentence: str) -> None:
    assert state.sentence("webapi", why) == sentence
