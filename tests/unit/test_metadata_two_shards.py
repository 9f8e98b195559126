"""mkdir and rmdir over two shards, interleaved at every step, some dying on the way: what must hold in every state."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobula.metadata import two_shards as two
from mobula.metadata.model import Kind
from mobula.metadata.two_shards import Plan, Row, State, Step


class NotEmpty(Exception):
    """The directory has children."""


@dataclass
class Shards:
    """One path: its row with its children, and its entry, each step as one transaction (as the SQL functions do it)."""

    row: Row | None = None
    entry: int | None = None
    children: int = 0
    newest: int = 0
    history: list[str] = field(default_factory=list)

    def answer(self, step: Step) -> object:  # noqa: PLR0912 (one case a step)
        match step:
            case two.Begin():
                if self.row is None:
                    self.newest += 1
                    self.row = Row(self.newest, State.CREATING)
                return self.row
            case two.Activate(n):
                if self.row == Row(n, State.CREATING):
                    self.row = Row(n, State.ACTIVE)
                return self.row == Row(n, State.ACTIVE)
            case two.BeginRemoval():
                if self.children:
                    raise NotEmpty
                if self.row is None:
                    return None
                self.row = Row(self.row.incarnation, State.DELETING)
                return self.row.incarnation
            case two.Finish(n, state):
                if self.row == Row(n, state):
                    self.row = None
                return None
            case two.Look():
                return None if self.entry is None else Kind.DIRECTORY
            case two.Put(n, insert):
                if (self.entry or 0) > n or (not insert and self.entry != n):
                    return False
                self.entry = n
                return True
            case two.Adopt(n):
                if self.entry is not None and self.entry < n:
                    self.entry = n
                return self.entry == n
            case two.Drop(n):
                there = self.entry is not None and self.entry <= n
                if there:
                    self.entry = None
                return there

    def add_child(self) -> bool:
        """A put below the path, as one transaction on the children's shard."""
        if self.row is None or self.row.state is not State.ACTIVE:
            return False
        self.children += 1
        return True

    def check(self) -> None:
        """An active row's entry names it; children lie in an active directory."""
        if self.row is not None and self.row.state is State.ACTIVE:
            assert self.entry == self.row.incarnation
        if self.children:
            assert self.row is not None
            assert self.row.state is State.ACTIVE


def run(shards: Shards, plan: Plan) -> bool:
    """The plan to its end, alone."""
    answer: object = None
    for _ in range(50):
        try:
            answer = shards.answer(plan.send(answer))
        except StopIteration as end:
            return bool(end.value)
        shards.check()
    raise AssertionError("the plan does not end")


def test_a_directory_is_made_found_and_removed() -> None:
    shards = Shards()
    assert run(shards, two.make())
    assert shards == Shards(Row(1, State.ACTIVE), 1, newest=1)
    assert run(shards, two.make())
    assert run(shards, two.exist())
    assert run(shards, two.remove())
    assert (shards.row, shards.entry) == (None, None)
    assert not run(shards, two.remove())
    assert not run(shards, two.exist())


def test_a_directory_with_children_stays() -> None:
    shards = Shards()
    run(shards, two.make())
    assert shards.add_child()
    with pytest.raises(NotEmpty):
        run(shards, two.remove())
    assert run(shards, two.exist())


@pytest.mark.parametrize("steps", range(1, 4))
@pytest.mark.parametrize("kind", ["make", "remove"])
def test_whoever_dies_leaves_a_state_that_the_next_one_finishes(steps: int, kind: str) -> None:
    for follower in (two.make, two.remove, two.exist):
        shards = Shards()
        if kind == "remove":
            run(shards, two.make())
        dying: Plan = two.make() if kind == "make" else two.remove()
        answer: object = None
        for _ in range(steps):
            try:
                answer = shards.answer(dying.send(answer))
            except StopIteration:
                break
        run(shards, follower())
        row = shards.row
        if row is not None and row.state is not State.ACTIVE:
            run(shards, two.sweep(row))
        assert (shards.row is None) == (shards.entry is None)


PLANS = {"make": two.make, "remove": two.remove, "exist": two.exist}


@settings(max_examples=600)
@given(
    kinds=st.lists(st.sampled_from(["make", "remove", "exist", "sweep", "put"]), min_size=2, max_size=6),
    turns=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60),
)
def test_however_they_interleave_and_die_an_active_directory_has_its_entry(
    kinds: list[str], turns: list[tuple[int, bool]]
) -> None:
    shards = Shards()
    plans: list[Plan | None] = [PLANS[kind]() if kind in PLANS else None for kind in kinds]
    waiting: list[object] = [None] * len(plans)
    for who, dies in turns:
        n = who % len(plans)
        plan = plans[n]
        if kinds[n] == "put":
            if shards.children:
                shards.children = 0
            else:
                shards.add_child()
        elif kinds[n] == "sweep" and plan is None and shards.row is not None and shards.row.state is not State.ACTIVE:
            plans[n] = two.sweep(shards.row)
        elif plan is not None and dies and who % 3 == 0:
            plans[n], waiting[n] = (PLANS[kinds[n]]() if kinds[n] in PLANS else None), None
        elif plan is not None:
            try:
                waiting[n] = shards.answer(plan.send(waiting[n]))
            except StopIteration as end:
                shards.history.append(f"{kinds[n]} {end.value}")
                plans[n], waiting[n] = (PLANS[kinds[n]]() if kinds[n] in PLANS else None), None
            except NotEmpty:
                plans[n], waiting[n] = PLANS[kinds[n]](), None
        shards.check()
    shards.children = 0
    # Whatever is left: it can be removed, made, and removed again.
    run(shards, two.remove())
    assert (shards.row, shards.entry) == (None, None)
    assert run(shards, two.make())
    assert shards.add_child()
