from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mobula.core.groups import Group, StorageServer
from mobula.proto.put import Abort, Accept, Commit, Effect, Open, Put, Reply, State, WrongEvent

SIZE, MD5, OTHER = 5, b"m" * 16, b"x" * 16


def group(number: int, *names: str) -> Group:
    return Group(number, 1, tuple(StorageServer(name, name, "192.0.2.1", 1) for name in names))


FIRST, SECOND = group(1, "a", "b", "c"), group(2, "d", "e", "f")
TWO = FIRST.servers[:2]

# The events of a PUT of two copies that succeeds, and the effects that each has.
SUCCESS: list[tuple[Callable[[Put], list[Effect]], list[Effect]]] = [
    (lambda put: put.begin(), [Open(FIRST, TWO)]),
    (lambda put: put.copy_opened("b"), []),
    (lambda put: put.copy_opened("a"), [Accept()]),
    (lambda put: put.body_ended(SIZE, MD5), []),
    (lambda put: put.copy_stored("a", SIZE, MD5), []),
    (lambda put: put.copy_stored("b", SIZE, MD5), [Commit(FIRST)]),
    (lambda put: put.committed(), [Reply()]),
]


def after(events: int) -> Put:
    """A PUT of two copies with so many events of `SUCCESS` behind it."""
    put = Put(2, [FIRST, SECOND])
    for event, _ in SUCCESS[:events]:
        event(put)
    return put


def test_a_put_opens_its_copies_takes_the_body_commits_and_replies() -> None:
    put = Put(2, [FIRST, SECOND])
    assert [event(put) for event, _ in SUCCESS] == [effects for _, effects in SUCCESS]
    assert put.state == State.DONE


@pytest.mark.parametrize("events", range(len(SUCCESS)))
def test_an_interrupted_put_drops_its_copies_unless_it_may_be_committed(events: int) -> None:
    """After `Commit` the entry may be there, and names the copies."""
    may_drop = 0 < events < 6
    assert after(events).abandoned("gone") == [*([Abort(TWO)] if may_drop else []), Reply("gone")]


def test_a_refused_commit_drops_the_copies_as_no_entry_names_them() -> None:
    assert after(6).commit_refused("the directory is gone") == [Abort(TWO), Reply("the directory is gone")]
    with pytest.raises(WrongEvent):
        after(5).commit_refused("too early")


def test_what_has_ended_stays_as_it_ended() -> None:
    put = after(len(SUCCESS))
    assert put.abandoned("gone") == []
    assert put.state == State.DONE
    failed = after(3)
    failed.abandoned("gone")
    assert failed.abandoned("gone again") == []
    assert (failed.state, failed.why) == (State.FAILED, "gone")


@pytest.mark.parametrize("events", [1, 2])
def test_a_server_that_refuses_moves_the_put_to_the_next_group(events: int) -> None:
    """The other server is told so whether it has answered or not."""
    assert after(events).copy_refused("a", "no room") == [Abort(TWO[1:]), Open(SECOND, SECOND.servers[:2])]


def test_a_server_of_two_groups_is_asked_again_in_the_second() -> None:
    put = Put(2, [FIRST, group(4, "c", "b")])
    put.begin()
    put.copy_opened("b")
    put.copy_refused("a", "no room")
    assert put.copy_opened("c") == []
    assert put.copy_opened("b") == [Accept()]


def test_the_only_copy_refused_leaves_nothing_to_drop() -> None:
    put = Put(1, [FIRST, SECOND])
    put.begin()
    assert put.copy_refused("a", "no room") == [Open(SECOND, SECOND.servers[:1])]


def test_a_server_that_refused_is_not_asked_again_in_another_group() -> None:
    again, other = group(7, "a", "x"), group(8, "x", "y")
    put = Put(2, [FIRST, again, other], tries=2)
    put.begin()
    assert put.copy_refused("a", "no answer in time") == [Abort(TWO[1:]), Open(other, other.servers)]


