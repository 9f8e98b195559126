"""How long a server that does not answer is left alone, and which configs a worker refuses."""

from __future__ import annotations

import msgspec
import pytest

from mobula.core.clock import ManualClock
from mobula.workers.away import FIRST_S, MOST_S, Away
from mobula.workers.config import WorkerConfig


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_bound_and_an_answer_ends_it() -> None:
    clock = ManualClock()
    away = Away(clock)
    assert "a" not in away
    pauses = []
    for _ in range(9):
        away.failed("a", "silent")
        began_s = clock.now_s()
        while "a" in away:
            clock.advance(0.5)
        pauses.append(clock.now_s() - began_s)
    assert pauses == [min(FIRST_S * 2**n, MOST_S) for n in range(9)]
    assert away.reasons == {"a": "silent"}
    away.answered("a")
    assert not away.reasons
    away.failed("a", "silent")
    clock.advance(FIRST_S)
    assert "a" not in away


def test_failures_at_the_same_time_count_once() -> None:
    clock = ManualClock()
    away = Away(clock)
    for n in range(8):
        away.failed("a", f"{n}")
    clock.advance(FIRST_S)
    assert "a" not in away
    assert away.reasons == {"a": "0"}
    assert "b" not in away


@pytest.mark.parametrize(
    ("field", "value"),
    [("grace_s", 0), ("grace_s", -1), ("commit_deadline_s", 0), ("batch", 0), ("batch", 10**6), ("files_per_s", 0), ("orphans_max", -1)],
)  # fmt: skip
def test_a_config_with_numbers_that_make_no_sense_is_refused(field: str, value: float) -> None:
    document = {
        "region": "r", "host": "h", "az": "a", "address": "10.0.0.1", "status_port": 8082, "zookeeper": [],
        "postgres": {"ca": "", "certificate": "", "key": ""}, "capability_keys": ["k"],
    }  # fmt: skip
    msgspec.convert(document, WorkerConfig)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({**document, field: value}, WorkerConfig)
