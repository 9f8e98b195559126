"""Which shard holds what: every vnode exactly one, the same for every process and release."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.metadata import shard_map
from mobula.metadata.model import VNODES
from mobula.metadata.shard_map import ShardMap, ShardMapError, vnode_of


def document(**changes: object) -> bytes:
    return json.dumps({"epoch": 3, "vnodes": VNODES, "ranges": [[0, VNODES - 1, 1]]} | changes).encode()


@pytest.mark.parametrize(
    ("path", "vnode"),
    [("/930896af-bf8c-48d4-885c-6573a94b1853/stor", 1848), ("", 3289), ("/ü", 2085)],
)
def test_the_vnode_of_a_path_never_changes(path: str, vnode: int) -> None:
    assert vnode_of(path) == vnode


@given(st.integers(1, 64), st.integers(0, VNODES - 1))
def test_an_even_map_gives_every_vnode_to_one_of_its_shards(shards: int, vnode: int) -> None:
    made = shard_map.even(shards)
    assert made.shards == tuple(range(1, shards + 1))
    shard = made.shard_of(vnode)
    assert [s for first, last, s in made.ranges if first <= vnode <= last] == [shard]
    sizes = [last - first + 1 for first, last, _ in made.ranges]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 64))
def test_a_map_comes_back_as_it_was_written(shards: int) -> None:
    made = shard_map.even(shards)
    assert shard_map.decode(made.encode()) == made


def test_a_shard_may_have_several_ranges() -> None:
    made = ShardMap(5, ((0, 9, 2), (10, 99, 1), (100, VNODES - 1, 2)))
    assert made.shards == (1, 2)
    assert [made.shard_of(v) for v in (0, 9, 10, 99, 100, VNODES - 1)] == [2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no", "shard map: "),
        (document(vnodes=1024), "1024 vnodes"),
        (document(ranges=[]), "end at vnode -1"),
        (document(ranges=[[0, VNODES - 2, 1]]), f"end at vnode {VNODES - 2}"),
        (document(ranges=[[0, 9, 1], [11, VNODES - 1, 1]]), "begins at vnode 11, expected 10"),
        (document(ranges=[[0, 9, 1], [9, VNODES - 1, 1]]), "begins at vnode 9, expected 10"),
        (document(ranges=[[0, VNODES, 1]]), f"end at vnode {VNODES}"),
        (document(ranges=[[0, VNODES - 1]]), "length"),
        (document(more=1), "unknown field"),
    ],
)
def test_a_map_with_gaps_or_of_another_make_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ShardMapError, match=why):
        shard_map.decode(data)
