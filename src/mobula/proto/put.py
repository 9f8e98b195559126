"""The PUT of an object as a state machine: events in, effects out, no I/O.

    OPENING    the servers of one group are asked; one that refuses moves the whole PUT to the next group (bounded tries)
    STREAMING  all have said yes: the client may send; a copy that fails now fails the PUT (its bytes are gone)
    STORING    the body has ended: every copy must be reported stored, with the size and MD5 that we counted
    COMMITTING copies first, metadata last and once
    DONE       replied

Invariant (tested with every interruption): `Reply` of success comes only after `wanted` copies in that many servers of one group are stored
with equal size and MD5, and after `Commit` has been answered. Whatever ends otherwise leaves at most files that no entry names.
Hence no `Abort` after `Commit`, unless the commit is known to be refused: the entry may be there already, or come to be, and it names
the copies.

Every server that was asked is told to abort when its group is given up or the PUT fails, whether it has answered or not; an event of a
server outside the present group is the driver's mistake, as it has to drop what it hears of servers that it was told to abort.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mobula.core.groups import Group, StorageServer


class State(enum.StrEnum):
    OPENING = "opening"
    STREAMING = "streaming"
    STORING = "storing"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Open:
    """Ask these servers to take a copy each."""

    group: Group
    servers: tuple[StorageServer, ...]


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the client send its body, to all copies at once."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop what the servers have of this PUT."""

    servers: tuple[StorageServer, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Write the entry, under the epoch of this group."""

    group: Group


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the client; `failure` None: it is stored."""

    failure: str | None = None


Effect = Open | Accept | Abort | Commit | Reply


class WrongEvent(RuntimeError):
    """An event that can't happen in this state: the driver is wrong."""


@dataclass(slots=True)
class Put:
    """One PUT of `wanted` copies; `groups` are tried in their order, at most `tries` of them, no server twice that would not."""

    wanted: int
    groups: Iterable[Group]
    tries: int = 3
    state: State = State.OPENING
    group: Group | None = None
    opened: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    size_bytes: int = -1
    md5: bytes = b""
    why: str = "no group of storage servers is available"
    _groups: Iterator[Group] = field(init=False)

    def __post_init__(self) -> None:
        self._groups = iter(self.groups)

    @property
    def servers(self) -> tuple[StorageServer, ...]:
        """Who takes the copies."""
        return self.group.servers[: self.wanted] if self.group else ()

    def begin(self) -> list[Effect]:
        """The first effects; once."""
        self._must_be(State.OPENING)
        if self.group is not None:
            raise WrongEvent("begun before")
        return self._next_group()

    def _next_group(self) -> list[Effect]:
        self.opened.clear()
        self.group = None
        while self.tries > 0 and (group := next(self._groups, None)) is not None:
            servers = group.servers[: self.wanted]
            if len(servers) == self.wanted and self.refused.isdisjoint(s.id for s in servers):
                self.tries -= 1
                self.group = group
                return [Open(group, servers)]
        return self._fail(self.why)

    def copy_opened(self, server: str) -> list[Effect]:
        """A server is ready to take its copy."""
        self._must_be(State.OPENING, server)
        self.opened.add(server)
        if self.opened == {s.id for s in self.servers}:
            self.state = State.STREAMING
            return [Accept()]
        return []

    def copy_refused(self, server: str, why: str) -> list[Effect]:
        """A server won't or can't take a copy, and no byte has been taken from the client yet: another group."""
        self._must_be(State.OPENING, server)
        self.why = f"{server}: {why}"
        self.refused.add(server)
        asked = tuple(s for s in self.servers if s.id != server)
        return [*([Abort(asked)] if asked else []), *self._next_group()]

    def body_ended(self, size_bytes: int, md5: bytes) -> list[Effect]:
        """The client has sent everything: so much, with this MD5 (ours, or that of one of several copies: all must have it)."""
        self._must_be(State.STREAMING)
        self.size_bytes, self.md5, self.state = size_bytes, md5, State.STORING
        return []

    def copy_stored(self, server: str, size_bytes: int, md5: bytes) -> list[Effect]:
        """A server has the copy on disk, and says its size and MD5."""
        self._must_be(State.STORING, server)
        if (size_bytes, md5) != (self.size_bytes, self.md5):
            return self._fail(
                f"{server} stored {size_bytes} bytes with MD5 {md5.hex()}, {self.size_bytes} with {self.md5.hex()} were sent"
            )
        self.stored.add(server)
        if self.stored != {s.id for s in self.servers} or self.group is None:
            return []
        self.state = State.COMMITTING
        return [Commit(self.group)]

    def copy_failed(self, server: str, why: str) -> list[Effect]:
        """A copy was lost while or after bytes flowed: the PUT fails."""
        self._must_be(State.STORING if self.state == State.STORING else State.STREAMING, server)
        return self._fail(f"{server}: {why}")

    def abandoned(self, why: str) -> list[Effect]:
        """The client went away, what it sent is not what it said, or the commit was not answered."""
        return [] if self.state in {State.DONE, State.FAILED} else self._fail(why)

    def committed(self) -> list[Effect]:
        """The metadata tier has the entry."""
        self._must_be(State.COMMITTING)
        self.state = State.DONE
        return [Reply()]

    def commit_refused(self, why: str) -> list[Effect]:
        """The metadata tier has said that it did not write the entry, and never will."""
        self._must_be(State.COMMITTING)
        self.state, self.why = State.FAILED, why
        return [Abort(self.servers), Reply(why)]

    def _fail(self, why: str) -> list[Effect]:
        servers = self.servers if self.state != State.COMMITTING else ()
        self.state, self.why = State.FAILED, why
        return [*([Abort(servers)] if servers else []), Reply(why)]

    def _must_be(self, state: State, server: str | None = None) -> None:
        if self.state != state:
            raise WrongEvent(f"expected {state}, is {self.state}")
        if server is not None and server not in {s.id for s in self.servers}:
            raise WrongEvent(f"{server} was not asked for a copy")
