"""Each machine by itself, against its services' descriptions and the layout. What is looked for stands in ops/conformance/machine.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ops.conformance import machine as judge
from ops.conformance.model import Finding, Machine
from ops.conformance.region import by_status, versions
from ops.region import Region
from ops.status import Status
from tests.conformance.conftest import Machines, Subject

pytestmark = pytest.mark.conformance
Tell = Callable[[Iterable[Finding]], None]


def test_services_are_healthy_and_run_the_wanted_version_and_config(
    machine: Subject, services: Status, found: Tell
) -> None:
    of = [host for host in services.hosts if host.name == machine.name]
    found([*by_status(machine.name, services.findings), *(f for host in of for f in versions(host, services.version))])


def test_the_machine_is_who_the_layout_says(machine: Subject, seen: Machine, region: Region, found: Tell) -> None:
    found(judge.identity(machine.hosts[0], seen, region.name))


def test_packages_are_installed_and_whole(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.packages(machine.hosts[0], seen))


def test_users_and_groups_are_as_described(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.accounts(machine.hosts[0], seen))


def test_only_the_operators_key_opens_it(machine: Subject, seen: Machine, region: Region, found: Tell) -> None:
    found(judge.keys(machine.hosts[0], seen, (region.secrets / "ssh.key.pub").read_text()))


def test_secrets_are_secret_and_where_they_are_needed(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.secrets(machine.hosts[0], seen))


def test_units_are_enabled_and_active_and_none_has_failed(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.units(machine.hosts[0], seen))


def test_the_described_ports_listen_and_no_other(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.listeners(machine.hosts[0], seen))


def test_the_firewall_is_loaded(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.firewall(machine.hosts[0], seen))


def test_the_kernel_gives_up_connections_to_who_is_gone(machine: Subject, seen: Machine, found: Tell) -> None:
    found(judge.kernel(machine.hosts[0], seen))


def test_the_pool_is_as_planned(storage: Subject, machines: Machines, region: Region, found: Tell) -> None:
    host = storage.hosts[0]
    found(judge.pool(host, machines.of(host), region.name))
