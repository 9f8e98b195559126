"""What tests of a live region have beside `tests/stock_clients.py`: our own SDK, SSH to the machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from mobula.client import Client as Sdk
from mobula.client.settings import from_environment
from ops.region import Region
from ops.remote import RemoteError, SshRemote
from tests.probe.machine import until
from tests.stock_clients import Output

PRIMARIES_S = 60.0
WELL_S = 120.0


def is_ok(mobula: Callable[..., Output]) -> bool:
    """Whether `status` finds nothing wrong."""
    return json.loads(mobula("status", "--json").stdout)["ok"] is True


def wait_until_well(mobula: Callable[..., Output]) -> None:
    """Until the region has got over what was done to it."""
    until("status to say ok", lambda: is_ok(mobula), WELL_S)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Harm comes last: a storage host that was wiped leaves objects with a copy less."""
    items.sort(key=lambda item: item.get_closest_marker("harm") is not None)


@pytest.fixture(scope="session")
def sdk(environment: dict[str, str]) -> Iterator[Sdk]:
    """Our own SDK, in the name of the demo account."""
    with Sdk(from_environment(environment)) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Machines:
    """SSH to the region's machines."""

    region: Region

    def run(self, host: str, argv: Sequence[str], *, check: bool = True) -> str:
        """Standard output of one command on one host."""
        remote = SshRemote(self.region, self.region.hosts[host].address)
        return remote.run(list(argv), timeout_s=60, check=check).stdout

    def psql(self, host: str, statement: str) -> list[str]:
        """Lines of a query on one metadata host."""
        argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtd", "mobula", "-h", "/run/postgresql", "-c", statement]
        return self.run(host, argv).splitlines()

    def primaries(self) -> list[str]:
        """The host of each shard's primary, once each has one (a peer that was deposed restarts for a moment)."""
        shards = max(h.shard for h in self.region.hosts.values())

        def one_each() -> list[str]:
            found = [h.name for h in self.region.pool("metadata") if self._is_primary(h.name)]
            return found if len(found) == len({self.region.hosts[name].shard for name in found}) == shards else []

        return until("each shard to have one primary", one_each, PRIMARIES_S)

    def _is_primary(self, host: str) -> bool:
        try:
            return self.psql(host, "SELECT pg_is_in_recovery()") == ["f"]
        except RemoteError:
            return False

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a query on every shard's primary, columns as text."""
        return [line.split("|") for host in self.primaries() for line in self.psql(host, statement)]

    def files(self) -> dict[str, set[str]]:
        """Names (`<account>/<object id>.<size>.<md5>`) of all object files by storage host."""
        argv = ["find", "/tank/objects", "-type", "f", "-path", "*-*-*/*", "-printf", "%P\\n"]
        return {h.name: set(self.run(h.name, argv).split()) for h in self.region.pool("storage")}


@pytest.fixture(scope="session")
def machines(region: Region) -> Machines:
    return Machines(region)
