"""Placement groups from storage servers: a pure plan.

A group is an ordered list of servers; an object with n copies lies on the first n. The first three are in three AZs (as far as
there are three), so that two copies are in two AZs and three copies in three. Groups spread first, second and third places evenly.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from mobula.metadata.model import Group, StorageServer

GROUP_SERVERS_MAX = 6
"""copies per object at most"""
GROUPS_MAX = 512
"""more only where not every server would be in one"""


def plan_groups(storages: Iterable[StorageServer]) -> list[tuple[StorageServer, ...]]:
    """All groups of a region, in the order of their ids (from 1). Deterministic: the same servers give the same groups.

    With three servers these are the six permutations; with many servers about `GROUPS_MAX`, in which each server takes every place.
    """
    by_az: dict[str, list[StorageServer]] = {}
    for server in sorted(storages, key=lambda s: s.id):
        by_az.setdefault(server.az, []).append(server)
    orders = list(itertools.permutations(sorted(by_az), min(3, len(by_az)))) if by_az else []
    heads = [head for azs in orders for head in _heads([by_az[az] for az in azs], GROUPS_MAX // len(orders))]
    everyone = [server for servers in by_az.values() for server in servers]
    return [(*head, *_rest(everyone, head, turn)) for turn, head in enumerate(heads)]


def merge_groups(standing: Sequence[Group], storages: Sequence[StorageServer]) -> list[Group]:
    """Groups after these servers have come: a standing group's objects lie where it says, so it keeps its servers in their order.

    It only learns new addresses of them, and servers for further copies at its end; either moves its epoch. Orders of first servers
    that no standing group has become new groups.
    """
    known = {server.id: server for server in storages}
    wanted = {_head(servers): servers for servers in plan_groups(storages)}
    merged = []
    for group in standing:
        kept = tuple(replace(known.get(s.id, s), generation=s.generation) for s in group.servers)
        more = [s for s in wanted.pop(_head(kept), ()) if s.id not in {k.id for k in kept}]
        servers = (*kept, *more[: GROUP_SERVERS_MAX - len(kept)])
        merged.append(Group(group.id, group.epoch + (servers != group.servers), servers))
    first_new = max((group.id for group in standing), default=0) + 1
    return merged + [Group(number, 1, servers) for number, servers in enumerate(wanted.values(), first_new)]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A group after one of its servers was lost: in its next epoch, and which places have other pools than before."""

    group: Group
    places: tuple[int, ...]


def replace_server(groups: Iterable[Group], lost: str, alive: Iterable[StorageServer]) -> list[Replacement]:
    """Every group that has the lost server, with somebody else in its place, as far as there is anybody.

    The new one keeps the first three in three AZs, and takes its turn with the others that could. Best is one that the group doesn't
    have yet. Else one of the group's later places comes forward (in a region where every group has every server), and the lost host
    takes that place, which few objects use. Else it is the lost host itself, once it is back with an empty pool.
    """
    servers = sorted((server for server in alive if server.id != lost), key=lambda server: server.id)
    taken: Counter[str] = Counter()
    plan = []
    for group in sorted(groups, key=lambda group: group.id):
        place = next((n for n, server in enumerate(group.servers) if server.id == lost), None)
        if place is not None:
            plan.append(_replaced(group, place, servers, taken))
    return plan


def _replaced(group: Group, place: int, servers: Sequence[StorageServer], taken: Counter[str]) -> Replacement:
    members = {server.id: n for n, server in enumerate(group.servers)}
    azs = {server.az for n, server in enumerate(group.servers[:3]) if n != place} if place < 3 else set()
    fit = [server for server in servers if server.az not in azs and members.get(server.id, 3) >= 3]
    outside = [server for server in fit if server.id not in members]
    later = [server for server in fit if server.id in members] if place < 3 else []
    generation = 1 + max(server.generation for server in group.servers)
    empty = replace(group.servers[place], generation=generation)
    after = list(group.servers)
    if outside or later:
        chosen = min(outside or later, key=lambda server: (taken[server.id], server.id))
        taken[chosen.id] += 1
        if chosen.id in members:
            after[members[chosen.id]] = empty
        after[place] = replace(chosen, generation=generation)
    else:
        after[place] = empty
    places = tuple(n for n, (old, new) in enumerate(zip(group.servers, after, strict=True)) if old != new)
    return Replacement(Group(group.id, group.epoch + 1, tuple(after)), places)


def newest(versions: Iterable[Iterable[Group]]) -> list[Group]:
    """Of each group the latest epoch that any shard has: a change reaches them one after the other."""
    found: dict[int, Group] = {}
    for group in itertools.chain.from_iterable(versions):
        if group.id not in found or found[group.id].epoch < group.epoch:
            found[group.id] = group
    return [found[number] for number in sorted(found)]


def group_of(number: int, epoch: int, servers: str) -> Group:
    """A group as its row says it, the servers as JSON."""
    return Group(number, epoch, tuple(StorageServer(**server) for server in msgspec.json.decode(servers)))


def _head(servers: Sequence[StorageServer]) -> tuple[str, ...]:
    return tuple(server.id for server in servers[:3])


def _heads(azs: Sequence[Sequence[StorageServer]], wanted: int) -> list[tuple[StorageServer, ...]]:
    """First servers of groups, one of each AZ in this order: all combinations, or `wanted` of them if they are more."""
    if math.prod(map(len, azs)) <= wanted:
        return list(itertools.product(*azs))
    # Each AZ's servers in turn; each round later AZs are one, two places further on, so that partners change.
    rounds = range(max(wanted, *map(len, azs)))
    return [tuple(az[(n + place * (n // len(azs[0]))) % len(az)] for place, az in enumerate(azs)) for n in rounds]


def _rest(everyone: Sequence[StorageServer], head: Sequence[StorageServer], turn: int) -> list[StorageServer]:
    """Who takes the fourth and later copies: the others, beginning at another one in each group."""
    others = [server for server in everyone if server not in head]
    if not others:
        return []
    start = turn % len(others)
    return (others[start:] + others[:start])[: GROUP_SERVERS_MAX - len(head)]
