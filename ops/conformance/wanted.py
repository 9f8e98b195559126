"""What a machine should have, from the services' descriptions, the layout and the image's package list."""

from __future__ import annotations

from typing import Any

from ops.catalog import Port, services_of
from ops.image import EXCLUDED, PACKAGES
from ops.region import Host

SSH = Port(22, "tcp", "region")
EVERYWHERE = frozenset({"ca.pem", "host.pem", "host.key"})
SECRETS = {
    "api": EVERYWHERE | {"client.pem", "client.key", "capability-1.key"},
    "storage": EVERYWHERE | {"capability-1.key"},
    "loadbalancer": EVERYWHERE | {"loadbalancer.pem"},
}
"""files in /etc/mobula/secrets by pool (docs/architecture.md, section 10), where they are more than everywhere"""
USERS = {"patroni": "postgres", "haproxy": "haproxy", "dns": "pdns"}
"""users of other people's programs, which they become after their start; our own services' users stand in their descriptions"""
PUBLIC = {"loadbalancer": ("tcp", (80, 443)), "nameservice": ("tcp", (53,))}
"""what the internet may reach (docs/design: networks)"""


def packages_of(pool: str) -> list[str]:
    """Packages that the roles of a pool's hosts need."""
    names: set[str] = set()
    for line in PACKAGES.read_text().splitlines():
        role, _, packages = line.split("#", 1)[0].partition(":")
        if role.strip() in ("base", pool):
            names.update(packages.split())
    return sorted(names)


def ports_of(pool: str) -> list[tuple[str, Port]]:
    """(unit, port) of everything that listens on a pool's hosts."""
    described = [(f"{s.unit}.service", port) for s in services_of(pool) for port in s.ports]
    return [("ssh.service", SSH), *described]


def secrets_of(pool: str) -> frozenset[str]:
    """Names of the files in a host's folder of secrets."""
    return SECRETS.get(pool, EVERYWHERE)


def users_of(pool: str) -> set[str]:
    """Users that a pool's services run as."""
    services = services_of(pool)
    return {"mobula"} | {s.user for s in services} | {USERS[s.name] for s in services if s.name in USERS}


def question(host: Host) -> dict[str, Any]:
    """What `ops/facts/machine.py` is asked on a host."""
    return {
        "pool": host.pool,
        "address": host.address,
        "packages": packages_of(host.pool),
        "left_out": list(EXCLUDED),
        "units": ["ssh.service", *(f"{s.unit}.service" for s in services_of(host.pool))],
    }
