"""Placement groups: three copies in three AZs, evenly spread, the same for the same servers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.metadata.model import Group, StorageServer
from mobula.metadata.placement import (
    GROUP_SERVERS_MAX,
    GROUPS_MAX,
    merge_groups,
    newest,
    plan_groups,
    replace_server,
)


def servers(*per_az: int) -> list[StorageServer]:
    return [
        StorageServer(f"{az}-{n}", az, "10.0.0.1", 8060)
        for az, count in zip("abc", per_az, strict=False)
        for n in range(count)
    ]


def test_three_servers_give_the_six_orders() -> None:
    groups = plan_groups(servers(1, 1, 1))
    assert len(groups) == 6
    assert len({tuple(s.id for s in group) for group in groups}) == 6
    assert all(len(group) == 3 for group in groups)


@given(st.lists(st.integers(1, 12), min_size=3, max_size=3))
def test_the_first_three_copies_are_in_three_azs_and_no_server_holds_two(per_az: list[int]) -> None:
    groups = plan_groups(servers(*per_az))
    assert 6 <= len(groups) <= GROUPS_MAX
    for group in groups:
        assert len({s.az for s in group[:3]}) == 3
        assert len({s.id for s in group}) == len(group) == min(sum(per_az), GROUP_SERVERS_MAX)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 12, 20, 40, 100])
def test_every_place_is_spread_evenly(count: int) -> None:
    everyone = servers(count, count, count)
    groups = plan_groups(everyone)
    for place in range(3):
        held = Counter(group[place].id for group in groups)
        loads = [held[s.id] for s in everyone]
        assert min(loads) >= 1
        assert max(loads) <= 2 * min(loads)


def test_the_order_in_which_servers_are_named_does_not_matter() -> None:
    everyone = servers(3, 2, 4)
    assert plan_groups(everyone) == plan_groups(everyone[::-1])


def test_fewer_azs_give_what_is_possible() -> None:
    assert plan_groups([]) == []
    assert [[s.id for s in g] for g in plan_groups(servers(1, 1))] == [["a-0", "b-0"], ["b-0", "a-0"]]


def test_the_first_groups_of_a_region_are_the_planned_ones_and_stay_so() -> None:
    first = merge_groups([], servers(1, 1, 1))
    assert [(g.id, g.epoch, g.servers) for g in first] == [
        (n, 1, servers) for n, servers in enumerate(plan_groups(servers(1, 1, 1)), 1)
    ]
    assert merge_groups(first, servers(1, 1, 1)) == first


@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_new_servers_never_move_what_lies_in_a_standing_group(before: list[int], more: list[int]) -> None:
    standing = merge_groups([], servers(*before))
    everyone = servers(*(b + m for b, m in zip(before, more, strict=True)))
    merged = {g.id: g for g in merge_groups(standing, everyone)}
    for group in standing:
        now = merged[group.id]
        assert now.servers[: len(group.servers)] == group.servers
        assert now.epoch == group.epoch + (now.servers != group.servers)
    assert {s.id for g in merged.values() for s in g.servers} == {s.id for s in everyone}
    assert merge_groups(list(merged.values()), everyone) == list(merged.values())


def test_a_server_that_left_stays_in_its_groups_and_a_new_address_moves_the_epoch() -> None:
    standing = merge_groups([], servers(2, 1, 1))
    moved = [replace(s, address="10.9.9.9") if s.id == "b-0" else s for s in servers(1, 1, 1)]
    merged = merge_groups(standing, moved)
    assert [g.id for g in merged] == [g.id for g in standing]
    for old, new in zip(standing, merged, strict=True):
        assert [s.id for s in new.servers] == [s.id for s in old.servers]
        assert new.epoch == 2
        assert {s.address for s in new.servers if s.id == "b-0"} == {"10.9.9.9"}


def test_a_group_that_a_repair_switched_keeps_its_epoch() -> None:
    standing = [Group(1, 7, tuple(servers(1, 1, 1)))]
    assert merge_groups(standing, servers(1, 1, 1))[0] == standing[0]


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.data())
def test_a_lost_server_is_replaced_in_every_group_and_the_spread_stays(per_az: list[int], data: st.DataObject) -> None:
    """Also one after the other: servers that are lost are not chosen, and each change can be told from all earlier ones."""
    everyone = servers(*per_az)
    groups = [Group(n, 1, members) for n, members in enumerate(plan_groups(everyone), 1)]
    gone: set[str] = set()
    for _ in range(data.draw(st.integers(1, 3))):
        lost = data.draw(st.sampled_from(everyone)).id
        gone.add(lost)
        alive = [server for server in everyone if server.id not in gone]
        plan = {r.group.id: r for r in replace_server(groups, lost, alive)}
        assert set(plan) == {g.id for g in groups if lost in {s.id for s in g.servers}}
        for old in groups:
            if old.id not in plan:
                continue
            new, places = plan[old.id].group, plan[old.id].places
            assert (new.epoch, len(new.servers)) == (old.epoch + 1, len(old.servers))
            assert len({s.id for s in new.servers}) == len(new.servers)
            assert len({s.az for s in new.servers[:3]}) == 3
            changed = tuple(n for n in range(len(old.servers)) if old.servers[n] != new.servers[n])
            assert places == changed
            assert {s.id for s in old.servers} - {lost} <= {s.id for s in new.servers}
            fresh = [new.servers[n].generation for n in places]
            assert min(fresh) > max(s.generation for s in old.servers)
        groups = [plan[g.id].group if g.id in plan else g for g in groups]
    assert merge_groups(groups, everyone)[: len(groups)] == groups


def test_replacements_take_turns() -> None:
    everyone = servers(8, 8, 8)
    groups = [Group(n, 1, members) for n, members in enumerate(plan_groups(everyone), 1)]
    held = {g.id: {s.id for s in g.servers} for g in groups}
    plan = replace_server(groups, "a-0", [s for s in everyone if s.id != "a-0"])
    taken = Counter(next(iter({s.id for s in r.group.servers} - held[r.group.id]), "none") for r in plan)
    assert taken["none"] == 0
    assert max(taken.values()) <= 3 * max(1, len(plan) // len(everyone))


def test_of_two_versions_of_a_group_the_later_one_counts() -> None:
    old, new = Group(1, 1, tuple(servers(1, 1, 1))), Group(1, 2, tuple(servers(1, 1, 1))[::-1])
    assert newest([[new], [old, Group(2, 1, ())]]) == newest([[old], [new, Group(2, 1, ())]]) == [new, Group(2, 1, ())]
