"""mkdir and rmdir over two shards, interleaved at every step, some dying on the way: what must hold in every state."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobula.metadata import two_shards as two
from mobula.metadata.model import DirectoryFull, DirectoryNotEmpty, Kind, Refusal
from mobula.metadata.two_shards import Plan, Row, State, Step


@dataclass
class Shards:
    """One path: its row with its children, and its entry, each step as one transaction (as the SQL functions do it)."""

    row: Row | None = None
    entry: int | None = None
    children: int = 0
    newest: int = 0
    full: bool = False
    """the parent takes no new name"""
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
                    raise DirectoryNotEmpty
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
                if self.full and self.entry is None and insert:
                    raise DirectoryFull
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


class Run:
    """A plan that is being carried out, a step at a time."""

    def __init__(self, shards: Shards, plan: Plan) -> None:
        self.shards = shards
        self.plan = plan
        self.step: Step | None = None
        self.result: bool | Refusal | None = None
        """what came of it, None until it ends"""

    def go(self) -> None:
        """One transaction, and what the plan makes of its answer."""
        try:
            if self.step is None:
                self.step = next(self.plan)
            try:
                answer = self.shards.answer(self.step)
            except Refusal as error:
                self.step = self.plan.throw(error)
            else:
                self.step = self.plan.send(answer)
        except StopIteration as end:
            self.result = bool(end.value)
        except Refusal as error:
            self.result = error
        self.shards.check()

    def finish(self) -> bool:
        """To its end, alone. Raises Refusal."""
        for _ in range(50):
            if self.result is not None:
                break
            self.go()
        else:
            raise AssertionError("the plan does not end")
        if isinstance(self.result, Refusal):
            raise self.result
        return bool(self.result)


def run(shards: Shards, plan: Plan) -> bool:
    """The plan to its end, alone. Raises Refusal."""
    return Run(shards, plan).finish()


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
    with pytest.raises(DirectoryNotEmpty):
        run(shards, two.remove())
    assert run(shards, two.exist())


@pytest.mark.parametrize("steps", range(1, 4))
@pytest.mark.parametrize("kind", ["make", "remove"])
def test_whoever_dies_leaves_a_state_that_the_next_one_finishes(steps: int, kind: str) -> None:
    for follower in (two.make, two.remove, two.exist):
        shards = Shards()
        if kind == "remove":
            run(shards, two.make())
        dying = Run(shards, two.make() if kind == "make" else two.remove())
        for _ in range(steps):
            if dying.result is None:
                dying.go()
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
    runs = [Run(shards, PLANS[kind]()) if kind in PLANS else None for kind in kinds]
    for who, dies in turns:
        n = who % len(runs)
        current = runs[n]
        if kinds[n] == "put":
            if shards.children:
                shards.children = 0
            else:
                shards.add_child()
        elif kinds[n] == "sweep" and current is None:
            if shards.row is not None and shards.row.state is not State.ACTIVE:
                runs[n] = Run(shards, two.sweep(shards.row))
        elif current is not None:
            died = dies and who % 3 == 0
            if not died:
                current.go()
            if died or current.result is not None:
                shards.history.append(f"{kinds[n]} {current.result}")
                runs[n] = Run(shards, PLANS[kinds[n]]()) if kinds[n] in PLANS else None
        shards.check()
    shards.children = 0
    # Whatever is left: it can be removed, made, and removed again.
    run(shards, two.remove())
    assert (shards.row, shards.entry) == (None, None)
    assert run(shards, two.make())
    assert shards.add_child()


@settings(max_examples=600)
@given(
    kinds=st.lists(st.sampled_from(sorted(PLANS)), min_size=2, max_size=4),
    turns=st.lists(st.integers(0, 3), max_size=60),
    there=st.booleans(),
    full=st.booleans(),
)
def test_however_they_interleave_who_does_not_die_leaves_nothing_half_done(
    kinds: list[str], turns: list[int], there: bool, full: bool
) -> None:
    shards = Shards()
    if there:
        run(shards, two.make())
    shards.full = full
    runs = [Run(shards, PLANS[kind]()) for kind in kinds]
    for who in turns:
        current = runs[who % len(runs)]
        if current.result is None:
            current.go()
    for left in runs:
        with contextlib.suppress(Refusal):
            left.finish()
    number = shards.entry
    assert shards.row == (None if number is None else Row(number, State.ACTIVE))


def test_who_looks_for_a_directory_while_it_is_removed_leaves_no_row() -> None:
    shards = Shards()
    run(shards, two.make())
    looking = Run(shards, two.exist())
    looking.go()  # there is an entry
    assert run(shards, two.remove())
    assert not looking.finish()
    assert shards.row is None


def test_a_mkdir_that_the_parent_refuses_leaves_no_row() -> None:
    shards = Shards(full=True)
    with pytest.raises(DirectoryFull):
        run(shards, two.make())
    assert shards.row is None
