"""Placement groups from storage servers: a pure plan.

A group is an ordered list of servers; an object with n copies lies on the first n. The first three are in three AZs (as far as
there are three), so that two copies are in two AZs and three copies in three. Groups spread first, second and third places evenly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from mobula.metadata.model import StorageServer

GROUP_SERVERS_MAX = 6
"""copies per object at most"""
GROUPS_MAX = 512


def plan_groups(storages: Iterable[StorageServer]) -> list[tuple[StorageServer, ...]]:
    """All groups of a region, in the order of their ids (from 1). Deterministic: the same servers give the same groups.

    With three servers these are the six permutations; with many servers at most `GROUPS_MAX`, evenly spread.
    """
    by_az: dict[str, list[StorageServer]] = {}
    for server in sorted(storages, key=lambda s: s.id):
        by_az.setdefault(server.az, []).append(server)
    heads = [
        combination
        for azs in itertools.permutations(sorted(by_az), min(3, len(by_az)))
        for combination in itertools.product(*(by_az[az] for az in azs))
    ]
    step = max(1, -(-len(heads) // GROUPS_MAX))
    everyone = [server for servers in by_az.values() for server in servers]
    return [(*head, *_rest(everyone, head, turn)) for turn, head in enumerate(heads[::step])]


def _rest(everyone: Sequence[StorageServer], head: Sequence[StorageServer], turn: int) -> list[StorageServer]:
    """Who takes the fourth and later copies: the others, beginning at another one in each group."""
    others = [server for server in everyone if server not in head]
    if not others:
        return []
    start = turn % len(others)
    return (others[start:] + others[:start])[: GROUP_SERVERS_MAX - len(head)]
