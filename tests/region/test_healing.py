"""What a region does about losses: it says them, works on without, and `up` puts back exactly what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ops.dns import resolve
from ops.region import Region
from tests.probe.machine import until
from tests.region.conftest import Machines, is_ok, wait_until_well
from tests.region.load import Load
from tests.region.signed import Client
from tests.stock_clients import Output

pytestmark = [pytest.mark.region, pytest.mark.harm]

OUT_S = 15.0
"""within which whatever does not answer any more is out of DNS"""
ANSWER_S = 10.0
"""no request waits longer"""
BACK_S = 5.0
"""a process that was killed serves again"""
READS_PAUSE_S = 15.0
WRITES_PAUSE_S = 30.0
Mobula = Callable[..., Output]


@pytest.fixture(autouse=True)
def well(mobula: Mobula) -> None:
    """Each begins with a region that has got over the one before."""
    wait_until_well(mobula)


@pytest.fixture
def load(region: Region, demo: Client, folder: str) -> Load:
    assert demo.put(f"{folder}/steady", b"load").status == 204
    return Load(region, f"{folder}/steady")


@pytest.fixture
def names(region: Region) -> Callable[[str], set[str]]:
    """Addresses that the first nameserver which answers has for a name."""

    def ask(name: str) -> set[str]:
        for server in region.pool("nameservice"):
            with contextlib.suppress(OSError):
                return resolve(region, server.address, name)[0]
        raise AssertionError("no nameserver answers")

    return ask


@contextmanager
def healed(mobula: Mobula, *argv: str) -> Iterator[None]:
    """Heal whatever happens in the block."""
    try:
        yield
    finally:
        assert mobula(*argv).returncode == 0


def pid_of(machines: Machines, host: str, service: str) -> int:
    return int(machines.run(host, ["systemctl", "show", f"mobula-{service}", "--property=MainPID", "--value"]) or 0)


@pytest.mark.parametrize(
    ("pool", "service"), [("api", "webapi"), ("api", "authcache"), ("loadbalancer", "haproxy"), ("storage", "storage")]
)
def test_a_service_that_was_killed_is_back_at_once(
    pool: str, service: str, machines: Machines, region: Region, load: Load
) -> None:
    host = region.pool(pool)[0]
    before = pid_of(machines, host.name, service)
    with load.running():
        machines.run(host.name, ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", f"mobula-{service}"])
        killed_s = time.monotonic()

        def back() -> bool:
            state = machines.run(host.name, ["systemctl", "is-active", f"mobula-{service}", "--quiet"], check=False)
            return state == "" and pid_of(machines, host.name, service) not in (0, before)

        until(f"{service} to be back", back, BACK_S)
        took_s = time.monotonic() - killed_s
    assert took_s <= BACK_S
    assert load.slowest_s() <= ANSWER_S


def test_a_service_that_keeps_crashing_stays_out_and_status_says_why(
    machines: Machines, mobula: Mobula, region: Region, names: Callable[[str], set[str]]
) -> None:
    host = region.pool("api")[-1]
    drop_in = "/run/systemd/system/mobula-webapi.service.d"
    command = 'ExecStart=/bin/sh -c "echo it hurts here >&2; exit 1"'
    crash = f"mkdir -p {drop_in} && printf '[Service]\\nExecStart=\\n{command}\\n' >{drop_in}/crash.conf"
    try:
        machines.run(
            host.name, ["sh", "-c", f"{crash} && systemctl daemon-reload && systemctl restart --no-block mobula-webapi"]
        )
        failed = "systemctl show mobula-webapi --property=ActiveState --value"
        until("systemd to give it up", lambda: machines.run(host.name, ["sh", "-c", failed]).strip() == "failed", 30)
        until("DNS to forget it", lambda: host.address not in names(f"webapi.{region.zone}"), OUT_S)
        said = json.loads(mobula("status", "--json").stdout)
        found = [f for f in said["findings"] if f["host"] == host.name and f["what"].startswith("webapi: failed")]
        assert "it hurts here" in found[0]["what"]
    finally:
        machines.run(host.name, ["sh", "-c", f"rm -r {drop_in}; systemctl daemon-reload"])
        assert mobula("up", "--quiet").returncode == 0


@pytest.mark.parametrize("pool", ["api", "loadbalancer"])
@pytest.mark.parametrize("fault", ["freeze", "power-off"])
def test_a_stateless_host_that_does_not_answer_is_out_within_seconds(
    pool: str, fault: str, *, mobula: Mobula, region: Region, load: Load, names: Callable[[str], set[str]]
) -> None:
    host = region.pool(pool)[0]
    name = region.zone if pool == "loadbalancer" else f"webapi.{region.zone}"
    assert host.address in names(name)
    with load.running(), healed(mobula, "lab", "thaw" if fault == "freeze" else "power-on", host.name):
        assert mobula("lab", fault, host.name).returncode == 0
        until(f"{host.name} to be out of DNS", lambda: host.address not in names(name), OUT_S)
    until(f"{host.name} to be in DNS again", lambda: host.address in names(name), 60)
    assert load.slowest_s() <= ANSWER_S
    assert load.pause_s("GET") <= ANSWER_S


def test_a_loadbalancer_without_its_uplink_is_out_within_seconds(
    mobula: Mobula, region: Region, load: Load, names: Callable[[str], set[str]]
) -> None:
    host = region.pool("loadbalancer")[0]
    with load.running(), healed(mobula, "lab", "heal"):
        assert mobula("lab", "isolate", host.az).returncode == 0
        until(f"{host.name} to be out of DNS", lambda: host.address not in names(region.zone), OUT_S)
    until(f"{host.name} to be in DNS again", lambda: host.address in names(region.zone), 60)
    assert load.slowest_s() <= ANSWER_S


def plan_lines(mobula: Mobula) -> list[str]:
    said = mobula("plan", "--json")
    assert said.returncode == 0, said.stderr
    lines: list[str] = json.loads(said.stdout)["lines"]
    return lines


def findings_of(mobula: Mobula, host: str) -> list[str]:
    began_s = time.monotonic()
    said = json.loads(mobula("status", "--json").stdout)
    assert time.monotonic() - began_s <= OUT_S
    return [f"{f['what']} -> {f['do']}" for f in said["findings"] if f["host"] == host]


POOLS = ("nameservice", "metadata", "storage", "api", "loadbalancer")


@pytest.mark.parametrize("pool", POOLS)
def test_a_machine_without_power_is_named_planned_and_started_again(
    pool: str, mobula: Mobula, machines: Machines, region: Region, load: Load
) -> None:
    host = machines.primaries()[0] if pool == "metadata" else region.pool(pool)[1].name
    with load.running(), healed(mobula, "up", "--quiet"):
        assert mobula("lab", "power-off", host).returncode == 0
        assert "up mends it" in findings_of(mobula, host)[0]
        assert plan_lines(mobula) == [f"start machine {host}"]
    assert load.pause_s("GET") <= (READS_PAUSE_S if pool == "metadata" else ANSWER_S)
    assert load.pause_s("PUT") <= WRITES_PAUSE_S
    assert is_ok(mobula)


def test_bodies_on_their_way_come_whole_though_their_storage_host_loses_power(
    mobula: Mobula, machines: Machines, region: Region, demo: Client, folder: str
) -> None:
    """MOBULA_BIG=1: 256 MiB each, as the promise is; else 32, which no buffers on the way can hold either."""
    pieces, readers = 256 if os.environ.get("MOBULA_BIG") else 32, 20
    source = random.Random(5)  # noqa: S311
    body = b"".join(source.randbytes(1 << 20) for _ in range(pieces))
    wanted = hashlib.md5(body, usedforsecurity=False).hexdigest()
    assert demo.request("PUT", f"{folder}/big", body).status == 204
    names = machines.files()
    victim = next(host for host in sorted(names) if any(name.endswith(wanted) for name in names[host]))
    begun, powerless = threading.Barrier(readers + 1), threading.Event()

    def read() -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with demo.open_get(f"{folder}/big") as response:
            digest.update(response.read(1 << 20))
            begun.wait(60)
            assert powerless.wait(60)
            while piece := response.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    with ThreadPoolExecutor(readers) as pool, healed(mobula, "up", "--quiet"):
        bodies = [pool.submit(read) for _ in range(readers)]
        begun.wait(60)
        try:
            assert mobula("lab", "power-off", victim).returncode == 0
        finally:
            powerless.set()
        assert [reading.result(300) for reading in bodies] == [wanted] * readers
    noted = "copy can't be read"
    assert any(
        noted in machines.run(h.name, ["journalctl", "-q", "-u", "mobula-webapi", "--since", "-5min"])
        for h in region.pool("api")
    )


def test_a_wiped_machine_is_made_anew(mobula: Mobula, region: Region, load: Load) -> None:
    host = region.pool("api")[0].name
    with load.running(), healed(mobula, "up", "--quiet"):
        assert mobula("lab", "wipe", host).returncode == 0
        assert findings_of(mobula, host)
        assert plan_lines(mobula) == [f"create machine {host}"]
    assert load.slowest_s() <= ANSWER_S
    assert is_ok(mobula)


def test_what_was_changed_by_hand_is_planned_in_a_line_and_mended(
    mobula: Mobula, machines: Machines, region: Region
) -> None:
    api, storage = region.pool("api")[0].name, region.pool("storage")[0].name
    with healed(mobula, "up", "--quiet"):
        machines.run(api, ["sh", "-c", "echo '# by hand' >>/etc/mobula/registrar.json"])
        assert mobula("lab", "fail-disk", storage, "d03").returncode == 0
        lines = plan_lines(mobula)
        assert f"change {api}: /etc/mobula/registrar.json" in lines
        assert f"change machine {storage}: disk d03 missing" in lines
    assert plan_lines(mobula) == []
    wait_until_well(mobula)  # until the pool is whole again


def test_a_lost_terraform_state_is_found_again_by_the_machines_labels(
    mobula: Mobula, machines: Machines, region: Region
) -> None:
    host = region.pool("storage")[0].name
    since = ["systemctl", "show", "--property=UserspaceTimestamp"]
    booted = machines.run(host, since)
    state = region.state_dir / "terraform" / "terraform.tfstate"
    state.rename(state.with_suffix(".lost"))
    try:
        assert mobula("up", "--quiet").returncode == 0
    finally:
        state.with_suffix(".lost").unlink()
    assert plan_lines(mobula) == []
    assert machines.run(host, since) == booted


def test_a_machine_that_is_not_ours_is_refused(mobula: Mobula, region: Region) -> None:
    host = region.pool("api")[0].name
    label = region.state_dir / "machines" / host / "label.json"
    before = label.read_text()
    try:
        label.write_text(before.replace(f'"region": "{region.name}"', '"region": "elsewhere"'))
        for verb in ("plan", "up"):
            said = mobula(verb)
            assert said.returncode != 0
            assert "'elsewhere'; move it away" in " ".join(said.stderr.split())
    finally:
        label.write_text(before)
    assert plan_lines(mobula) == []
