from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.jobs.board import Board, eligible
from mobula.metadata.jobs import Attempt, Task, Work

BIG, SMALL = uuid.UUID(int=1), uuid.UUID(int=2)
HOSTS = ("h1", "h2", "h3")


def task(number: int, job: uuid.UUID = BIG, phase: int = 0) -> Task:
    return Task(Attempt(job, number), Work(phase, f"/dap/stor/{number}"))


def board(*tasks: Task, hosts: tuple[str, ...] | None = None) -> Board:
    made = Board()
    for one in tasks:
        made.put(one, hosts)
    return made


def test_tasks_go_to_hosts_that_have_a_copy_in_the_order_in_which_they_came() -> None:
    made = board(*(task(n) for n in range(3)), hosts=("h1", "h2"))
    assert made.take("h3", 8, 0) == []
    assert made.take("h1", 2, 0) == [task(0)]
    assert made.take("h2", 8, 0) == [task(1), task(2)]
    assert len(made) == 0


def test_a_task_without_bytes_goes_to_anybody() -> None:
    assert board(task(1)).take("h9", 1, 0) == [task(1)]


def test_a_task_is_on_the_board_once() -> None:
    made = board(task(1), task(1), hosts=("h1", "h1"))
    assert made.take("h1", 8, 0) == [task(1)]
    assert made.take("h1", 8, 1) == []


@pytest.mark.parametrize(
    ("slots", "used", "got"), [(8, 0, 7), (8, 7, 0), (8, 6, 1), (1, 0, 1), (1, 1, 0), (100, 0, 88)]
)
def test_a_group_leaves_the_last_slots_of_a_host_to_others(slots: int, used: int, got: int) -> None:
    made = board(*(task(n) for n in range(200)))
    made.runs(task(999), "h1")
    assert len(made.take("h1", slots, used)) == got


def test_a_host_that_may_have_more_later_leaves_none_of_those_that_it_has_now() -> None:
    made = board(*(task(n) for n in range(200)))
    used = len(made.take("h1", 8, 0, 30))
    assert used == 8
    used += len(made.take("h1", 16, used, 30))
    assert used == 16
    assert len(made.take("h1", 30, used, 30)) == 11


def test_a_small_job_runs_at_once_beside_a_large_one() -> None:
    made = board(*(task(n) for n in range(500)))
    used = len(made.take("h1", 16, 0))
    assert used == 15
    for n in range(10):
        made.put(task(n, SMALL), None)
    assert [t.attempt.job for t in made.take("h1", 16, used)] == [SMALL]
    # And as slots get free, the small one has them.
    for n in range(4):
        made.over(Attempt(BIG, n))
    assert Counter(t.attempt.job for t in made.take("h1", 16, 12)) == {SMALL: 3}


def test_groups_share_by_what_they_have_running() -> None:
    made = board(*(task(n) for n in range(50)), *(task(n, SMALL) for n in range(50)))
    assert Counter(t.attempt.job for t in made.take("h1", 20, 0)) == {BIG: 9, SMALL: 9}


def test_what_is_over_counts_no_more_and_what_is_forgotten_is_not_handed_out() -> None:
    made = board(task(1), task(2), task(3, SMALL), task(4))
    made.take("h1", 4, 0)
    assert set(made.running("h1")) == {Attempt(BIG, 1), Attempt(SMALL, 3), Attempt(BIG, 2)}
    made.over(Attempt(BIG, 1))
    made.over(Attempt(BIG, 1))
    assert set(made.running("h1")) == {Attempt(SMALL, 3), Attempt(BIG, 2)}
    made.forget(BIG)
    assert made.take("h2", 4, 0) == []


@pytest.mark.parametrize(
    ("lost_on", "up", "found"),
    [
        ((), HOSTS, ["h1", "h2"]),
        (("h1",), HOSTS, ["h2"]),
        (("h1",), ("h1", "h3"), ["h1", "h2"]),
        (("h1", "h2"), HOSTS, ["h1", "h2"]),
    ],
)
def test_a_lost_task_is_tried_on_another_copy_first(
    lost_on: tuple[str, ...], up: tuple[str, ...], found: list[str]
) -> None:
    assert eligible(("h1", "h2"), lost_on, up) == found


@given(
    st.lists(st.tuples(st.sampled_from([BIG, SMALL]), st.integers(0, 1), st.sets(st.sampled_from(HOSTS))), max_size=30),
    st.lists(st.tuples(st.sampled_from(HOSTS), st.integers(1, 9), st.integers(0, 4)), max_size=30),
)
def test_nothing_is_lost_given_twice_or_given_to_who_has_no_copy(
    ready: list[tuple[uuid.UUID, int, set[str]]], asked: list[tuple[str, int, int]]
) -> None:
    made, may, got = Board(), {}, []
    for number, (job, phase, hosts) in enumerate(ready):
        one = task(number, job, phase)
        may[one.attempt] = hosts
        made.put(one, hosts or None)
    for host, slots, ends in asked:
        for attempt in made.running(host)[:ends]:
            made.over(attempt)
        used = len(made.running(host))
        taken = made.take(host, slots, used)
        assert used + len(taken) <= max(slots, used)
        assert all(not may[t.attempt] or host in may[t.attempt] for t in taken)
        got += [t.attempt for t in taken]
    assert len(set(got)) == len(got)
    assert len(got) + len(made) == len(ready)