def test_a_put_gives_up_after_its_tries_or_its_groups_and_says_what_the_last_server_said() -> None:
    for put in (Put(2, [FIRST, SECOND], tries=1), Put(2, [FIRST])):
        put.begin()
        assert put.copy_refused("a", "no room") == [Abort(TWO[1:]), Reply("a: no room")]


def test_a_group_with_too_few_servers_is_passed_over() -> None:
    assert Put(2, [group(3, "x"), SECOND]).begin() == [Open(SECOND, SECOND.servers[:2])]
    for put in (Put(2, []), Put(2, [group(3, "x")]), Put(2, [FIRST], tries=0)):
        assert put.begin() == [Reply("no group of storage servers is available")]


@pytest.mark.parametrize("events", [3, 4, 5])
def test_a_copy_that_is_lost_fails_the_put(events: int) -> None:
    """Its bytes are gone."""
    assert after(events).copy_failed("a", "broken pipe") == [Abort(TWO), Reply("a: broken pipe")]


@pytest.mark.parametrize(("size", "md5"), [(SIZE - 1, MD5), (SIZE, OTHER), (0, b"")])
@pytest.mark.parametrize("events", [4, 5])
def test_a_copy_that_is_not_what_was_sent_fails_the_put(events: int, size: int, md5: bytes) -> None:
    abort, reply = after(events).copy_stored("b", size, md5)
    assert abort == Abort(TWO)
    assert isinstance(reply, Reply)
    assert (reply.failure or "").startswith(f"b stored {size} bytes with MD5 {md5.hex()}, 5 with {MD5.hex()} were sent")


