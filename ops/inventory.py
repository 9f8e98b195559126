"""Terraform's output `region` and the release, turned into what Ansible knows of every host.

Read once, strictly: a file of another shape is refused in a sentence. Everything that is computed from the map of hosts (who is
asked first, ids of the ensemble, what a host registers) is computed here, not in Jinja.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ops import task_image
from ops.catalog import catalog, services_of
from ops.errors import OperatorError
from ops.region import SHAPE

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z][0-9a-z.+-]{0,63}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]

SECRETS = "/etc/mobula/secrets"
SESSION_S = 4.0
"""length of a registration's ZooKeeper session: how long a host that is gone keeps its names"""
CHECK = {"interval_s": 1.0, "timeout_s": 1.0, "fall": 2, "rise": 1}
POSTGRES_FILES = {"ca": f"{SECRETS}/ca.pem", "certificate": f"{SECRETS}/client.pem", "key": f"{SECRETS}/client.key"}


class Zone(msgspec.Struct, frozen=True):
    """An availability zone; `index` is also its ZooKeeper server's id."""

    index: Annotated[int, msgspec.Meta(ge=1, le=255)]
    cidr: str
    gateway: str


class Networks(msgspec.Struct, frozen=True):
    """Addresses outside the zones; `op` is where the operator's commands come from, `pub` one on the internet's side."""

    op: str
    pub: str


class Machine(msgspec.Struct, frozen=True):
    """A host. `shard` is 1-based in pool metadata, else 0."""

    name: Name
    az: str
    pool: str
    index: Annotated[int, msgspec.Meta(ge=1)]
    address: str
    shard: Count
    disks: Count
    disk_size_bytes: Count


class Layout(msgspec.Struct, frozen=True):
    """Terraform's output `region`, as far as Ansible reads it."""

    shape: int
    name: Name
    domain: str
    cidr: str
    shards: Annotated[int, msgspec.Meta(ge=1)]
    azs: dict[str, Zone]
    networks: Networks
    hosts: dict[str, Machine]
    drillable: bool = False
    """drills may harm it; not without being told so"""


class Shape(msgspec.Struct, frozen=True):
    """The one field that every shape has."""

    shape: int


class ReleaseNote(msgspec.Struct, frozen=True):
    """release.json: the release to install, and its archive on the operator's machine."""

    version: Version
    tarball: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


def read_layout(path: Path) -> Layout:
    """The region as Terraform last said.

    Raises:
        OperatorError: no such file, another shape, or something in it can't be; one sentence names it.
    """
    shape = _decode(path, "the region", Shape).shape
    if shape != SHAPE:
        raise OperatorError(
            f"read the region from {str(path)!r}: shape is {shape}, this version knows {SHAPE}; "
            "use the version of mobula that made the region"
        )
    layout = _decode(path, "the region", Layout)
    wrong = _wrong(layout)
    if wrong:
        raise OperatorError(f"read the region from {str(path)!r}: {wrong}; run ./mobula up")
    return layout


def read_release(path: Path) -> ReleaseNote:
    """The release to install.

    Raises:
        OperatorError: no such file, or it is malformed.
    """
    return _decode(path, "the release", ReleaseNote)


