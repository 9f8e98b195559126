"""What a register can't have done is found, and what it can have done is not."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.drills import clusters
from ops.drills.findings import Verdict
from ops.drills.history import Kind, Operation
from ops.drills.linear import judge_key, linearizable
from ops.drills.register import Contradiction, Step, What, register, step
from ops.drills.search import Search
from tests.drills import Atomic, delete, get, put, swap

LOST = 0

GOOD: dict[str, list[Operation]] = {
    "a read concurrent with a write gives either": [
        put("a", 0, 1), put("b", 2, 9), get("a", 3, 4), get("b", 5, 6), get("a", 3, 6), get("b", 10, 11),
    ],
    "of two concurrent writes either is last": [put("a", 0, 2), put("b", 1, 3), get("a", 4, 5), get("a", 6, 7)],
    "a write without an answer takes effect late": [
        put("a", 0, 1), put("b", 2, 3, LOST), get("a", 4, 5), put("c", 6, 7), get("c", 8, 9), get("b", 20, 21),
    ],
    "a write without an answer never takes effect": [put("a", 0, 1), put("b", 2, 3, 503), get("a", 4, 5), get("a", 99, 100)],
    "a delete without an answer takes effect late": [
        put("a", 0, 1), delete(2, 3, LOST), get("a", 4, 5), put("b", 6, 7), get("b", 8, 9), get(None, 10, 11), delete(12, 13, 404),
    ],
    "a delete on a condition without an answer": [put("a", 0, 1), delete(2, 3, LOST, "a"), get("a", 4, 5), get(None, 6, 7)],
    "a write is there before it is answered": [put("a", 0, 9), get("a", 1, 2), get("a", 3, 4), delete(5, 6), get(None, 7, 8)],
    "one of two writes on one condition": [
        put("a", 0, 1), swap("a", "b", 2, 5), swap("a", "c", 3, 6, 412), get("b", 7, 8), swap("b", "d", 9, 10), get("d", 11, 12),
    ],
    "a write on a condition without an answer made the next one possible": [
        put("a", 0, 1), swap("a", "b", 2, 3, LOST), swap("b", "c", 4, 5), get("c", 6, 7),
    ],
    "a write without an answer made the condition fail": [
        put("a", 0, 1), put("b", 2, 3, LOST), swap("a", "c", 4, 5, 412), put("d", 6, 7), swap("d", "e", 8, 9), get("e", 10, 11),
    ],
    "a write without an answer was there to be deleted": [put("a", 0, 1, 503), delete(2, 3), get(None, 4, 5)],
    "made once of two": [swap(None, "a", 0, 3), swap(None, "b", 1, 4, 412), get("a", 5, 6)],
    "read, deleted, written, deleted": [
        get(None, 0, 1), put("a", 2, 3), delete(4, 5), get(None, 6, 7), put("b", 8, 9), delete(10, 11, 204, "b"), get(None, 12, 13),
    ],
    "what ends as another begins is not before it": [put("a", 0, 1), get(None, 1, 2)],
    "errors of reads and refusals of something else say nothing": [
        put("a", 0, 1), get(None, 2, 3, 503), get(None, 2, 3, LOST), put("b", 4, 5, 409), get("a", 6, 7),
    ],
}  # fmt: skip
BAD: dict[str, list[Operation]] = {
    "an acknowledged write is lost": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "a stale read": [put("a", 0, 1), put("b", 2, 3), get("b", 4, 5), get("a", 6, 7), get("b", 8, 9)],
    "a read goes back": [put("a", 0, 1), put("b", 2, 20), get("b", 3, 4), get("a", 5, 6)],
    "concurrent writes, and both orders are seen": [
        put("a", 0, 3), put("b", 1, 4), get("a", 5, 6), get("b", 7, 8), get("a", 9, 10),
    ],
    "a value that was read vanished": [put("a", 0, 1), put("b", 2, 3, LOST), get("b", 4, 5), get("a", 6, 7)],
    "a false 404": [put("a", 0, 1), get("a", 2, 3), get(None, 4, 5), get("a", 6, 7)],
    "a false 404 to a delete": [put("a", 0, 1), delete(2, 3, 404)],
    "a false 404 though a delete was here once": [put("a", 0, 1), delete(2, 3), put("b", 4, 5), get(None, 6, 7), get("b", 8, 9)],
    "what was deleted comes back": [put("a", 0, 1), delete(2, 3), get("a", 4, 5)],
    "what was deleted on a condition comes back": [put("a", 0, 1), delete(2, 3, 204, "a"), get("a", 4, 5)],
    "a delete found what another one had deleted": [put("a", 0, 1), delete(2, 3), delete(4, 5)],
    "two deletes of one value": [put("a", 0, 1), delete(2, 5, 204, "a"), delete(3, 6, 204, "a")],
    "two writes succeed on one condition": [put("a", 0, 1), swap("a", "b", 2, 5), swap("a", "c", 3, 6)],
    "two writes succeed on nothing being there": [swap(None, "a", 0, 3), swap(None, "b", 1, 4)],
    "a refused write is seen": [put("a", 0, 1), swap("x", "b", 2, 3, 412), get("b", 4, 5)],
    "a refusal that can't be": [put("a", 0, 1), swap("a", "b", 2, 3, 412), get("a", 4, 5)],
    "a write on a condition slips in between": [put("a", 0, 1), put("b", 2, 3), get("b", 4, 5), swap("a", "c", 6, 7)],
    "a value that nobody wrote": [put("a", 0, 1), get("x", 2, 3)],
    "a value before its write": [get("a", 0, 1), put("a", 2, 3)],
    "a deleted one is deleted again without an answer only once": [
        put("a", 0, 1), delete(2, 3, LOST), get(None, 4, 5), put("b", 6, 7), get("b", 8, 9), get(None, 10, 11),
    ],
    "writes that needed each other": [swap("b", "a", 0, 9), swap("a", "b", 0, 9)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_a_register_can_do_passes(name: str) -> None:
    assert judge_key("k", GOOD[name]) is None
    assert explained(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_a_register_can_not_do_fails_and_is_shown(name: str) -> None:
    found = judge_key("k", BAD[name])
    assert found is not None
    assert (found.check, found.verdict) == ("O1", Verdict.FAIL)
    assert "k is not linearizable" in found.what
    assert set(found.operations) <= set(BAD[name])
    assert found.operations
    assert not explained(BAD[name])


def test_what_was_there_before_counts() -> None:
    assert judge_key("k", [get("z", 0, 1), put("a", 2, 3), get("a", 4, 5)], "z") is None
    assert judge_key("k", [delete(0, 1), get(None, 2, 3)], "z") is None
    assert judge_key("k", [get(None, 0, 1)], "z") is not None
    assert judge_key("k", [put("a", 2, 3), get("z", 4, 5)], "z") is not None
    history = [replace(get("z", 0, 1), key=key) for key in ("old", "new")]
    assert [f.what[:3] for f in linearizable(history, initial={"old": "z"})] == ["new"]


def test_the_proof_is_short_and_names_times() -> None:
    long = [one for n in range(300) for one in (put(f"v{n}", n, n + 0.4), get(f"v{n}", n + 0.5, n + 0.9))]
    early = [put("gone", -9, -8), delete(-7, -6), get(None, -5, -4)]
    found = judge_key("k", [*early, *long, get(None, 400, 401)])
    assert found is not None
    assert len(found.operations) <= 6
    assert found.lines(-9)[-1].lstrip() == "409.0000 -   410.0000 s  c (a)  get k = nothing  -> 404"


def test_a_body_written_twice_is_unknown_and_so_is_a_search_that_gives_up() -> None:
    twice = judge_key("k", [put("a", 0, 1), put("a", 2, 3)])
    assert twice is not None
    assert twice.verdict is Verdict.UNKNOWN
    gives_up = judge_key("k", [put("a", 0, 9), delete(0, 9), put("b", 0, 9), get("b", 10, 11)], steps_max=2)
    assert gives_up is not None
    assert gives_up.verdict is Verdict.UNKNOWN
    assert "2 steps" in gives_up.what


# Everything above in small, against all orders there are.


def explained(history: Sequence[Operation], initial: str | None = None) -> bool:
    """Try every order, and every choice of which writes without an answer happened."""
    made = [s for s in map(step, history) if s is not None]

    def search(left: frozenset[int], value: str | None) -> bool:
        must = [n for n in left if not made[n].optional]
        if not must:
            return True
        end = min(made[n].ended_s for n in must)
        return any(
            search(left - {n}, None if after is True else after)
            for n in left
            if made[n].began_s <= end and (after := performed(made[n], value)) is not False
        )

    return search(frozenset(range(len(made))), initial)


def performed(step: Step, value: str | None) -> str | bool:
    """False: not possible now. True: leaves nothing."""
    allowed = {
        What.READ: value == step.needs, What.NOT: value != step.needs, What.PUT: True, What.SWAP: value == step.needs,
        What.DELETE: value is not None,
    }[step.what]  # fmt: skip
    after = step.gives if step.writes else value
    return False if not allowed else True if after is None else after


@st.composite
def small(draw: st.DrawFn, kinds: Sequence[Kind], *, deletes: bool) -> list[Operation]:
    """Any few operations, likely or not."""
    values: list[str | None] = ["a", "b", "c", "d"]
    written = iter(values)
    out: list[Operation] = []
    for _ in range(draw(st.integers(1, 7))):
        began = draw(st.integers(0, 12))
        ended, kind = began + draw(st.integers(0, 5)), draw(st.sampled_from(kinds))
        known = draw(st.sampled_from([*values[:3], None]))
        if kind == "get":
            out.append(get(known, began, ended))
        elif kind == "delete":
            out.append(
                delete(began, ended, draw(st.sampled_from([204, 204, 404, LOST])), draw(st.sampled_from([None, known])))
            )
        elif (value := next(written, None)) is not None:
            status = draw(st.sampled_from([204, 204, 204, LOST, 412] if deletes else [204, 204, 204, LOST]))
            out.append(
                put(value, began, ended, 204 if status == 412 else status)
                if kind == "put"
                else swap(known, value, began, ended, status)
            )
    return out


@settings(max_examples=1500, deadline=None)
@given(small(["put", "get", "get", "put_if_match"], deletes=False), st.sampled_from([None, None, "z"]))
def test_zones_agree_with_all_orders(history: list[Operation], initial: str | None) -> None:
    good = True
    try:
        made = register(history, initial)
        assert clusters.exact(made)
        clusters.compare(made)
    except Contradiction:
        good = False
    assert good == explained(history, initial)
    if good:
        assert Search(made, 10**6).run() is None, "and the search agrees"


@settings(max_examples=3000, deadline=None)
@given(
    small(["put", "get", "get", "put_if_match", "delete", "delete"], deletes=True), st.sampled_from([None, None, "z"])
)
def test_the_search_agrees_with_all_orders(history: list[Operation], initial: str | None) -> None:
    found = judge_key("k", history, initial)
    assert (found is None) == explained(history, initial)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0, 0.4))
def test_what_a_real_register_did_passes(seed: int, clients: int, lost: float) -> None:
    assert judge_key("k", Atomic(random.Random(seed), clients=clients, lost=lost).history(80)) is None  # noqa: S311


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_a_read_that_is_changed_in_a_real_history_is_judged_as_by_all_orders(seed: int) -> None:
    source = random.Random(seed)  # noqa: S311
    history = Atomic(source, clients=3, lost=0.2).history(9)
    reads = [n for n, o in enumerate(history) if o.kind == "get" and o.done]
    values = [o.value for o in history if o.value]
    if reads and values:
        at = source.choice(reads)
        history[at] = replace(history[at], value=source.choice(values), status=200)
        assert (judge_key("k", history) is None) == explained(history)


def many(seed: int) -> Iterator[Operation]:
    source = random.Random(seed)  # noqa: S311
    for key in range(40):
        yield from (replace(o, key=f"k{key}") for o in Atomic(source, clients=8, lost=0.03).history(1000))


def test_forty_thousand_operations_are_judged_in_seconds() -> None:
    history = list(many(1))
    began = time.process_time()
    assert linearizable(history) == []
    assert time.process_time() - began < 20, "200,000 take about five times as long as these 40,000"
