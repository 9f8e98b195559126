"""`mobula status`: look at every host at once, then judge in pure code what is wrong and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ops.catalog import services_of
from ops.region import Host, Region
from ops.remote import Remote, RemoteError

ON_HOST = (Path(__file__).parent / "facts" / "on_host.py").read_text()
LOOK_TIMEOUT_S = 25.0
PATRONI_PORT = 8008
CERTIFICATE_DAYS_MIN = 30
DISK_FREE_MIN = 0.05
LAG_BYTES_MAX = 64 << 20


class ServiceFacts(msgspec.Struct, frozen=True):
    """What `facts/on_host.py` says of one service; `status` is whatever JSON the service answered."""

    active: str
    sub: str
    since: str = ""
    status: Any = None
    digest: str | None = None
    log: str = ""

    @property
    def said(self) -> Mapping[str, Any]:
        """The service's own words, or under `error` why there are none."""
        if self.status is None:
            return {}
        return self.status if isinstance(self.status, dict) else {"error": "its status is no JSON object"}


class PoolScan(msgspec.Struct, frozen=True):
    """The running or last scrub or resilver."""

    kind: str
    running: bool
    percent: float | None = None


class PoolSpares(msgspec.Struct, frozen=True):
    available: int
    in_use: int


class PoolFinding(msgspec.Struct, frozen=True):
    what: str
    do: str


class PoolFacts(msgspec.Struct, frozen=True):
    """What the pool agent of a storage host says, who alone looks at the pool and its disks. `state` is ZFS's word; empty: no pool."""

    state: str
    spares: PoolSpares
    findings: tuple[PoolFinding, ...]
    used_percent: int | None = None
    scan: PoolScan | None = None

    @property
    def resilver(self) -> str:
        """How far a running resilver or scrub is; empty without one."""
        if self.scan is None or not self.scan.running:
            return ""
        return f"{self.scan.kind} {'running' if self.scan.percent is None else f'{self.scan.percent:g}% done'}"


POOL_AGENT = "pool-agent"


class HostFacts(msgspec.Struct, frozen=True):
    """What it says of its host; `cluster` is Patroni's view of a metadata host's shard."""

    services: dict[str, ServiceFacts]
    release: str | None = None
    cluster: Any = None
    disk_free_bytes: int = 0
    disk_size_bytes: int = 0
    certificate_days_left: dict[str, int | None] = {}
    drillable: str | None = None

    @property
    def pool(self) -> PoolFacts | None:
        """None where there is no pool agent, or it says nothing of use."""
        if POOL_AGENT not in self.services:
            return None
        try:
            return msgspec.convert(self.services[POOL_AGENT].said, PoolFacts)
        except msgspec.ValidationError:
            return None


READ_FACTS = msgspec.json.Decoder(HostFacts)
"""made here, by one thread: msgspec crashes when several are the first to decode a type"""


@dataclass(frozen=True, slots=True)
class Silent:
    """A host that did not say anything of use."""

    why: str


Facts = HostFacts | Silent


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    host: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    name: str
    active: str
    healthy: bool
    why: str
    version: str
    since: str


@dataclass(frozen=True, slots=True)
class HostStatus:
    name: str
    az: str
    pool: str
    address: str
    reachable: bool
    release: str
    role: str
    """metadata hosts: leader, sync_standby or replica, as Patroni has it; storage hosts: the pool's state"""
    note: str
    """what else is worth knowing: a leader's lease, a standby's lag, a pool's fill and resilver"""
    shard: int
    lag_bytes: int | None
    """of a standby behind its leader; None where there is none, or nobody knows"""
    disk_free_bytes: int
    certificate_days_left: int | None
    """of the certificate that ends first"""
    services: Sequence[ServiceStatus]
    drillable: str = ""
    """the region whose drills may harm the host, as its /etc/mobula/drillable says; empty: nobody's"""


@dataclass(frozen=True, slots=True)
class Status:
    region: str
    profile: str
    version: str
    ok: bool
    hosts: Sequence[HostStatus] = field(default_factory=list)
    findings: Sequence[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self)


