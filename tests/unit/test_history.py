"""The check of histories finds what is wrong, and nothing else."""

from __future__ import annotations

from tests.history import Event, stale_reads


def put(value: str | None, began_s: float, ended_s: float, *, sure: bool = True) -> Event:
    return Event(writes=True, value=value, began_s=began_s, ended_s=ended_s, sure=sure)


def get(value: str | None, began_s: float, ended_s: float) -> Event:
    return Event(writes=False, value=value, began_s=began_s, ended_s=ended_s)


def test_reads_in_order_and_reads_of_writes_under_way_are_well() -> None:
    history = [
        get(None, 0, 1),
        put("a", 2, 3),
        get("a", 4, 5),
        put("b", 6, 9),
        get("a", 7, 8),
        get("b", 7, 8),
        get("b", 10, 11),
    ]
    assert stale_reads([*history, put(None, 12, 13), get(None, 14, 15)]) == []


def test_an_old_value_after_a_newer_write_had_ended_is_found() -> None:
    assert len(stale_reads([put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)])) == 1


def test_an_acknowledged_write_that_vanished_is_found() -> None:
    assert len(stale_reads([put("a", 0, 1), get(None, 2, 3)])) == 1


def test_a_value_that_comes_back_after_its_removal_is_found() -> None:
    assert len(stale_reads([put("a", 0, 1), put(None, 2, 3), get("a", 4, 5)])) == 1


def test_a_value_that_nobody_wrote_is_found() -> None:
    assert len(stale_reads([put("a", 0, 1), get("x", 2, 3)])) == 1
    assert len(stale_reads([get("a", 0, 1), put("a", 2, 3)])) == 1


def test_a_value_that_comes_back_after_a_newer_one_was_read_is_found() -> None:
    at_once = [put("a", 0, 2), put("b", 1, 3)]
    assert len(stale_reads([*at_once, get("a", 4, 5), get("b", 6, 7), get("a", 8, 9)])) == 1
    assert len(stale_reads([put("a", 0, 1), put("b", 2, 10), get("b", 3, 4), get("a", 5, 6)])) == 1
    assert stale_reads([put("a", 0, 1), put("b", 2, 10), get("a", 3, 4), get("b", 5, 6)]) == []


def test_a_write_without_an_answer_explains_both() -> None:
    unsure = put("b", 2, float("inf"), sure=False)
    assert stale_reads([put("a", 0, 1), unsure, get("a", 4, 5), get("b", 6, 7)]) == []


def test_writers_at_the_same_time_may_end_either_way() -> None:
    for value in ("a", "b"):
        assert stale_reads([put("a", 0, 2), put("b", 1, 3), get(value, 4, 5)]) == []
