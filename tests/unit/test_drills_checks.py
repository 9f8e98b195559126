"""Each promise that a history can break is found broken, and a history that breaks none passes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.drills.checks import Span, counts, listing_agrees, no_false_answers, nothing_lost, stood_still, waits
from ops.drills.findings import Checked, Finding, Verdict, check, check_all, verdict, worst
from ops.drills.history import BadHistory, Operation, by_key, decode, encode, seconds
from ops.drills.outages import Recovery, error_budget, outage, recoveries, shares, too_long
from tests.drills import Atomic, delete, get, put, swap

LOST = 0
FAULT = Span(100, 200)


def said(findings: Sequence[Finding]) -> list[str]:
    return [f.what for f in findings]


# Verdicts.


def test_the_worst_verdict_counts_and_nothing_shown_is_unknown() -> None:
    one, two, three = Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL
    assert (worst([one, two]), worst([one, two, three]), worst([one]), worst([])) == (two, three, one, one)
    assert verdict([]) is Verdict.UNKNOWN
    assert verdict([Checked("O1", one, ()), Checked("O2", two, ())]) is Verdict.UNKNOWN


def test_a_check_that_breaks_is_unknown_and_the_others_are_made() -> None:
    def broken() -> list[Finding]:
        raise KeyError("az")

    made = check_all({"O1": broken, "O2": list})
    assert [(c.check, c.verdict) for c in made] == [("O1", Verdict.UNKNOWN), ("O2", Verdict.PASS)]
    assert "KeyError: 'az'" in made[0].findings[0].what
    assert check("O9", lambda: listing_agrees(["a"], {})).verdict is Verdict.FAIL


# A history as lines.

LINES = st.builds(
    Operation,
    client=st.text(max_size=5), az=st.sampled_from("abc"), kind=st.sampled_from(["get", "put", "delete", "list", "put_if_match"]),
    key=st.text(max_size=9), value=st.just("0" * 32), began_s=st.floats(0, 1e6), ended_s=st.floats(1e6, 2e6),
    status=st.sampled_from([0, 200, 204, 404, 412, 503]), group=st.text(max_size=9), expected=st.none() | st.text(max_size=9),
    names=st.lists(st.text(max_size=4), max_size=3).map(tuple), retry_after=st.booleans(),
)  # fmt: skip


@given(st.lists(LINES, max_size=5))
def test_a_history_is_read_as_it_was_written(history: list[Operation]) -> None:
    assert list(decode([encode(o) for o in history])) == history


LINE = encode(get("a", 1, 2))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "truncated"),
        (b'{"client":', "truncated"),
        (LINE[:40], "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "array"),
        (b'{"client":"c"}', "missing required field `az`"),
        (LINE.replace(b'"get"', b'"head"'), "kind"),
        (LINE.replace(b'"status":200', b'"status":700'), "status 700"),
        (LINE.replace(b'"began_s":1', b'"began_s":3'), "began at 3.0 and ended at 2.0"),
        (LINE.replace(b'"began_s":1', b'"began_s":null'), "began_s"),
        (LINE.replace(b'"value":"a"', b'"value":null'), "read no value"),
        (LINE.replace(b'"get"', b'"put"').replace(b'"value":"a"', b'"value":null'), "wrote no value"),
    ],
)
def test_a_line_that_is_no_operation_is_refused_by_its_number(line: bytes, why: str) -> None:
    with pytest.raises(BadHistory, match="line 3 of the history") as refused:
        list(decode([LINE, LINE, line]))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_an_answer_says() -> None:
    lost, refused, unsure, gone = (
        put("a", 0, 1, LOST),
        swap("x", "a", 0, 1, 412),
        put("a", 0, 1, 503),
        delete(0, 1, 404),
    )
    assert [o.indeterminate for o in (lost, refused, unsure, gone, get(None, 0, 1, 503))] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert [o.done for o in (lost, refused, unsure, gone, get(None, 0, 1), get(None, 0, 1, 503))] == [
        False, False, False, True, True, False,
    ]  # fmt: skip
    assert [o.refused for o in (lost, refused, unsure, gone, put("a", 0, 1, 404))] == [False, True, False, False, True]
    assert [o.failed for o in (lost, refused, unsure, gone)] == [True, False, True, False]
    assert seconds([]) == (0, 0)
    assert seconds([lost, get(None, 3, 9)]) == (0, 9)
    listing = replace(get("x", 0, 1), kind="list", value=None)
    assert by_key([lost, listing]) == {"k": [lost]}


# O2.


def test_an_acknowledged_write_that_is_lost_is_found() -> None:
    history = [put("a", 0, 1), put("b", 2, 3)]
    assert nothing_lost(history, {"k": "b"}) == []
    assert said(nothing_lost(history, {"k": "a"})) == ["k holds a; b was acknowledged after it"]
    assert said(nothing_lost(history, {"k": None})) == ["k is gone; b was acknowledged and not deleted"]
    assert said(nothing_lost(history, {"k": "x"})) == ["k holds x, which nobody wrote"]
    assert said(nothing_lost([*history, swap("y", "c", 4, 5, 412)], {"k": "c"})) == [
        "k holds c, whose write was refused with 412"
    ]
    assert said(nothing_lost([*history, delete(4, 5)], {"k": "b"})) == ["k holds b; a delete was acknowledged after it"]
    assert said(nothing_lost([get("z", 0, 1)], {"k": None}, initial={"k": "z"})) == [
        "k is gone; it held z before, and nobody deleted it"
    ]


def test_a_later_write_without_an_answer_explains_what_is_there_at_the_end() -> None:
    history = [put("a", 0, 1), put("b", 2, 3, 503)]
    assert nothing_lost(history, {"k": "a"}) == nothing_lost(history, {"k": "b"}) == []
    assert nothing_lost([put("a", 0, 1), delete(2, 3, LOST)], {"k": None}) == []
    assert nothing_lost([put("a", 0, 1), put("b", 2, 3, LOST), put("c", 4, 5)], {"k": "b"}) == [], "it came late"
    assert nothing_lost([put("a", 0, 2), put("b", 1, 3)], {"k": "a"}) == []
    assert nothing_lost([put("a", 0, 1), delete(2, 3, LOST, "a"), put("b", 4, 5)], {"k": None}) != [], (
        "its condition is gone"
    )


def test_a_key_that_was_not_read_at_the_end_is_unknown() -> None:
    (found,) = nothing_lost([put("a", 0, 1)], {})
    assert found.verdict is Verdict.UNKNOWN


# O3.

FALSE = {
    "404 for k, which is known to be there": [put("a", 0, 1), get(None, 2, 3)],
    "a stale read of k: a had been replaced before": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "k was read as x, which nobody wrote": [get("x", 0, 1)],
    "k was read as b, whose write was refused with 412": [put("a", 0, 1), swap("x", "b", 2, 3, 412), get("b", 4, 5)],
    "403 to a get of k: nothing that a client of a drill does deserves it": [get(None, 0, 1, 403)],
    "404 to a put of k: nothing that a client of a drill does deserves it": [put("a", 0, 1, 404)],
    "412 to a put of k: nothing that a client of a drill does deserves it": [put("a", 0, 1, 412)],
    "412 to a put_if_match of k: its condition held": [put("a", 0, 1), swap("a", "b", 2, 3, 412)],
    "412 to a delete of k: its condition held": [put("a", 0, 1), delete(2, 3, 412, "a")],
    "409 to a put of k: nobody else wrote it at that time": [put("a", 0, 1), put("b", 2, 3, 409)],
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_answer_is_found(what: str) -> None:
    (found,) = no_false_answers(FALSE[what])
    assert (found.what, found.verdict) == (what, Verdict.FAIL)
    assert FALSE[what][-1] in found.operations


def test_a_deleted_value_that_is_read_again_is_found() -> None:
    assert said(no_false_answers([put("a", 0, 1), delete(2, 3), get("a", 4, 5)])) == [
        "a stale read of k: a had been replaced before"
    ]


def test_a_404_is_no_false_one_if_the_key_may_have_been_gone() -> None:
    for history in (
        [get(None, 0, 1), put("a", 2, 3)],
        [put("a", 0, 5), get(None, 1, 2)],
        [put("a", 0, 1), delete(2, 3), get(None, 4, 5)],
        [put("a", 0, 1), delete(2, 9), get(None, 3, 4)],
        [put("a", 0, 1), delete(2, 3, 503), put("b", 4, 5), get(None, 6, 7)],
        [put("a", 0, 1), delete(2, 3, 503, "b"), put("b", 4, 5), get(None, 6, 7)],
    ):
        assert no_false_answers(history) == []
    assert no_false_answers([put("a", 0, 1), delete(2, 3, 503, "a"), put("b", 4, 5), get(None, 6, 7)]) != []
    assert no_false_answers([get(None, 0, 1)], initial={"k": "z"}) != []
    assert no_false_answers([get(None, 0, 1), delete(0, 1)], initial={"k": "z"}) == []


def test_a_refusal_with_a_reason_is_none() -> None:
    assert no_false_answers([put("a", 0, 1), put("b", 2, 9), swap("a", "c", 3, 4, 412)]) == []
    assert no_false_answers([put("a", 0, 1), put("b", 2, 3, LOST), swap("a", "c", 4, 5, 412)]) == []
    assert no_false_answers([put("a", 0, 9), put("b", 2, 3, 409)]) == []
    assert no_false_answers([put("a", 0, 1, LOST), put("b", 2, 3, 409)]) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0, 0.4))
def test_a_real_register_gives_no_false_answers_and_loses_nothing(seed: int, clients: int, lost: float) -> None:
    register = Atomic(random.Random(seed), clients, lost)  # noqa: S311
    history = register.history(100)
    assert no_false_answers(history) == []
    assert nothing_lost(history, {"k": register.value}) == []


def test_a_promise_that_is_broken_many_times_is_told_in_few_lines() -> None:
    found = no_false_answers([get(f"x{n}", n, n + 1) for n in range(500)])
    assert len(found) == 21
    assert found[-1].what == "... and 480 more like these"


# O9, waiting, the gate.


def test_a_listing_that_does_not_agree_with_get_is_found() -> None:
    assert listing_agrees(["a", "b"], {"a": "1", "b": "2", "c": None}) == []
    assert said(listing_agrees(["a", "a", "c"], {"a": "1", "b": "2", "c": None})) == [
        "a is listed 2 times", "c is listed, and GET does not find it", "b is found by GET, and not listed",
    ]  # fmt: skip


def test_a_wait_of_more_than_ten_seconds_is_found() -> None:
    sent_away = replace(get(None, 0, 9, 503), retry_after=True)
    assert waits([sent_away, get("a", 0, 10), get(None, 0, 3, LOST)]) == []
    assert said(waits([get("a", 0, 10.5), get(None, 0, 12, LOST)])) == [
        "10.5 s until 200 to a get of k", "12.0 s until the client gave up to a get of k",
    ]  # fmt: skip
    unreachable = [Span(5, 50, frozenset({"a"}))]
    assert waits([get(None, 0, 12, LOST)], cut=unreachable) == []
    assert waits([replace(get(None, 0, 12, LOST), az="b")], cut=unreachable) != []
    assert waits([get("a", 0, 12)], cut=unreachable) != [], "it came, so it could be reached"


def test_the_time_in_which_a_client_stood_still_is_not_a_wait_and_the_run_says_less() -> None:
    still = [get("a", 0, 0.1), get("a", 1, 13.5), get("a", 12.9, 13.4)]
    assert stood_still(still) == {still[0].client: [(1, 12.9)]}
    assert waits(still) == []
    assert said(waits([*still, get("a", 12.9, 23)])) == ["10.1 s until 200 to a get of k"]
    others = [o for o in busy() if not 100 < o.began_s < 104]
    span = Span(90, 110)
    told = "client c stood still for 4.2 s during the fault: this machine had no processor for it"
    assert told in said(counts(others, span, ["a"], [], [("so", True)], in_fault_min=1))
    assert not said(counts(others, Span(110, 120), ["a"], [], [("so", True)], in_fault_min=1))


def test_an_error_that_does_not_say_when_to_come_again_is_found() -> None:
    assert said(waits([get(None, 0, 1, 503), replace(get(None, 0, 1, 500), retry_after=True)])) == [
        "503 without Retry-After to a get of k", "500 with Retry-After to a get of k",
    ]  # fmt: skip


def busy() -> list[Operation]:
    history = []
    for n in range(3000):
        one = get("a", n / 10, n / 10 + 0.01) if n % 4 else put(f"v{n}", n / 10, n / 10 + 0.01)
        history.append(replace(one, az="abc"[n % 3], group=f"shard:{1 + n % 2}"))
    return history


def test_a_run_counts_only_if_it_shows_something() -> None:
    history, azs, groups, bit = busy(), ["a", "b", "c"], ["shard:1", "shard:2"], [("the link was down", True)]
    assert counts(history, FAULT, azs, ["shard:1"], bit) == []
    lacking = {
        "1000 operations were completed; 2000 are needed": counts(history[1000:2000], FAULT, azs, ["shard:1"], bit),
        "clients in b began 0 operations during the fault; 200 are needed": counts(
            [o for o in history if o.az != "b"], FAULT, azs, ["shard:1"], bit, operations_min=10
        ),
        "no write of shard:2 was completed": counts(history, FAULT, azs, groups, bit),
        "not shown: the link was down": counts(history, FAULT, azs, ["shard:1"], [("the link was down", False)]),
        "nothing shows that the fault was there": counts(history, FAULT, azs, ["shard:1"], []),
        "no client could reach anything during the fault": counts(history, FAULT, [], ["shard:1"], bit),
    }
    for what, found in lacking.items():
        assert said(found) == [what]
        assert {f.verdict for f in found} == {Verdict.UNKNOWN}
    failing = [replace(o, status=503) for o in history]
    assert "0 operations were completed; 2000 are needed" in said(counts(failing, FAULT, azs, ["shard:1"], bit))


# O5, O6.


def test_errors_are_shared_out_by_second_kind_and_az() -> None:
    history = [
        get("a", 0, 0.5),
        get(None, 0, 0.6, 503),
        get(None, 0, 0.7),
        put("b", 0, 1.5, LOST),
        replace(get("a", 0, 1.9), az="b"),
    ]
    assert [(s.began_s, s.kind, s.az, s.operations, s.failed) for s in shares(history, 0, 1)] == [
        (0, "get", "a", 3, 1), (1, "get", "b", 1, 0), (1, "put", "a", 1, 1),
    ]  # fmt: skip


def test_five_minutes_with_too_many_errors_are_found_unless_excused() -> None:
    history = [get("a", n, n + 0.1) for n in range(600)] + [get(None, 310, 311, 503)]
    assert said(error_budget(history, 0)) == [
        "1 of 301 get from a failed in the 5 minutes from 300 s; 0.10% are allowed"
    ]
    assert error_budget(history, 0, share_max=0.01) == []
    assert error_budget(history, 0, excused=[Span(300, 320)]) == []
    assert error_budget(history, 0, excused=[Span(300, 320, frozenset("b"))]) != []


def steady(*outages: tuple[float, float]) -> list[Operation]:
    """An operation each second from 100 to 200; those that begin within an outage fail."""
    return [
        get(None, n, n + 0.1, 503) if any(a <= n < b for a, b in outages) else get("a", n, n + 0.1)
        for n in range(90, 211)
    ]


def test_an_outage_is_from_the_last_success_to_the_next() -> None:
    (found,) = recoveries(steady((120, 135), (150, 153)), FAULT)
    assert (found.name, found.operations, found.failed) == ("reads of all from a", 101, 18)
    assert found.outage_s == pytest.approx(16 - 0.9, abs=1), "from 119.1, or from the first that failed, to 135.1"
    assert found.steady_after_s == pytest.approx(35.1), (
        "three seconds later it failed again, but that is after the calm"
    )
    (short,) = recoveries(steady((120, 135), (140, 143)), FAULT)
    assert short.steady_after_s == pytest.approx(43.1)


def test_without_a_success_the_outage_is_the_span_and_without_an_operation_there_is_none() -> None:
    (never,) = recoveries(steady((0, 999)), FAULT)
    assert (never.outage_s, never.steady_after_s) == (100, None)
    (calm,) = recoveries(steady(), FAULT)
    assert calm.outage_s < 1.2
    assert calm.steady_after_s == 0
    idle = [get("a", 101, 101.1), get("a", 180, 180.1)]
    assert outage(idle, FAULT) == pytest.approx(0.1), "nobody asked for anything in between"
    assert outage([], FAULT) == 0
    assert outage([get("a", 110, 150)], FAULT) == 40, "a slow answer is an outage"
    assert outage([get(None, 90, 120, LOST), get("a", 120, 130)], FAULT) == 30


def test_recoveries_are_by_az_group_and_kind_and_the_slow_ones_are_found() -> None:
    history = [*steady((110, 150)), *(replace(o, az="b", group="shard:2") for o in steady((110, 115)))]
    history += [replace(o, kind="put", value=f"{n}") for n, o in enumerate(steady((100, 999)))]
    found = recoveries(history, FAULT)
    assert [r.name for r in found] == ["reads of all from a", "writes of all from a", "reads of shard:2 from b"]
    assert said(too_long(found, 30, 120)) == [
        "reads of all from a: out for 40.1 s; 30 s are allowed",
        "writes of all from a: not steady again; 101 of 101 failed",
    ]
    assert [r.az for r in recoveries(history, replace(FAULT, azs=frozenset("b")))] == ["b"]
    assert Recovery("a", "", False, 0, 0, 0, 0).name == "reads of all from a"
