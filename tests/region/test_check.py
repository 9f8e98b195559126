"""`mobula check` on a standing region: nothing to say of one that is well; each planted deviation named, then healed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ops.region import Region
from tests.region.conftest import Machines
from tests.stock_clients import Output

pytestmark = [pytest.mark.region, pytest.mark.harm]
SETTLE_BOUND_S = 90.0
PATRONI = """password=$(sed -n 's/.*username: patroni, password: "\\([^"]*\\)".*/\\1/p' /etc/mobula/patroni.yml)
address=$(sed -n '/^restapi:/,/^[a-z]*:$/s/.*connect_address: //p' /etc/mobula/patroni.yml)
curl --silent --fail --max-time 5 --user "patroni:$password" --request PATCH --data '{"synchronous_mode_strict": %s}' "http://$address/config"
"""
PSQL = "runuser -u postgres -- psql -XAtq -h /run/postgresql -c"


@dataclass(frozen=True, slots=True)
class Breakage:
    """A deviation on the last host of a pool: how it is made, how it is undone (also if it was made by half), what must be said."""

    name: str
    pool: str
    plant: str
    heal: str
    says: str
    claim: str


def edited(path: str, command: str) -> tuple[str, str]:
    """Plant and heal of a file that is changed by hand: kept beside, put back with its owner and mode."""
    return f"cp -p {path} {path}.kept; {command}", f"[ ! -e {path}.kept ] || mv -f {path}.kept {path}"


BREAKAGES = (
    Breakage(
        "a unit is stopped", "api", "systemctl stop mobula-webapi", "systemctl start mobula-webapi",
        "unit mobula-webapi is inactive", "CL-25",
    ),
    Breakage(
        "a unit is disabled", "api", "systemctl disable --quiet mobula-authcache", "systemctl enable --quiet mobula-authcache",
        "unit mobula-authcache is disabled", "CL-100",
    ),
    Breakage(
        "a config file is changed by hand", "loadbalancer", *edited("/etc/mobula/registrar.json", "echo >>/etc/mobula/registrar.json"),
        "up would change /etc/mobula/registrar.json", "CL-100",
    ),
    Breakage(
        "a host is marked for another region's drills", "storage", *edited("/etc/mobula/drillable", "echo other >/etc/mobula/drillable"),
        "up would change /etc/mobula/drillable", "CL-100",
    ),
    Breakage(
        "a secret can be read by all", "api", "chmod 0644 /etc/mobula/secrets/host.key", "chmod 0600 /etc/mobula/secrets/host.key",
        "secret /etc/mobula/secrets/host.key can be read by others", "CL-20",
    ),
    Breakage(
        "something unknown listens", "loadbalancer",
        "systemd-run --quiet --collect --unit=planted python3 -m http.server 9999; for i in $(seq 50); do "
        "ss -Hltn | grep -q :9999 && break; sleep 0.1; done",
        "systemctl stop planted", "python3 of planted.service listens on tcp 0.0.0.0:9999", "CL-20",
    ),
    Breakage(
        "the release link leads elsewhere", "api", 'ln -s "$(readlink /opt/mobula/current)" /opt/mobula/planted; '
        "ln -sfn /opt/mobula/planted /opt/mobula/current",
        '[ ! -L /opt/mobula/planted ] || { ln -sfn "$(readlink /opt/mobula/planted)" /opt/mobula/current; rm /opt/mobula/planted; }',
        "has release planted, wanted is", "CL-100",
    ),
    Breakage(
        "the firewall is flushed", "loadbalancer", "nft flush ruleset", "systemctl restart mobula-firewall",
        "no firewall is loaded", "CL-20",
    ),
    Breakage(
        "the firewall has one rule more", "nameservice", "nft insert rule inet mobula input tcp dport 9999 accept",
        "systemctl restart mobula-firewall", "tcp dport 9999 accept", "CL-20",
    ),
    Breakage(
        "a service's user gets a shell", "api", "usermod --shell /bin/bash mobula", "usermod --shell /usr/sbin/nologin mobula",
        "user mobula may log in: its shell is /bin/bash", "CL-20",
    ),
    Breakage(
        "a service's user is put into a group", "loadbalancer", "gpasswd --add mobula shadow", "gpasswd --delete mobula shadow",
        "user mobula is in group shadow", "CL-20",
    ),
    Breakage(
        "a package loses a file", "loadbalancer", "mv /usr/bin/jq /usr/bin/jq.kept",
        "[ ! -e /usr/bin/jq.kept ] || mv /usr/bin/jq.kept /usr/bin/jq",
        "/usr/bin/jq is missing, a file of an installed package", "CL-100",
    ),
    Breakage(
        "a hot spare is gone", "storage", "zpool remove tank /disks/d14",
        "zpool status tank | grep -q d14 || zpool add -f tank spare /disks/d14",
        "its pool has 1 hot spares, wanted are 2 (/disks/d14)", "CL-60",
    ),
    Breakage(
        "a shard is no longer strict", "metadata", PATRONI % "false", PATRONI % "true",
        "Patroni's synchronous_mode_strict is False", "CL-76",
    ),
    Breakage(
        "a setting is made by ALTER SYSTEM", "metadata", f"{PSQL} \"ALTER SYSTEM SET work_mem = '5MB'\"",
        f'{PSQL} "ALTER SYSTEM RESET work_mem"', "PostgreSQL's work_mem was set by ALTER SYSTEM", "CL-76",
    ),
    Breakage(
        "a nameserver's connector is stopped", "nameservice", "systemctl stop mobula-names", "systemctl start mobula-names",
        "its DNS does not answer", "CL-24",
    ),
    Breakage(
        "a machine asks another nameserver", "api", *edited("/etc/resolv.conf", "echo nameserver 192.0.2.1 >/etc/resolv.conf"),
        "up would change /etc/resolv.conf", "CL-100",
    ),
    Breakage(
        "a strange key opens a machine", "api",
        *edited("/root/.ssh/authorized_keys", "echo ssh-ed25519 AAAAplanted a stranger >>/root/.ssh/authorized_keys"),
        "lets in a key that is not the operator's (a stranger)", "CL-20",
    ),
    Breakage(
        "a ZooKeeper server is stopped", "nameservice", "systemctl stop mobula-zookeeper", "systemctl start mobula-zookeeper",
        "its ZooKeeper is neither leader nor follower", "CL-29",
    ),
    Breakage(
        "a unit is changed beside its file", "loadbalancer",
        "cd /etc/systemd/system; mkdir mobula-haproxy.service.d; printf '[Service]\\nNice=1\\n' >mobula-haproxy.service.d/x.conf; "
        "systemctl daemon-reload",
        "rm -rf /etc/systemd/system/mobula-haproxy.service.d; systemctl daemon-reload",
        "unit mobula-haproxy is changed by /etc/systemd/system/mobula-haproxy.service.d/x.conf", "CL-100",
    ),
)  # fmt: skip


def findings(said: Output) -> list[dict[str, Any]]:
    """What a check found; it must have been able to make every check."""
    assert said.returncode in (0, 1), said.stderr
    report: dict[str, Any] = json.loads(said.stdout)
    assert not report["broken"], report["broken"]
    found: list[dict[str, Any]] = report["findings"]
    assert said.returncode == (1 if found else 0)
    return found


def settled(mobula: Callable[..., Output]) -> list[dict[str, Any]]:
    """What a check of the whole region finds, once what was healed a moment ago has come back."""
    end = time.monotonic() + SETTLE_BOUND_S
    while (found := findings(mobula("check", "--json", "--quiet"))) and time.monotonic() < end:
        continue
    return found


@pytest.fixture(scope="module", autouse=True)
def well_before_and_after(mobula: Callable[..., Output]) -> Iterator[None]:
    """The region is as described before the first test, and again after the last one's healing."""
    assert settled(mobula) == []
    yield
    assert settled(mobula) == []


@pytest.mark.parametrize("breakage", BREAKAGES, ids=[b.name for b in BREAKAGES])
def test_a_planted_deviation_is_named(
    breakage: Breakage, mobula: Callable[..., Output], machines: Machines, region: Region
) -> None:
    host = region.pool(breakage.pool)[-1]
    with contextlib.ExitStack() as healing:
        healing.callback(machines.run, host.name, ["sh", "-c", breakage.heal])
        machines.run(host.name, ["sh", "-ec", breakage.plant])
        found = findings(mobula("check", "--json", "--quiet", "--host", host.name))
    named = [f for f in found if breakage.says in f["what"]]
    assert named, found
    assert {f["claim"] for f in named} == {breakage.claim}
    assert all(f["do"] for f in found)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--host", "nobody"), "find host 'nobody'"),
        (("-k", "no such words"), "choose checks by 'no such words'"),
        (("-k", "nosuchword"), "choose checks by 'nosuchword'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(mobula: Callable[..., Output], argv: tuple[str, ...], says: str) -> None:
    said = mobula("check", *argv)
    assert said.returncode == 2
    assert says in said.stderr
    assert "Traceback" not in said.stderr