class EveryOrder(RuleBasedStateMachine):
    """Any event in any order, against a plain account of which servers hold what."""

    @initialize(
        wanted=st.integers(1, 3), tries=st.integers(1, 4), sizes=st.lists(st.sampled_from([4, 3, 3, 1]), max_size=5)
    )
    def start(self, wanted: int, tries: int, sizes: list[int]) -> None:
        groups = [group(i, *(f"s{(i + n) % 4}" for n in range(size))) for i, size in enumerate(sizes)]
        self.wanted, self.tries = wanted, tries
        self.put = Put(wanted, groups, tries)
        self.present: Group | None = None
        self.holding: set[str] = set()  # asked, and neither refused nor told to abort
        self.ready: set[str] = set()
        self.stored: set[str] = set()
        self.opens = 0
        self.accepted = self.body_taken = self.committing = self.committed = False
        self.replies: list[Reply] = []

    def see(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert not self.replies, "nothing after the reply"
            match effect:
                case Open(found, servers):
                    assert not self.holding, "what an earlier group holds is dropped first"
                    assert servers == found.servers[: self.wanted]
                    self.present, self.holding, self.ready = found, {s.id for s in servers}, set()
                    self.opens += 1
                case Accept():
                    assert not self.accepted
                    assert self.ready == self.holding
                    self.accepted = True
                case Abort(servers):
                    assert not self.committing, "the entry may name the copies"
                    assert {s.id for s in servers} == self.holding, "all that were asked, and no others"
                    self.holding = set()
                case Commit(found):
                    assert not self.committing
                    assert found == self.present
                    assert len(self.stored) == self.wanted
                    assert self.stored == self.holding
                    self.committing = True
                case Reply(failure):
                    self.replies.append(effect)
                    if failure is None:
                        assert self.committed
                        assert self.stored == self.holding
                    else:
                        assert self.committing or not self.holding, "failures leave no copy open"

    def must_be_wrong(self, event: Callable[[], list[Effect]]) -> None:
        before = repr(self.put)
        with pytest.raises(WrongEvent):
            event()
        assert repr(self.put) == before

    def opening(self, server: str) -> bool:
        return not self.accepted and not self.replies and server in self.holding

    def flowing(self, server: str) -> bool:
        return self.accepted and not self.committing and not self.replies and server in self.holding

    servers = st.integers(0, 4).map("s{}".format)

    @precondition(lambda self: not self.opens and not self.replies)
    @rule()
    def begin(self) -> None:
        self.see(self.put.begin())

    @precondition(lambda self: self.opens or self.replies)
    @rule()
    def begin_again(self) -> None:
        self.must_be_wrong(self.put.begin)

    @rule(server=servers)
    def copy_opened(self, server: str) -> None:
        if not self.opening(server):
            self.must_be_wrong(lambda: self.put.copy_opened(server))
            return
        self.ready.add(server)
        self.see(self.put.copy_opened(server))

    @precondition(lambda self: self.holding and not self.accepted and not self.replies)
    @rule()
    def all_copies_open(self) -> None:
        for server in sorted(self.holding - self.ready):
            self.copy_opened(server)
        assert self.accepted

    @rule(server=servers)
    def copy_refused(self, server: str) -> None:
        if not self.opening(server):
            self.must_be_wrong(lambda: self.put.copy_refused(server, "no"))
            return
        self.holding.discard(server)
        self.see(self.put.copy_refused(server, "no"))

    @rule()
    def body_ended(self) -> None:
        if not self.accepted or self.body_taken or self.replies:
            self.must_be_wrong(lambda: self.put.body_ended(SIZE, MD5))
            return
        self.body_taken = True
        self.see(self.put.body_ended(SIZE, MD5))

    @rule(
        server=servers, found=st.sampled_from([(SIZE, MD5), (SIZE, MD5), (SIZE, MD5), (SIZE, OTHER), (SIZE + 1, MD5)])
    )
    def copy_stored(self, server: str, found: tuple[int, bytes]) -> None:
        if not (self.body_taken and self.flowing(server)):
            self.must_be_wrong(lambda: self.put.copy_stored(server, *found))
            return
        if found == (SIZE, MD5):
            self.stored.add(server)
        self.see(self.put.copy_stored(server, *found))
        assert (found == (SIZE, MD5)) is not bool(self.replies)

    @precondition(lambda self: self.accepted and not self.committing and not self.replies)
    @rule()
    def all_copies_stored(self) -> None:
        if not self.body_taken:
            self.body_ended()
        for server in sorted(self.holding - self.stored):
            self.copy_stored(server, (SIZE, MD5))
        assert self.committing

    @precondition(lambda self: self.body_taken and not self.committing and not self.replies)
    @rule(found=st.sampled_from([(SIZE, OTHER), (SIZE + 1, MD5)]))
    def a_copy_is_not_what_was_sent(self, found: tuple[int, bytes]) -> None:
        self.copy_stored(max(self.holding), found)

    @rule(server=servers)
    def copy_failed(self, server: str) -> None:
        if not self.flowing(server):
            self.must_be_wrong(lambda: self.put.copy_failed(server, "lost"))
            return
        self.see(self.put.copy_failed(server, "lost"))
        assert self.replies

    @precondition(lambda self: self.opens or self.tries < 4)
    @rule(now=st.sampled_from([False, False, True]))
    def abandoned(self, now: bool) -> None:
        if not now:
            return
        over = bool(self.replies)
        effects = self.put.abandoned("gone")
        assert not (over and effects)
        self.see(effects)
        assert self.replies

    @rule()
    def commit(self) -> None:
        if not self.committing or self.replies:
            self.must_be_wrong(self.put.committed)
            return
        self.committed = True
        self.see(self.put.committed())
        assert self.replies == [Reply()]

    @invariant()
    def it_ends_once_and_in_bounds(self) -> None:
        assert len(self.replies) <= 1
        assert self.opens <= self.tries
        assert bool(self.replies) == (self.put.state in {State.DONE, State.FAILED})


EveryOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=20)
TestEveryOrder = EveryOrder.TestCase
