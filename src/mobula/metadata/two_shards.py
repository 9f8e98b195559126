"""mkdir and rmdir over two shards without two-phase commit: which step comes next. Pure; `store` sends the steps.

A directory is an *entry* on its parent's shard (the truth: it exists) and a *row* on the shard of its own children. Each row of a path
has a higher *incarnation* than all earlier ones, and the entry names the incarnation that it belongs to.

    mkdir   row `creating`  ->  entry names it  ->  row `active`
    rmdir   row `deleting`  ->  entry dropped   ->  row dropped

Each step is one transaction on one shard and does nothing when it comes too late:

* a row becomes active only if it is still the same incarnation and not `deleting`;
* an entry is never given to an earlier incarnation, and `drop` spares a later one;
* children are added only while the row is active, under a lock that `deleting` waits for.

So any number of these may run at once and any of them may die anywhere; a row is active only while the entry names it. Whoever meets
a half-made directory makes it (`exist`); whoever meets a half-removed one removes it. What nobody meets, the sweeper does.

Who does not die leaves nothing half-done: a row that turns out to have no entry goes again, be it one's own (the parent refused) or
made for an entry that an rmdir has dropped meanwhile (`exist`). A mkdir that was just about to name it notices, and begins anew.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from mobula.metadata.model import Kind, Refusal


class State(enum.StrEnum):
    CREATING = "creating"
    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Row:
    """A directory's own row."""

    incarnation: int
    state: State


@dataclass(frozen=True, slots=True)
class Begin:
    """Children's shard: the row, made as `creating` if there is none. Answer: Row, or None (it went just now)."""


@dataclass(frozen=True, slots=True)
class Activate:
    """Children's shard: make the row active. Answer: whether this incarnation is active now."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class BeginRemoval:
    """Children's shard: no child can come any more. Answer: the row's incarnation, None without a row. Raises if there are children."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Children's shard: drop the row if it is this incarnation in this state. Answer: None."""

    incarnation: int
    state: State


@dataclass(frozen=True, slots=True)
class Look:
    """Parent's shard: the kind of the entry. Answer: Kind or None."""


@dataclass(frozen=True, slots=True)
class Put:
    """Parent's shard: put the entry with the caller's headers; with `insert` False only where it names this incarnation already.

    Answer: False if a later incarnation has the entry, or there is none to update. Raises when the parent refuses.
    """

    incarnation: int
    insert: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """Parent's shard: give the entry, if there is one, to this incarnation. Answer: whether it names it now."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Parent's shard: drop the entry of this or an earlier incarnation. Answer: whether there was one."""

    incarnation: int


Step = Begin | Activate | BeginRemoval | Finish | Look | Put | Adopt | Drop
Plan = Generator[Step, Any, bool]
"""yields steps, is sent their answers (or thrown the `Refusal` that was one), returns whether the directory was (made, removed, there)"""


def make() -> Plan:
    """mkdir. Returns True."""
    while True:
        row: Row | None = yield Begin()
        if row is None:
            continue
        if row.state is State.DELETING:
            yield from _remove(row.incarnation)
            continue
        try:
            named: bool = yield Put(row.incarnation, insert=row.state is State.CREATING)
        except Refusal:
            yield Finish(row.incarnation, State.CREATING)
            raise
        if not named:
            continue
        if row.state is State.ACTIVE or (yield Activate(row.incarnation)):
            return True


def remove() -> Plan:
    """rmdir of an empty directory. Returns False if there is none."""
    while True:
        incarnation: int | None = yield BeginRemoval()
        if incarnation is not None:
            return (yield from _remove(incarnation))
        if not (yield from exist()) and (yield Look()) is not Kind.DIRECTORY:
            return False


def _remove(incarnation: int) -> Plan:
    dropped: bool = yield Drop(incarnation)
    yield Finish(incarnation, State.DELETING)
    return dropped


def exist() -> Plan:
    """Whether a directory that has no active row exists: if it has an entry and nobody is removing it, finish its mkdir."""
    begun: int | None = None
    while (yield Look()) is Kind.DIRECTORY:
        row: Row | None = yield Begin()
        if row is None:
            continue
        if row.state is not State.CREATING:
            return row.state is State.ACTIVE
        begun = row.incarnation
        if (yield Adopt(begun)) and (yield Activate(begun)):
            return True
        # The entry went, or a later incarnation has it, or the row is not ours to make any more: look again at which.
    if begun is not None:
        yield Finish(begun, State.CREATING)
    return False


def sweep(row: Row) -> Plan:
    """Finish what was left half-done. Returns whether the directory is there afterwards."""
    if row.state is State.DELETING:
        yield from _remove(row.incarnation)
        return False
    if (yield from exist()):
        return True
    yield Finish(row.incarnation, State.CREATING)
    return False
