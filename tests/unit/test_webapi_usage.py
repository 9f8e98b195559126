"""What a webapi counts of requests, and how shards come to know of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mobula.core.clock import ManualClock
from mobula.core.hours import hour_of
from mobula.metadata.metering import Counted
from mobula.metadata.model import OutcomeUnknown, Unavailable
from mobula.webapi.usage import KEPT_HOURS, Bill, RequestCounts

ANN, BOB = Bill(uuid.UUID(int=1)), Bill(uuid.UUID(int=2))


@dataclass
class Shards:
    """What metering keeps of requests: of each process the last word; `away` answer nothing, what `forgetful` ones take nobody hears of."""

    rows: dict[tuple[uuid.UUID, uuid.UUID, int], Counted] = field(default_factory=dict)
    away: set[int] = field(default_factory=set)
    forgetful: set[int] = field(default_factory=set)

    def shard_of(self, account: uuid.UUID) -> int:
        return account.int

    async def note_requests(self, shard: int, process: uuid.UUID, counts: Sequence[Counted]) -> None:
        if shard in self.away:
            raise Unavailable(f"shard {shard}")
        for count in counts:
            assert count.account.int == shard
            before = self.rows.get((process, count.account, count.hour))
            if before is None or before.total < count.total:
                self.rows[process, count.account, count.hour] = count
        if shard in self.forgetful:
            raise OutcomeUnknown(f"shard {shard}")

    def total(self, bill: Bill) -> int:
        return sum(count.total for count in self.rows.values() if count.account == bill.account)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def get(counts: RequestCounts, bill: Bill, status: int = 200) -> None:
    counts.count(bill, "GET", status, bytes_in=1, bytes_out=10)


async def test_requests_are_counted_by_account_method_and_hour(clock: ManualClock) -> None:
    counts, shards = RequestCounts(clock), Shards()
    get(counts, ANN)
    counts.count(ANN, "PUT", 204, bytes_in=5, bytes_out=0)
    get(counts, BOB, 404)
    clock.advance(3600)
    get(counts, ANN)
    await counts.hand_over(shards)
    hour = hour_of(clock.now_s())
    assert sorted(((c.account.int, hour - c.hour, dict(c.methods), c.bytes_in, c.bytes_out) for c in shards.rows.values()), key=str) == [
        (1, 0, {"GET": 1}, 1, 10), (1, 1, {"GET": 1, "PUT": 1}, 6, 10), (2, 1, {"GET": 1}, 1, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("status", [0, 401, 403, 500, 503])
def test_what_was_refused_or_could_not_be_done_is_not_counted(clock: ManualClock, status: int) -> None:
    counts = RequestCounts(clock)
    get(counts, ANN, status)
    get(counts, Bill())
    assert counts.changed() == []


async def test_what_a_shard_does_not_take_or_is_silent_about_is_said_again_and_counts_once(clock: ManualClock) -> None:
    counts, shards = RequestCounts(clock), Shards(away={1}, forgetful={2})
    get(counts, ANN)
    get(counts, BOB)
    await counts.hand_over(shards)
    assert (shards.total(ANN), shards.total(BOB), len(counts.changed())) == (0, 1, 2)
    get(counts, BOB)
    shards.away.clear()
    shards.forgetful.clear()
    for _ in range(2):
        await counts.hand_over(shards)
    assert (shards.total(ANN), shards.total(BOB), counts.changed()) == (1, 2, [])


def test_what_comes_while_counts_are_on_their_way_is_said_the_next_time(clock: ManualClock) -> None:
    counts = RequestCounts(clock)
    get(counts, ANN)
    sent = counts.changed()
    get(counts, ANN)
    counts.said(sent)
    assert [count.total for count in counts.changed()] == [2]


async def test_memory_holds_the_accounts_of_two_hours_and_what_nobody_has_taken(clock: ManualClock) -> None:
    counts, shards = RequestCounts(clock), Shards(away={2})
    get(counts, ANN)
    get(counts, BOB)
    for hours, left in ((1, 2), (1, 1), (KEPT_HOURS - 2, 1), (1, 0)):
        clock.advance(3600 * hours)
        await counts.hand_over(shards)
        assert len(counts._tallies) == left
