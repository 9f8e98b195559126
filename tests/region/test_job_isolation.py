"""Tenants of one host: none sees another, none holds up another or the storage service, none gets out. What a single sandbox refuses is
tested on the kernel (tests/probe/test_sandbox.py); here it is jobs of two accounts, on hosts that store.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mobula.lab import machines as machines_of_lab
from ops.catalog import services_of
from ops.region import Region
from tests.bench.load import percentile
from tests.probe.machine import until
from tests.region.conftest import Machines
from tests.region.load import Load, Request
from tests.region.signed import Client
from tests.region.test_jobs import Jobs
from tests.stock_clients import Output
from tests.ways_out import CALL, LOOK, OUTS, PLANT, REFUSALS, SCRIPTS

pytestmark = pytest.mark.region

EVERYWHERE = 24
"""reducers: more than one host begins at a time"""
SMALL = {"memory": 128}
QUIET_REQUESTS = 80
BOMB_S = 8
BOUND_S = 120.0
STATUS_PORTS = (8060, 8062)
"""of the storage service and the agent"""


@pytest.fixture(scope="module")
def stranger(region: Region, mobula: Callable[..., Output], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Jobs of another account than the demo's."""
    login, key = f"user{uuid.uuid4().hex[:8]}", ed25519.Ed25519PrivateKey.generate()
    public = tmp_path_factory.mktemp("stranger") / "key.pub"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    assert mobula("account", "create", login).returncode == 0
    assert mobula("account", "key", "add", login, str(public)).returncode == 0
    with contextlib.closing(Client(region.relay_port, login, _pem(key))) as client:
        yield Jobs(client, login)


def _pem(key: ed25519.Ed25519PrivateKey) -> bytes:
    kind, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, nothing)


@dataclass(frozen=True, slots=True)
class Tenants:
    """Jobs of two accounts."""

    demo: Jobs
    stranger: Jobs


@pytest.fixture
def tenants(demo: Client, stranger: Jobs) -> Tenants:
    return Tenants(Jobs(demo), stranger)


@pytest.fixture
def jobs(tenants: Tenants) -> Jobs:
    return tenants.demo


@pytest.fixture
def load(demo: Client, region: Region, folder: str) -> Iterator[Load]:
    """Small PUTs and GETs, ten a second each, as long as the test takes."""
    path = f"{folder}/load"
    assert demo.put(path, b"load").status == 204
    with Load(region, path).running() as running:
        yield running


def hosts_of(machines: Machines, job: str) -> set[str]:
    """Those that have had its tasks."""
    number = uuid.UUID(job.rpartition("/")[2])
    rows = machines.sql(f"SELECT DISTINCT agent FROM jobs.task WHERE job = '{number}'")  # noqa: S608 (a number)
    return {row[0].partition("/")[0] for row in rows}


# Each sees its own


def test_a_tenant_finds_nothing_of_what_another_one_has_planted(
    tenants: Tenants, demo: Client, machines: Machines, folder: str
) -> None:
    tell = f"curl -sf -T /etc/hostname http://localhost{folder}/$MANTA_REDUCER"
    plant = f"( {PLANT} ) & until [ -e /var/tmp/ready ]; do sleep 0.1; done; {tell}; wait"
    planted = tenants.demo.create({"type": "reduce", "count": EVERYWHERE, "exec": plant, **SMALL})
    until("what is planted to be there", lambda: len(demo.list_all(folder)) == EVERYWHERE, 60)
    for after_it in (False, True):
        if after_it:
            tenants.demo.cancel(planted)
            tenants.demo.done(planted)
        looked = tenants.stranger.create({"type": "reduce", "count": EVERYWHERE, "exec": LOOK, **SMALL})
        tenants.stranger.done(looked)
        assert tenants.stranger.errors(looked) == []
        assert tenants.stranger.outputs(looked) == [""] * EVERYWHERE
        assert hosts_of(machines, planted) & hosts_of(machines, looked)


# None holds up another

