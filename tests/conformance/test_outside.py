"""What the internet reaches, and what the nameservers answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from mobula.lab import faults
from ops.catalog import catalog
from ops.conformance import region as judge
from ops.conformance.model import Finding
from ops.conformance.wanted import PUBLIC
from ops.region import Region
from tests.conformance import outside
from tests.conformance.conftest import Subject

pytestmark = pytest.mark.conformance
Tell = Callable[[Iterable[Finding]], None]
PORTS = {22} | {p.port for s in catalog().values() for p in s.ports if p.protocol == "tcp"}


@pytest.fixture(scope="session")
def states(region: Region, chosen: list[object]) -> list[tuple[str, int, str]]:
    """Every described TCP port and 22 of every host, tried from `pub`."""
    hosts = {h.name: h.address for h in region.hosts.values() if h in chosen}
    tried = outside.ports_to_try(hosts, PORTS)
    expected = [p for p in tried if p[2] in PUBLIC.get(region.hosts[p[0]].pool, ("", ()))[1]]
    return outside.states_of(f"{region.name}-pub", tried, expected=expected)


def test_the_internet_reaches_loadbalancers_and_nameservers_only(
    machine: Subject, states: list[tuple[str, int, str]], region: Region, found: Tell
) -> None:
    public = {pool: ports for pool, (_, ports) in PUBLIC.items()}
    found(judge.reachable((s for s in states if s[0] == machine.name), region, public))


@pytest.mark.parametrize("namespace", ["pub", "op"])
def test_names_are_answered_right_and_for_five_seconds(
    nameserver: Subject, namespace: str, region: Region, found: Tell
) -> None:
    host = nameserver.hosts[0]
    asked = judge.questions(region)
    found(judge.names(host, region, outside.ask(f"{region.name}-{namespace}", host.address, asked)))


def test_no_fault_of_the_lab_stands(layout: Subject, region: Region, found: Tell) -> None:
    standing = faults.standing(region.name, region.zones, region.state_dir)
    found(Finding(where, what, do, "CL-100") for where, what, do in standing)


def test_the_edge_to_the_internet_has_its_allow_list(az: Subject, region: Region, found: Tell) -> None:
    found(judge.edge(az.name, *outside.edge_of(region, az.name)))
