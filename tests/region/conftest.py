"""A live region called `test` (or MOBULA_TEST_REGION), a stock Manta client, raw signed requests, SSH to the machines.

Nothing here starts the region: `make test` does, and a standing one can be used again and again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobula.client import Client as Sdk
from mobula.client.settings import from_environment
from ops.region import CACHE, REPO, Region, load
from ops.remote import SshRemote
from tests.region.signed import Client

CLIENT_VERSION = "5.4.2"
Output = subprocess.CompletedProcess[str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Harm comes last: a storage host that was wiped leaves objects with a copy less."""
    items.sort(key=lambda item: item.get_closest_marker("harm") is not None)


@pytest.fixture(scope="session")
def region() -> Region:
    found = load(os.environ.get("MOBULA_TEST_REGION", "test"))
    assert found.hosts, f"region {found.name!r} is not up; run ./mobula -R {found.name} up --profile small"
    return found


@pytest.fixture(scope="session")
def mobula(region: Region) -> Callable[..., Output]:
    """Run the operator's command on the region; the caller looks at the exit code."""

    def run(*argv: str) -> Output:
        return subprocess.run(
            [REPO / "mobula", "-R", region.name, *argv], capture_output=True, text=True, check=False, timeout=300
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def environment(mobula: Callable[..., Output]) -> dict[str, str]:
    """What `./mobula env` says, nothing else: it must be enough for any client."""
    said = mobula("env", "--json")
    assert said.returncode == 0, said.stderr
    values: dict[str, str] = json.loads(said.stdout)
    return values


@pytest.fixture(scope="session")
def sdk(environment: dict[str, str]) -> Iterator[Sdk]:
    """Our own SDK, in the name of the demo account."""
    with Sdk(from_environment(environment)) as client:
        yield client


@pytest.fixture(scope="session")
def client_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stock Manta commands; npm puts no links to them anywhere."""
    prefix = CACHE / "npm" / f"manta-{CLIENT_VERSION}"
    commands = prefix / "node_modules" / "manta" / "bin"
    if not (prefix / "complete").exists():
        prefix.mkdir(parents=True, exist_ok=True)
        argv = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(prefix),
            f"manta@{CLIENT_VERSION}",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        (prefix / "complete").touch()
    return commands


@pytest.fixture(scope="session")
def manta(
    environment: dict[str, str], client_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Output]:
    """Run one stock command in a shell that has nothing but PATH, an empty home and the region's environment."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()  # the stock client lists it before it asks the agent
    variables = {"PATH": f"{client_bin}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8", **environment}

    def run(*argv: str, stdin: bytes | None = None, timeout_s: float = 300) -> Output:
        done = subprocess.run(argv, env=variables, input=stdin, capture_output=True, check=False, timeout=timeout_s)
        # Byte for byte: text mode would turn a carriage return in a name into a newline.
        return Output(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    return run


@pytest.fixture(scope="session")
def demo(region: Region) -> Iterator[Client]:
    """Raw requests signed by the demo account's key."""
    with contextlib.closing(Client(region.relay_port, "demo", (region.secrets / "demo.pem").read_bytes())) as client:
        yield client


@pytest.fixture
def folder(demo: Client) -> Iterator[str]:
    """A directory of the test's own under /demo/stor, removed with all in it afterwards."""
    path = f"/demo/stor/test-{uuid.uuid4()}"
    assert demo.mkdir(path).status == 204
    yield path
    demo.remove_tree(path)


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
        """The host of each shard's primary."""
        found = [
            h.name for h in self.region.pool("metadata") if self.psql(h.name, "SELECT pg_is_in_recovery()") == ["f"]
        ]
        shards = {self.region.hosts[name].shard for name in found}
        assert len(found) == len(shards) == max(h.shard for h in self.region.hosts.values()), found
        return found

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a query on every shard's primary, columns as text."""
        return [line.split("|") for host in self.primaries() for line in self.psql(host, statement)]

    def files(self) -> dict[str, set[str]]:
        """Names (`<account>/<object id>.<size>.<md5>`) of all object files by storage host."""
        argv = ["find", "/tank/objects", "-type", "f", "-not", "-path", "*/tmp/*", "-printf", "%P\\n"]
        return {h.name: set(self.run(h.name, argv).split()) for h in self.region.pool("storage")}


@pytest.fixture(scope="session")
def machines(region: Region) -> Machines:
    return Machines(region)