FORKS = f"""exec perl -e '
my $why; my $end = time + {BOMB_S};
while (time < $end) {{ $why = $! unless defined fork }}
if ($why) {{ print STDERR "$why\\n"; exit 3 }}'
"""
MEMORY = f"""end=$((SECONDS + {BOMB_S}))
while [ $SECONDS -lt $end ]; do perl -e 'push @x, "x" x (1 << 20) while 1'; done
exec perl -e 'push @x, "x" x (1 << 20) while 1'"""
DISK = f"""end=$((SECONDS + {BOMB_S}))
while [ $SECONDS -lt $end ]; do cat /dev/zero > /var/tmp/filler; rm /var/tmp/filler; done
cat /dev/zero > /var/tmp/filler"""
BOMBS = {
    "forks": (FORKS, {"memory": 2048}, "user command exited with code 3"),
    "memory": (MEMORY, {"memory": 256}, "user command terminated by SIGKILL (WARNING: ran out of memory during execution)"),
    "disk": (DISK, {"disk": 2}, "user command exited with code 1"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_hurts_only_who_has_thrown_it(
    bomb: str, tenants: Tenants, machines: Machines, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    script, limits, said = BOMBS[bomb]
    while len(load.requests) < QUIET_REQUESTS:
        assert tenants.demo.run("echo well", **SMALL) == "well\n"
    thrown_s, done = time.monotonic(), 0
    base = tenants.stranger.create({"type": "reduce", "count": 2, "exec": script, **limits})
    while tenants.stranger.status(base)["state"] != "done":
        assert tenants.demo.run("echo well", **SMALL) == "well\n"
        done += 1
        assert time.monotonic() < thrown_s + BOUND_S
    during = [request for request in load.requests if request.began_s > thrown_s]
    before = [request for request in load.requests if request.began_s <= thrown_s]
    errors = tenants.stranger.errors(base)
    assert [(error["code"], error["message"]) for error in errors] == [("UserTaskError", said)] * 2
    assert done > 0
    assert [request for request in load.requests if not request.well] == []
    with capsys.disabled():
        figures = [
            f"{m} p99 {_p99_ms(before, m):.0f} ms before, {_p99_ms(during, m):.0f} ms meanwhile" for m in ("PUT", "GET")
        ]
        print(f"\n{bomb}: {'; '.join(figures)}; {done} small jobs meanwhile")  # noqa: T201 (figures, not a verdict)
    for host in hosts_of(machines, base):
        for port in STATUS_PORTS:
            status = json.loads(machines.run(host, ["curl", "-s", f"http://127.0.0.1:{port}/status"]))
            assert status["healthy"], status


def _p99_ms(requests: Sequence[Request], method: str) -> float:
    return percentile(sorted(request.took_s for request in requests if request.method == method), 0.99) * 1e3


def test_every_agent_shares_the_processors_out(region: Region, machines: Machines) -> None:
    for host in region.pool("storage"):
        status = json.loads(machines.run(host.name, ["curl", "-s", "http://127.0.0.1:8062/status"]))
        assert status["no_cpu_shares"] == ""
        if (
            machines_of_lab.is_hybrid()
        ):  # beside all machines: the agent wrote it through the mount that its machine was given
            group = next(g for g in machines_of_lab.groups_of(region.name) if g.name.endswith(".tasks"))
            assert [(g / "cpu.idle").read_text().strip() for g in (group, group / host.name)] == ["1", "1"]


# None gets out


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls are of x86_64")
def test_no_call_leads_out(jobs: Jobs) -> None:
    calls = "\n".join(f"print({way!r}, end='=')\n{call}" for way, call in OUTS.items())
    said = jobs.run(f"exec python3 - <<'X'\n{CALL}{calls}\nX", **SMALL)
    answers = dict(line.split("=") for line in said.splitlines())
    assert answers.keys() == OUTS.keys()
    assert {way: answer for way, answer in answers.items() if answer not in REFUSALS} == {}


def test_no_file_and_no_tool_leads_out(jobs: Jobs) -> None:
    tries = "\n".join(f"( {script} ) >/dev/null 2>&1 && echo {number}" for number, script in enumerate(SCRIPTS))
    said = jobs.run(f"{tries}\necho alive", **SMALL)
    assert [SCRIPTS[int(line)] for line in said.splitlines()[:-1]] == []
    assert said.endswith("alive\n")


REACH = """exec python3 -c '
import socket, sys
for place in sys.stdin.read().split():
    host, _, port = place.rpartition(":")
    try: socket.create_connection((host, int(port)), 0.5); print(place)
    except OSError: pass
' <<< "{places}"
"""


def test_nothing_of_the_region_is_reached(jobs: Jobs, region: Region) -> None:
    hosts = region.hosts.values()
    ports = [(host, port.port) for host in hosts for service in services_of(host.pool) for port in service.ports]
    places = [f"{host.address}:{port}" for host, port in [*ports, *((host, 22) for host in hosts)]]
    assert len(places) > 3 * len(region.hosts)
    assert jobs.run(REACH.format(places=" ".join(places)), **SMALL) == ""
