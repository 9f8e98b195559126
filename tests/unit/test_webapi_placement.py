"""Which storage servers a webapi counts on, and what becomes of those that leave."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from mobula.core.errors import ApiError
from mobula.core.groups import Group, StorageServer
from mobula.webapi.placement import Room, StorageDirectory, choose
from mobula.wire.http_client import Address
from mobula.wire.storage_client import StorageCapacity, StorageClient, StorageUnavailable


class Storage:
    """In place of the storage client: some servers answer, the others are silent."""

    def __init__(self, *answering: Address) -> None:
        self.answering = answering
        self.dropped: list[Address] = []

    async def capacity(self, server: Address) -> StorageCapacity:
        if server not in self.answering:
            raise StorageUnavailable("no answer")
        return StorageCapacity(healthy=True, size_bytes=100, available_bytes=100)

    def drop(self, server: Address) -> None:
        self.dropped.append(server)


async def test_a_server_that_has_left_is_dropped_only_if_it_does_not_answer_any_more() -> None:
    gone, draining, here = (Address(f"10.0.0.{n}", 8060) for n in (1, 2, 3))
    storage = Storage(draining, here)
    directory = StorageDirectory(cast(StorageClient, storage))
    directory.on_change({"gone": gone, "draining": draining, "here": here})
    directory.on_change({"here": here})
    await asyncio.gather(*directory._looks)
    assert storage.dropped == [gone]
    directory.stop()


def room(available_bytes: int, *, healthy: bool = True) -> Room:
    return Room(StorageCapacity(healthy=healthy, size_bytes=1000, available_bytes=available_bytes))


def group(number: int, *servers: str) -> Group:
    return Group(number, 1, tuple(StorageServer(s, "a", "10.0.0.1", 8060) for s in servers))


PAIRS = [group(1, "a", "b"), group(2, "b", "c"), group(3, "a", "c")]


def first_choices(rooms: dict[str, Room], copies: int = 2) -> dict[int, int]:
    """How often each group comes first in 3,000 choices."""
    pick = random.Random(7)  # noqa: S311
    counts = {g.id: 0 for g in PAIRS}
    for _ in range(3000):
        counts[choose(PAIRS, rooms, copies, 1, pick)[0].id] += 1
    return counts


def test_groups_with_as_much_room_are_chosen_as_often() -> None:
    counts = first_choices({s: room(500) for s in "abc"})
    assert all(900 <= n <= 1100 for n in counts.values()), counts


def test_a_group_with_more_room_comes_first_unless_it_was_not_looked_at() -> None:
    # Group 2 is as full as its fuller server b, as is group 1; only group 3 has none of b.
    counts = first_choices({"a": room(900), "b": room(300), "c": room(900)})
    assert 1900 <= counts[3] <= 2100, counts


def test_servers_that_are_full_away_or_ill_are_in_no_choice() -> None:
    for b in (room(50), room(900, healthy=False)):
        rooms = {"a": room(900), "b": b, "c": room(900)}
        assert [g.id for g in choose(PAIRS, rooms, 2, 1, random.Random(1))] == [3]  # noqa: S311
    assert [g.id for g in choose(PAIRS, {"a": room(900), "c": room(900)}, 2, 1, random.Random(1))] == [3]  # noqa: S311


@pytest.mark.parametrize(
    ("rooms", "copies", "code"),
    [
        ({s: room(900) for s in "abc"}, 3, "NotEnoughSpace"),
        ({s: room(10) for s in "abc"}, 2, "NotEnoughSpace"),
        ({"a": room(900)}, 2, "ServiceUnavailable"),
        ({}, 1, "ServiceUnavailable"),
    ],
)
def test_without_a_group_it_is_said_whether_room_or_servers_are_missing(
    rooms: dict[str, Room], copies: int, code: str
) -> None:
    with pytest.raises(ApiError) as refused:
        choose(PAIRS, rooms, copies, 1, random.Random(1))  # noqa: S311
    assert refused.value.code == code
