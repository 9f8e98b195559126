"""Several machines together: shards, the ensemble, placement, anti-affinity. What is looked for stands in ops/conformance/region.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ops.conformance import region as judge
from ops.conformance.model import Finding
from ops.region import Region
from ops.status import Status
from tests.conformance.conftest import Machines, Subject, profile_counts

pytestmark = pytest.mark.conformance
Tell = Callable[[Iterable[Finding]], None]


def test_a_shard_has_leader_sync_and_async_in_three_azs(
    shard: Subject, machines: Machines, services: Status, found: Tell
) -> None:
    said = judge.by_status(f"shard {shard.name}", services.findings)
    found([*said, *judge.shard(int(shard.name), shard.hosts, machines.those_of(shard.hosts))])


def test_placement_groups_spread_over_the_azs(shard: Subject, machines: Machines, region: Region, found: Tell) -> None:
    found(judge.placement(int(shard.name), region, shard.hosts, machines.those_of(shard.hosts)))


def test_zookeeper_has_a_leader_and_two_followers(ensemble: Subject, machines: Machines, found: Tell) -> None:
    found(judge.ensemble(ensemble.hosts, machines.those_of(ensemble.hosts)))


def test_instances_of_a_service_are_on_different_machines(
    layout: Subject, machines: Machines, chosen: list[object], region: Region, found: Tell
) -> None:
    ids = {h.name: machines.of(h).machine_id for h in layout.hosts if h in chosen}
    found(judge.spread(region, profile_counts(region), ids))