def look(
    region: Region, remotes: Mapping[str, Remote], version: str, planted: Iterable[tuple[str, str, str]] = ()
) -> Status:
    """Look at all hosts of `region` (eight at a time) and judge. `planted`: faults of the lab, (where, what, what to do)."""
    hosts = sorted(region.hosts.values(), key=lambda h: h.name)
    questions = [_question(host) for host in hosts]
    with ThreadPoolExecutor(max_workers=8) as pool:
        facts = list(pool.map(_facts, (remotes[host.name] for host in hosts), questions))
    statuses = [_host_status(host, fact) for host, fact in zip(hosts, facts, strict=True)]
    findings = [Finding(*fault) for fault in planted]
    findings += [*_findings(hosts, facts, version), *_shard_findings(statuses, region)]
    return Status(region.name, region.profile or "", version, not findings, statuses, findings)


def _question(host: Host) -> str:
    """What `facts/on_host.py` is to look at, as JSON."""
    wanted = {
        "cluster_url": f"http://{host.address}:{PATRONI_PORT}/cluster" if host.pool == "metadata" else None,
        "services": [
            {
                "name": s.name,
                "unit": s.unit,
                "url": f"{s.status.scheme}://{host.address}:{s.status.port}{s.status.path}" if s.status else None,
                "config": s.config,
            }
            for s in services_of(host.pool)
        ],
    }
    return json.dumps(wanted)


def _facts(remote: Remote, question: str) -> Facts:
    try:
        # Whoever looks at a region that is in need takes nothing from those who work for it.
        result = remote.run(["nice", "python3", "-", question], stdin=ON_HOST, timeout_s=LOOK_TIMEOUT_S)
        return READ_FACTS.decode(result.stdout)
    except (RemoteError, msgspec.MsgspecError) as error:
        return Silent(str(error))


def _host_status(host: Host, facts: Facts) -> HostStatus:
    seen = facts if isinstance(facts, HostFacts) else HostFacts({})
    days = [left for left in seen.certificate_days_left.values() if left is not None]
    return HostStatus(
        name=host.name, az=host.az, pool=host.pool, address=host.address, reachable=isinstance(facts, HostFacts),
        release=seen.release or "", role=_role(host, facts), note=_note(host, seen), shard=host.shard, lag_bytes=_lag(host, seen),
        disk_free_bytes=seen.disk_free_bytes, certificate_days_left=min(days, default=None),
        services=[_service_status(name, found) for name, found in seen.services.items()], drillable=seen.drillable or "",
    )  # fmt: skip


def _lag(host: Host, seen: HostFacts) -> int | None:
    """Bytes by which this peer is behind its leader, as Patroni has it."""
    members = seen.cluster.get("members") if isinstance(seen.cluster, dict) else None
    for member in members if isinstance(members, list) else ():
        if isinstance(member, dict) and member.get("name") == host.name and type(member.get("lag")) is int:
            return int(member["lag"])
    return None


def _note(host: Host, seen: HostFacts) -> str:
    if seen.pool:
        parts = [
            "" if seen.pool.used_percent is None else f"{seen.pool.used_percent}% full",
            seen.pool.resilver,
            f"{seen.pool.spares.in_use} spares in use" * bool(seen.pool.spares.in_use),
        ]
        return ", ".join(filter(None, parts))
    if host.pool != "metadata":
        return ""
    lease = seen.services["guard"].said.get("lease") if "guard" in seen.services else None
    if isinstance(lease, dict):
        return f"leased by {lease.get('kind')}"
    lag = _lag(host, seen)
    return "" if lag is None else f"lag {lag} B"


def _role(host: Host, facts: Facts) -> str:
    if isinstance(facts, Silent):
        return ""
    if host.pool == "metadata":
        said = facts.services["patroni"].said if "patroni" in facts.services else {}
        if said.get("role") in ("primary", "master"):
            return "leader"
        return "sync_standby" if said.get("sync_standby") else str(said.get("role", ""))
    if host.pool == "storage":
        return (facts.pool.state or "no pool") if facts.pool else "unknown"
    return ""


def _service_status(name: str, seen: ServiceFacts) -> ServiceStatus:
    said = seen.said
    healthy = seen.active == "active" and "error" not in said and said.get("healthy", True) is True
    why = said.get("error") or said.get("why") or ("" if seen.active == "active" else f"{seen.active} ({seen.sub})")
    return ServiceStatus(name, seen.active, healthy, str(why), str(said.get("version", "")), seen.since)


