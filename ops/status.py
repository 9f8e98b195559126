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


class HostFacts(msgspec.Struct, frozen=True):
    """What it says of its host."""

    services: dict[str, ServiceFacts]
    release: str | None = None
    pool: str | None = None


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
    services: Sequence[ServiceStatus]


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


def look(region: Region, remotes: Mapping[str, Remote], version: str) -> Status:
    """Look at all hosts of `region` (eight at a time) and judge."""
    hosts = sorted(region.hosts.values(), key=lambda h: h.name)
    with ThreadPoolExecutor(max_workers=8) as pool:
        facts = list(pool.map(lambda host: _facts(host, remotes[host.name]), hosts))
    statuses = [_host_status(host, fact) for host, fact in zip(hosts, facts, strict=True)]
    findings = [*_findings(hosts, facts, version), *_shard_findings(statuses, region)]
    return Status(region.name, region.profile or "", version, not findings, statuses, findings)


def _facts(host: Host, remote: Remote) -> Facts:
    wanted = {
        "pool": host.pool,
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
    try:
        result = remote.run(["python3", "-", json.dumps(wanted)], stdin=ON_HOST, timeout_s=LOOK_TIMEOUT_S)
        return msgspec.json.decode(result.stdout, type=HostFacts)
    except (RemoteError, msgspec.MsgspecError) as error:
        return Silent(str(error))


def _host_status(host: Host, facts: Facts) -> HostStatus:
    release, services = "", []
    if isinstance(facts, HostFacts):
        release = facts.release or ""
        services = [_service_status(name, seen) for name, seen in facts.services.items()]
    return HostStatus(
        name=host.name, az=host.az, pool=host.pool, address=host.address, reachable=isinstance(facts, HostFacts),
        release=release, role=_role(host, facts), services=services,
    )  # fmt: skip


def _role(host: Host, facts: Facts) -> str:
    if isinstance(facts, Silent):
        return "no pool" if host.pool == "storage" else ""
    if host.pool == "metadata":
        said = facts.services["patroni"].said if "patroni" in facts.services else {}
        if said.get("role") in ("primary", "master"):
            return "leader"
        return "sync_standby" if said.get("sync_standby") else str(said.get("role", ""))
    if host.pool == "storage":
        columns = (facts.pool or "").split()
        return columns[1] if len(columns) > 1 else "no pool"
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
                "mobula plan says whether it is gone; mobula up mends it",
            )
            continue
        if seen.release != version:
            yield Finding(
                host.name,
                f"has {f'release {seen.release}' if seen.release else 'no release'}, wanted is {version}",
                "mobula up installs it",
            )
        yield from _service_findings(host, seen.services)
        if host.pool == "storage" and _role(host, seen) != "ONLINE":
            yield Finding(
                host.name, f"its ZFS pool is {_role(host, seen)}", f"mobula ssh {host.name} -- zpool status tank"
            )


def _service_findings(host: Host, services: Mapping[str, ServiceFacts]) -> Iterable[Finding]:
    for name, seen in services.items():
        status = _service_status(name, seen)
        if not status.healthy:
            log = f"; it last said: {seen.log}" if seen.log else ""
            yield Finding(host.name, f"{name}: {status.why}{log}", f"mobula logs {host.name} {name}")
        elif seen.digest and seen.said.get("config_digest") not in (None, seen.digest):
            yield Finding(host.name, f"{name} runs with an older config than lies on disk", "mobula up restarts it")


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
                    "wait half a minute for Patroni; then mobula logs <host> patroni",
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
            f"{host.name:{width}}  {host.address:15}  {host.role or '-':13}  {services if host.reachable else 'UNREACHABLE'}"
        )
    for finding in status.findings:
        lines += ["", f"! {finding.host}: {finding.what}", f"  -> {finding.do}"]
    return "\n".join(lines)