def _decode[T](path: Path, what: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise OperatorError(f"read {what} from {str(path)!r}: {error}; run ./mobula up") from error


def _wrong(layout: Layout) -> str | None:
    """What can't be in a layout whose fields are each well-formed."""
    pools = {pool for service in catalog().values() for pool in service.pools}
    seen: dict[str, str] = {}
    for key, host in layout.hosts.items():
        if key != host.name:
            return f"host {host.name!r} stands under the name {key!r}"
        if host.pool not in pools:
            return f"host {key!r} is in pool {host.pool!r}, known are {', '.join(sorted(pools))}"
        if host.az not in layout.azs or not re.fullmatch("[a-z]", host.az):
            return f"host {key!r} is in zone {host.az!r}, known are {', '.join(sorted(layout.azs))}"
        if not _inside(host.address, layout.azs[host.az].cidr):
            return f"host {key!r} has address {host.address!r}, its zone has {layout.azs[host.az].cidr!r}"
        if host.address in seen:
            return f"hosts {seen[host.address]!r} and {key!r} both have address {host.address!r}"
        seen[host.address] = key
        if not (1 <= host.shard <= layout.shards if host.pool == "metadata" else host.shard == 0):
            return f"host {key!r} of pool {host.pool!r} has shard {host.shard}, the region has {layout.shards}"
    if not any(host.pool == "nameservice" for host in layout.hosts.values()):
        return "no host is in pool nameservice, which everything asks"
    return None


def _inside(address: str, cidr: str) -> bool:
    try:
        return IPv4Address(address) in IPv4Network(cidr)
    except ValueError:
        return False


def groups_of(host: Machine) -> tuple[str, ...]:
    """Ansible's groups of a host: its pool, its zone and, of a metadata peer, its shard."""
    return (host.pool, f"az_{host.az}", *([f"shard_{host.shard}"] if host.shard else []))


def near_first(hosts: Iterable[Machine], az: str) -> list[Machine]:
    """The same hosts, those of the zone first, otherwise by name."""
    return sorted(hosts, key=lambda h: (h.az != az, h.name))


def region_variables(layout: Layout, release: ReleaseNote, state_dir: Path) -> dict[str, Any]:
    """Variables of all hosts."""
    hosts = sorted(layout.hosts.values(), key=lambda h: h.name)
    prefix = ".".join(layout.cidr.split(".")[:2])
    return {
        "mobula_region": layout.name,
        "mobula_zone": f"{layout.name}.{layout.domain}",
        "mobula_shards": layout.shards,
        "mobula_drillable": layout.drillable,
        "mobula_az_cidrs": [az.cidr for az in layout.azs.values()],
        # The lab's uplinks from the operator's network end in these (design: reached by SSH, touched by no fault).
        "mobula_op_networks": [layout.networks.op, *(f"{prefix}.25{az.index}.1" for az in layout.azs.values())],
        "mobula_all_hosts": [{"name": h.name, "address": h.address} for h in hosts],
        "mobula_ensemble": [
            {"id": layout.azs[h.az].index, "address": h.address} for h in hosts if h.pool == "nameservice"
        ],
        "mobula_postgres": {
            "database": "mobula",
            "user": "mobula",
            "port": catalog()["patroni"].ports[0].port,
            **POSTGRES_FILES,
        },
        "mobula_secrets": str(state_dir / "secrets"),
        "mobula_release": msgspec.to_builtins(release),
        "mobula_task_image": task_image.digest(),
        "mobula_task_image_version": task_image.VERSION,
    }


def host_variables(layout: Layout, host: Machine) -> dict[str, Any]:
    """Variables of one host; lists of servers have its own zone's first."""
    near = near_first(layout.hosts.values(), host.az)
    services = services_of(host.pool)

    def addresses(pool: str) -> list[str]:
        return [h.address for h in near if h.pool == pool]

    zookeeper = [f"{address}:{catalog()['zookeeper'].ports[0].port}" for address in addresses("nameservice")]
    status_ports = {s.name: s.status.port for s in services if s.status}
    registered = [s.registered for s in services if s.registered]
    return {
        "ansible_host": host.address,
        "mobula_identity": {"region": layout.name, "host": host.name, "az": host.az, "address": host.address},
        "mobula_address": host.address,
        "mobula_shard": host.shard,
        "mobula_server_id": layout.azs[host.az].index,
        "mobula_zookeeper": zookeeper,
        "mobula_nameservers": addresses("nameservice"),
        "mobula_near_webapis": [
            f"{h.address}:{_registered_port('webapi')}" for h in near if h.pool == "api" and h.az == host.az
        ],
        "mobula_authcaches": [f"{address}:{_port('authcache')}" for address in addresses("api")],
        "mobula_peers": [
            {"host": h.name, "address": h.address} for h in near if h.pool == "metadata" and h.shard == host.shard
        ],
        "mobula_status_ports": status_ports,
        "mobula_ports": [msgspec.to_builtins(port) for service in services for port in service.ports],
        "mobula_key_owner": "postgres" if host.pool == "metadata" else "mobula",
        "mobula_registrar": {
            "zookeeper": zookeeper,
            "session_s": SESSION_S,
            "status_port": status_ports.get("registrar"),
            "uplink": layout.networks.pub,
            "services": [
                {"name": r.name, "port": r.port, "check": {**msgspec.to_builtins(r.check), **CHECK}} for r in registered
            ],
        },
    }


def _port(service: str) -> int:
    status = catalog()[service].status
    assert status is not None  # noqa: S101 (held by the catalog's tests)
    return status.port


def _registered_port(service: str) -> int:
    registered = catalog()[service].registered
    assert registered is not None  # noqa: S101 (held by the catalog's tests)
    return registered.port


def variables(layout: Layout, release: ReleaseNote, state_dir: Path) -> Mapping[str, dict[str, Any]]:
    """Each host's variables without the region's, by host name; under ``all`` the region's."""
    found = {"all": region_variables(layout, release, state_dir)}
    found.update((host.name, host_variables(layout, host)) for host in layout.hosts.values())
    return found