def _findings(hosts: Iterable[Host], facts: Iterable[Facts], version: str) -> Iterable[Finding]:
    for host, seen in zip(hosts, facts, strict=True):
        if isinstance(seen, Silent):
            yield Finding(
                host.name,
                f"does not answer by SSH: {seen.why}",
                "./mobula plan says whether it is gone; ./mobula up mends it",
            )
            continue
        if seen.release != version:
            yield Finding(
                host.name,
                f"has {f'release {seen.release}' if seen.release else 'no release'}, wanted is {version}",
                "./mobula up installs it",
            )
        pool = seen.pool
        if pool is not None and pool.findings:
            yield from _pool_findings(host, pool)
            # They are why it is not healthy.
            yield from _service_findings(host, {n: s for n, s in seen.services.items() if n != POOL_AGENT})
        else:
            yield from _service_findings(host, seen.services)
        yield from _room_findings(host, seen)


def _pool_findings(host: Host, pool: PoolFacts) -> Iterable[Finding]:
    for found in pool.findings:
        yield Finding(
            host.name,
            f"ZFS pool {pool.state or 'not seen'}: {found.what}",
            f"{found.do}; ./mobula ssh {host.name} -- zpool status tank",
        )


def _service_findings(host: Host, services: Mapping[str, ServiceFacts]) -> Iterable[Finding]:
    for name, seen in services.items():
        status = _service_status(name, seen)
        if not status.healthy:
            log = f"; it last said: {seen.log}" if seen.log else ""
            yield Finding(host.name, f"{name}: {status.why}{log}", f"./mobula logs {host.name} {name}")
        elif seen.digest and seen.said.get("config_digest") not in (None, seen.digest):
            yield Finding(
                host.name,
                f"{name} runs with another config than lies on disk",
                "./mobula up ships the right one and restarts it",
            )


def _room_findings(host: Host, seen: HostFacts) -> Iterable[Finding]:
    """What will run out: certificates, the disk, a standby's patience."""
    for name, left in seen.certificate_days_left.items():
        if left is None or left < CERTIFICATE_DAYS_MIN:
            what = "can't be read" if left is None else f"ends in {left} days"
            yield Finding(
                host.name,
                f"its certificate {name} {what}",
                "remove it from the region's secrets; ./mobula up makes another",
            )
    if seen.disk_free_bytes < seen.disk_size_bytes * DISK_FREE_MIN:
        room = f"{seen.disk_free_bytes >> 20} of {seen.disk_size_bytes >> 20} MiB"
        yield Finding(host.name, f"its disk has {room} left", f"./mobula ssh {host.name} -- du -xh --max-depth=3 /var")
    lag = _lag(host, seen)
    if lag is not None and lag > LAG_BYTES_MAX:
        yield Finding(host.name, f"is {lag >> 20} MiB behind its leader", f"./mobula logs {host.name} patroni")


def _shard_findings(statuses: Iterable[HostStatus], region: Region) -> Iterable[Finding]:
    roles: dict[int, list[str]] = {}
    for status in statuses:
        if status.pool == "metadata":
            roles.setdefault(region.hosts[status.name].shard, []).append(status.role)
    for shard, seen in sorted(roles.items()):
        for role in ("leader", "sync_standby"):
            if seen.count(role) != 1:
                yield Finding(
                    f"shard {shard}", f"has {seen.count(role)} peers in the role {role}, wanted is 1",
                    "wait half a minute for Patroni; then ./mobula logs <host> patroni",
                )  # fmt: skip


def table(status: Status) -> str:
    """The status for people: a line per host, then what is wrong and what to do."""
    lines = [
        f"region {status.region}  profile {status.profile}  version {status.version}  {'ok' if status.ok else 'NOT OK'}",
        "",
    ]
    width = max((len(h.name) for h in status.hosts), default=4)
    for host in status.hosts:
        services = " ".join(s.name if s.healthy else f"{s.name.upper()}!" for s in host.services)
        lines.append(
            f"{host.name:{width}}  {host.address:12} {host.role or '-':13} {host.note:17} "
            f"{services if host.reachable else 'UNREACHABLE'}".rstrip()
        )
    days = [h.certificate_days_left for h in status.hosts if h.certificate_days_left is not None]
    room = [h.disk_free_bytes for h in status.hosts if h.reachable]
    if days and room:
        lines += [
            "",
            f"the first certificate ends in {min(days)} days; the fullest disk has {min(room) >> 30} GiB left",
        ]
    for finding in status.findings:
        lines += ["", f"! {finding.host}: {finding.what}", f"  -> {finding.do}"]
    return "\n".join(lines)
