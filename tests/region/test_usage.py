"""Usage reports on a region: bytes times copies, requests, seconds of tasks, also while a storage host is off (CL-41, CL-123)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ops.region import Region
from tests.probe.machine import until
from tests.region.conftest import Machines, wait_until_well
from tests.region.signed import Client
from tests.region.test_jobs import Jobs
from tests.stock_clients import Output

pytestmark = pytest.mark.region

Mobula = Callable[..., Output]
LOGIN = f"usage-{time.time_ns():x}"
SIZES = {1: 1000, 2: 70_000, 3: 300_000}
"""bytes of an object by its number of copies"""
HANDED_OVER_S = 60.0
"""until webapis have let the shards know what they have counted"""


@pytest.fixture(scope="module")
def user(region: Region, mobula: Mobula, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An account that nobody else uses."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = tmp_path_factory.mktemp("usage") / "key.pub"
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public.write_bytes(key.public_key().public_bytes(*form))
    assert mobula("account", "create", LOGIN).returncode == 0
    assert mobula("account", "key", "add", LOGIN, str(public)).returncode == 0
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    client = Client(region.relay_port, LOGIN, private)
    yield client
    # One of them has a single copy, which drills that lose a pool would call a loss.
    for entry in client.list_all(f"/{LOGIN}/stor"):
        client.request("DELETE", f"/{LOGIN}/stor/{entry['name']}")
    client.close()


def report(mobula: Mobula) -> str:
    """Have the reports of this hour made; where they are, below their kind."""
    said = mobula("usage", "--json", "--hour", time.strftime("%Y-%m-%dT%H", time.gmtime()))
    assert said.returncode == 0, said
    answer = json.loads(said.stdout)
    assert answer["accounts"] > 0
    return str(answer["path"])


def read(user: Client, kind: str, path: str) -> dict[str, Any]:
    said = user.get(f"/{LOGIN}/reports/usage/{kind}/{path}")
    assert said.status == 200, said
    found: dict[str, Any] = said.json()
    assert found["login"] == LOGIN
    return found


def in_one_hour(test: Callable[[], None]) -> None:
    """Not over the end of one: what is sent before would be in another report."""
    left_s = 3600 - time.time() % 3600
    if left_s < 240:
        time.sleep(left_s + 1)
    test()


def test_an_hours_reports_are_exact_and_stay_so_while_a_storage_host_is_off(
    user: Client, mobula: Mobula, region: Region, machines: Machines
) -> None:
    wait_until_well(mobula)
    in_one_hour(lambda: _exact(user, mobula, region))
    wait_until_well(mobula)
    # What was worked on is gone (the jobs have directories of that name of their own).
    left = machines.sql("SELECT name FROM metadata.entry WHERE directory ~ '^/[^/]+/stor/usage/runs'")
    assert left == []


def _exact(user: Client, mobula: Mobula, region: Region) -> None:
    levels = [level for level in SIZES if level <= len(region.pool("storage"))]
    sent = 0
    for level in levels:
        for name in ("kept", "dropped"):
            body = bytes(SIZES[level])
            assert user.put(f"/{LOGIN}/stor/{name}-{level}", body, durability_level=str(level)).status == 204
            sent += 1
        assert user.request("DELETE", f"/{LOGIN}/stor/dropped-{level}").status == 204
        sent += 1
    assert user.mkdir(f"/{LOGIN}/stor/folder").status == 204
    jobs = Jobs(user, LOGIN)
    base = jobs.create({"exec": "sleep 1; wc -c", "memory": 256}, inputs=[f"/{LOGIN}/stor/kept-{levels[0]}"])
    assert jobs.done(base)["stats"]["errors"] == 0

    wanted = {
        "directories": 1, "objects": len(levels), "bytes": sum(SIZES[level] for level in levels),
        "storedBytes": sum(level * SIZES[level] for level in levels),
    }  # fmt: skip
    path = until("all requests to be reported", lambda: _reported(user, mobula, sent), HANDED_OVER_S)
    assert read(user, "storage", path)["storage"]["stor"] == wanted
    requests = read(user, "requests", path)["requests"]
    assert requests["type"]["DELETE"] == len(levels)
    assert requests["bandwidth"]["in"] >= 2 * wanted["bytes"]
    compute = read(user, "compute", path)["compute"]
    assert compute["tasks"] == 1
    assert 1.0 <= compute["seconds"] < 30.0
    assert compute["megabyteSeconds"] == pytest.approx(256 * compute["seconds"])

    off = region.pool("storage")[0].name
    assert mobula("lab", "power-off", off).returncode == 0
    try:
        assert read(user, "storage", report(mobula))["storage"]["stor"] == wanted
        assert read(user, "compute", path)["compute"] == compute
    finally:
        assert mobula("lab", "power-on", off).returncode == 0
    assert user.request("DELETE", f"/{LOGIN}/reports/usage/compute/{path}").status == 204


def _reported(user: Client, mobula: Mobula, sent: int) -> str | None:
    """Where the reports are, if they have all that was sent."""
    path = report(mobula)
    if user.get(f"/{LOGIN}/reports/usage/requests/{path}").status == 404:
        return None  # no webapi has handed anything over yet
    return path if sum(read(user, "requests", path)["requests"]["type"].values()) >= sent else None
