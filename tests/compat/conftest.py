"""The real clients, run as their users run them: on a standing region, or with --local on a webapi in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mobula.core.keys import load_public_key
from ops import secrets
from ops.region import Region
from tests.compat.tls import fronting
from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client
from tests.stock_clients import Endpoint, Shell, directory

STORAGES_COUNT = 3
"""as many copies as an object can have at most: what profile `small` has"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need a region, as far as `make test` is concerned."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.region)


@pytest.fixture(scope="session")
def local_region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegion]:
    """A webapi and storage servers in this process."""
    local = LocalRegion(tmp_path_factory.mktemp("local"), storages_count=STORAGES_COUNT)
    local.start()
    yield local
    local.stop()


@pytest.fixture(scope="session")
def local_endpoint(local_region: LocalRegion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The webapi in this process, TLS before it; as on a region, an agent holds the key."""
    folder = tmp_path_factory.mktemp("region")
    region = Region("local", "mobula.test", "10.0.0.0/16", 0, folder, folder, {}, None)
    secrets.ensure(region)
    pem = (region.secrets / "demo.pem").read_bytes()
    local_region.add_account("demo")
    local_region.add_key("demo", pem)
    with agent(folder, pem) as socket, fronting(local_region.port, region.secrets / "loadbalancer.pem") as port:
        environment = {
            "MANTA_URL": f"https://localhost:{port}",
            "MANTA_USER": "demo",
            "MANTA_KEY_ID": load_public_key((region.secrets / "demo.pub").read_text()).fingerprint_md5,
            "NODE_EXTRA_CA_CERTS": str(region.secrets / "ca.pem"),
            "SSH_AUTH_SOCK": str(socket),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        yield Endpoint(environment, port, pem)


@pytest.fixture(scope="session")
def sub_user(request: pytest.FixtureRequest, endpoint: Endpoint) -> str:
    """A sub-user of `demo`, with the account's own key."""
    if request.config.getoption("--local"):
        request.getfixturevalue("local_region").add_user("demo", "reader", endpoint.private_pem)
        return "reader"
    mobula, region = request.getfixturevalue("mobula"), request.getfixturevalue("region")
    for words in (["create", "demo/reader"], ["key", "add", "demo/reader", str(region.secrets / "demo.pub")]):
        said = mobula("account", *words)
        assert said.returncode == 0, said.stderr
    return "reader"


@pytest.fixture
def terminal(manta: Shell) -> Shell:
    """Run one stock command on a terminal of its own: it is prompted, and draws; what it says comes out as one text."""
    return Shell(manta.environment, ("sh", "-c", 'exec script --quiet --return --flush --command "$*" /dev/null', "sh"))


@contextlib.contextmanager
def agent(folder: Path, private_pem: bytes) -> Iterator[Path]:
    """The socket of an ssh-agent that knows one key."""
    socket = folder / "agent.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < deadline_s:
                time.sleep(0.01)
            subprocess.run(
                ["ssh-add", "-q", "-"], input=private_pem, env={**os.environ, "SSH_AUTH_SOCK": str(socket)}, check=True
            )
            yield socket
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def mantash(endpoint: Endpoint, mantash_bin: Path, client_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run one command of PyPI's `mantash`: it knows no CA but its own, and reads keys in PEM from its home, where its cache is, too."""
    home = tmp_path_factory.mktemp("mantash")
    (home / ".ssh").mkdir()
    write_keys(home / ".ssh", endpoint.private_pem)
    environment = {
        **{name: value for name, value in endpoint.environment.items() if name != "SSH_AUTH_SOCK"},
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "MANTA_TLS_INSECURE": "1",
        "PATH": f"{mantash_bin}:{client_bin}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",  # its own source has escape sequences that a newer Python doesn't like
    }
    return Shell(environment, ("mantash",))


def write_keys(folder: Path, private_pem: bytes) -> None:
    """Leave a key in a client's `.ssh`: the private half in PEM, which `mantash` insists on."""
    key = serialization.load_pem_private_key(private_pem, None)
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    private = folder / "id_rsa"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    private.chmod(0o600)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / "id_rsa.pub").write_bytes(line + b" demo\n")


@pytest.fixture(scope="module")
def shared(demo: Client) -> Iterator[str]:
    """A directory of the module's own under /demo/stor, removed afterwards."""
    with directory(demo) as path:
        yield path
