"""What only several machines together can break: shards, the ensemble, placement, names, anti-affinity. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops import status
from ops.conformance.machine import first_difference
from ops.conformance.model import Finding, Machine, Server
from ops.region import Host, Region

AZS = 3
TTL_MAX_S = 5
DATABASE_ROLES = {"postgres": True, "replicator": False, "rewinder": False, "mobula": False}
"""users of PostgreSQL that may log in, and whether they are superusers (docs/architecture.md, section 9)"""
SAFE = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on", "ssl": "on", "restart_after_crash": "off"}
"""settings on which every promise of the metadata tier rests"""
CLAIMS = {
    " release": "CL-100", "another config": "CL-100", "ZFS pool": "CL-60", "behind its leader": "CL-80", "peers in the role": "CL-73",
}  # fmt: skip
"""promises by words of what `mobula status` finds; all else is about a service that is not well"""
STATELESS = ("api", "loadbalancer")

Peers = Mapping[str, Machine]
"""machines as they were read, by host name; one that could not be read is not in it"""


def by_status(subject: str, said: Iterable[status.Finding]) -> Iterator[Finding]:
    """What `mobula status` finds of a host or a shard, with the promises."""
    for one in said:
        if one.host == subject:
            claim = next((claim for words, claim in CLAIMS.items() if words in one.what), "CL-25")
            yield Finding(one.host, one.what, one.do, claim)


def versions(host: status.HostStatus, release: str) -> Iterator[Finding]:
    """What its services say they run, against the version of the wanted release (whose name is version and digest)."""
    wanted = release.rpartition("-")[0]
    for service in host.services:
        if service.version not in ("", wanted):  # Patroni's has another form
            what = f"{service.name} runs version {service.version}, wanted is {wanted}"
            yield Finding(host.name, what, "./mobula up restarts it", "CL-100")


def shard(number: int, hosts: Sequence[Host], seen: Peers) -> Iterator[Finding]:
    """One leader, one synchronous standby, one asynchronous one, in three AZs; strict; the lease held."""
    name = f"shard {number}"
    if len({host.az for host in hosts}) != AZS or len(hosts) != AZS:
        azs = ", ".join(f"{host.name} in {host.az}" for host in hosts)
        yield Finding(
            name, f"its peers are not one in each of three AZs ({azs})", "mend the layout, then ./mobula up", "CL-73"
        )
    servers: dict[str, Server] = {}
    yield from _unread(hosts, seen)
    for host in hosts:
        found = seen[host.name].postgres if host.name in seen else None
        if found and found.server:
            servers[host.name] = found.server
            yield from _server(host, found.server)
        elif found:
            yield Finding(
                host.name,
                "its PostgreSQL does not answer on the local socket",
                f"./mobula logs {host.name} patroni",
                "CL-72",
            )
    leaders = [n for n, server in servers.items() if not server.standby]
    if len(leaders) != 1:
        yield Finding(
            name, f"{len(leaders)} of its servers are primaries ({', '.join(leaders) or 'none'}), wanted is 1",
            "wait half a minute for Patroni; then ./mobula logs <host> patroni", "CL-74",
        )  # fmt: skip
    for leader in leaders:
        yield from _primary(name, leader, servers, {h.name for h in hosts} - {leader})
        yield from _rules(name, leader, seen[leader])


def _unread(hosts: Iterable[Host], seen: Peers) -> Iterator[Finding]:
    for host in hosts:
        if host.name not in seen:
            yield Finding(
                host.name, "can't be read, so its part in the whole is not known", "./mobula status says why", "CL-25"
            )


def _server(host: Host, server: Server) -> Iterator[Finding]:
    for setting in server.overridden:
        yield Finding(
            host.name, f"PostgreSQL's {setting} was set by ALTER SYSTEM, which beats Patroni's",
            f"ALTER SYSTEM RESET {setting} there, then SELECT pg_reload_conf()", "CL-76",
        )  # fmt: skip
    for setting, wanted in SAFE.items():
        found = server.settings.get(setting, "not there")
        if found != wanted:
            yield Finding(
                host.name, f"PostgreSQL runs with {setting} = {found}, wanted is {wanted}",
                "find out who changed it (pg_settings.sourcefile); Patroni's settings stand in roles/metadata", "CL-14",
            )  # fmt: skip
    for user in sorted(set(server.roles) | set(DATABASE_ROLES)):
        superuser, wanted_superuser = server.roles.get(user), DATABASE_ROLES.get(user)
        if superuser != wanted_superuser:
            kinds = {None: "not there", True: "a superuser", False: "a plain user"}
            yield Finding(
                host.name, f"database user {user} is {kinds[superuser]}, wanted is {kinds[wanted_superuser]}",
                "DROP ROLE or ALTER ROLE it on the primary", "CL-20",
            )  # fmt: skip


def _primary(name: str, leader: str, servers: Mapping[str, Server], others: set[str]) -> Iterator[Finding]:
    """Everybody streams: the synchronous one from the primary, the third from that one (the chain) or, while it can't, from the primary."""
    wait = f"wait half a minute for Patroni; then ./mobula logs {leader} patroni"
    server = servers[leader]
    standbys = {s.name: s for s in server.standbys if s.state == "streaming"}
    kinds = Counter(s.sync for s in standbys.values())
    for sync in [s.name for s in standbys.values() if s.sync == "sync" and s.name in servers]:
        chained = {s.name: s for s in servers[sync].standbys if s.state == "streaming" and s.name not in standbys}
        standbys |= chained
        kinds["async"] += len(chained)
    if set(standbys) != others:
        missing = ", ".join(sorted(others - set(standbys))) or "nobody"
        extra = ", ".join(sorted(set(standbys) - others))
        yield Finding(
            name,
            f"its primary {leader} has not every peer streaming from it: {missing} is missing{f', {extra} is too many' if extra else ''}",
            wait,
            "CL-73",
        )
    if kinds["sync"] != 1 or kinds["async"] != 1:
        yield Finding(
            name, f"its primary {leader} has {kinds['sync']} synchronous and {kinds['async']} asynchronous standbys, wanted is 1 of each",
            wait, "CL-73",
        )  # fmt: skip
    if not server.settings.get("synchronous_standby_names"):
        yield Finding(
            name,
            f"its primary {leader} has no synchronous_standby_names: it acknowledges writes that only it has",
            wait,
            "CL-76",
        )


def _rules(name: str, leader: str, seen: Machine) -> Iterator[Finding]:
    """The shard's settings in ZooKeeper, by Patroni of its primary; and the lease."""
    found = seen.postgres
    rules = (found.patroni if found else None) or {}
    for rule in ("synchronous_mode", "synchronous_mode_strict"):
        if rules.get(rule) is not True:
            yield Finding(
                name, f"Patroni's {rule} is {rules.get(rule)!r}: a lone primary would acknowledge writes",
                f"set {rule}: true again (PATCH /config of Patroni on {leader})", "CL-76",
            )  # fmt: skip
    if rules.get("pause"):
        yield Finding(name, "Patroni is paused: nobody takes over", "PATCH /config with pause: null", "CL-77")
    guard: Mapping[str, Any] = (found.guard if found else None) or {}
    if not (guard.get("lease") and guard.get("role") == "primary"):
        yield Finding(
            name, f"the guard of its primary {leader} holds no lease ({guard.get('why') or 'it does not answer'}): reads get 503",
            f"./mobula logs {leader} guard", "CL-12",
        )  # fmt: skip


def placement(number: int, region: Region, hosts: Sequence[Host], seen: Peers) -> Iterator[Finding]:
    """Every placement group of a shard: known servers, each once; the first two in two AZs, the first three in three."""
    name = f"shard {number}"
    storages = {host.name: host for host in region.pool("storage")}
    servers = [found.server for h in hosts if h.name in seen and (found := seen[h.name].postgres) and found.server]
    primary = next((server for server in servers if not server.standby), None)
    if primary is None:
        yield Finding(
            name, "its placement groups can't be read: no primary answers", "./mobula status says why", "CL-44"
        )
        return
    if not primary.groups:
        yield Finding(name, "has no placement groups: nothing can be stored", "./mobula up makes them", "CL-44")
    wrong: dict[tuple[str, str], list[int]] = {}
    for group in primary.groups:
        ids = [str(server.get("id")) for server in group.servers]
        azs = [storages[i].az for i in ids if i in storages]
        unknown = sorted(set(ids) - set(storages))
        if unknown:
            wrong.setdefault((f"name {unknown[0]}, which is no storage host", "CL-70"), []).append(group.id)
        if len(set(ids)) != len(ids):
            wrong.setdefault(("name a server twice", "CL-42"), []).append(group.id)
        if len(azs) < 2 or len(set(azs[:2])) < 2:
            wrong.setdefault(("have their first two servers in one AZ", "CL-44"), []).append(group.id)
        elif len(azs) >= 3 and len(set(azs[:3])) < 3:
            wrong.setdefault(("have their first three servers in fewer than three AZs", "CL-43"), []).append(group.id)
    for (what, claim), groups in wrong.items():
        some = ", ".join(map(str, groups[:5])) + (", ..." if len(groups) > 5 else "")
        yield Finding(
            name,
            f"{len(groups)} placement groups {what} ({some})",
            "./mobula up writes the groups anew; then audit the objects",
            claim,
        )


def ensemble(hosts: Sequence[Host], seen: Peers) -> Iterator[Finding]:
    """ZooKeeper: one leader, two followers, in three AZs."""
    yield from _unread(hosts, seen)
    modes = {host.name: seen[host.name].zookeeper for host in hosts if host.name in seen}
    if len({host.az for host in hosts}) != AZS or len(hosts) != AZS:
        yield Finding(
            "ensemble", "its servers are not one in each of three AZs", "mend the layout, then ./mobula up", "CL-29"
        )
    for name, mode in modes.items():
        if mode not in ("leader", "follower"):
            yield Finding(
                name, f"its ZooKeeper is neither leader nor follower: {mode or 'it says nothing'}", f"./mobula logs {name} zookeeper",
                "CL-29",
            )  # fmt: skip
    count = Counter(modes.values())
    if len(modes) == len(hosts) and (count["leader"], count["follower"]) != (1, len(hosts) - 1):
        yield Finding(
            "ensemble", f"it has {count['leader']} leaders and {count['follower']} followers, wanted are 1 and {len(hosts) - 1}",
            "wait half a minute; then ./mobula logs <host> zookeeper", "CL-74",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What a nameserver said to one question: `records` are (content, TTL in seconds); `why`: there was no answer."""

    records: tuple[tuple[str, int], ...] = ()
    why: str = ""


def questions(region: Region) -> dict[tuple[str, str], set[str]]:
    """(name, type) -> wanted answers: the apex, internal names, SRV of the webapis, every instance's own name."""
    zone = region.zone

    def addresses(pool: str) -> set[str]:
        return {host.address for host in region.pool(pool)}

    wanted = {
        (zone, "A"): addresses("loadbalancer"),
        (f"webapi.{zone}", "A"): addresses("api"),
        (f"authcache.{zone}", "A"): addresses("api"),
        (f"storage.{zone}", "A"): addresses("storage"),
        (f"ns.{zone}", "A"): addresses("nameservice"),
        (f"_http._tcp.webapi.{zone}", "SRV"): {f"8080 {host.name}.webapi.{zone}" for host in region.pool("api")},
        (f"_http._tcp.storage.{zone}", "SRV"): {f"8060 {host.name}.storage.{zone}" for host in region.pool("storage")},
    }
    for host in region.pool("api"):
        wanted[f"{host.name}.webapi.{zone}", "A"] = {host.address}
    return wanted


def names(host: Host, region: Region, answers: Mapping[tuple[str, str], Answer]) -> Iterator[Finding]:
    """What one nameserver answers."""
    silent = sorted(f"{name} {kind}" for (name, kind), answer in answers.items() if answer.why)
    if silent:
        first = next(answer.why for answer in answers.values() if answer.why)
        yield Finding(
            host.name, f"its DNS does not answer {silent[0]}{f' (and {len(silent) - 1} more)' if len(silent) > 1 else ''}: {first}",
            f"./mobula logs {host.name} dns; ./mobula logs {host.name} names", "CL-24",
        )  # fmt: skip
    for (name, kind), wanted in questions(region).items():
        answer = answers.get((name, kind), Answer(why="not asked"))
        if answer.why:
            continue
        found = {content for content, _ in answer.records}
        if found != wanted:
            yield Finding(
                host.name, f"its DNS answers {name} {kind} {_set_difference(found, wanted)}",
                "./mobula status says which instance is not well; ./mobula logs <its host> registrar", "CL-27",
            )  # fmt: skip
        slow = max((ttl for _, ttl in answer.records), default=0)
        if slow > TTL_MAX_S:
            yield Finding(
                host.name, f"its DNS answers {name} {kind} with a TTL of {slow} s, at most {TTL_MAX_S} s are promised",
                f"./mobula logs {host.name} names", "CL-24",
            )  # fmt: skip


def _set_difference(found: set[str], wanted: set[str]) -> str:
    parts = [f"without {' '.join(sorted(wanted - found))}"] if wanted - found else []
    parts += [f"with {' '.join(sorted(found - wanted))}, which should not be there"] if found - wanted else []
    return " and ".join(parts)


def spread(region: Region, counts: Mapping[str, int], machine_ids: Mapping[str, str]) -> Iterator[Finding]:
    """Instances of one service on different machines, as many in each AZ as the profile says; no machine there twice."""
    by_id: dict[str, list[str]] = {}
    for name, machine_id in machine_ids.items():
        by_id.setdefault(machine_id, []).append(name)
    for twins in by_id.values():
        if len(twins) > 1:
            yield Finding(
                "region", f"{' and '.join(sorted(twins))} are one machine", "take one out of the layout", "CL-22"
            )
    addresses = Counter(host.address for host in region.hosts.values())
    for address in (a for a, n in addresses.items() if n > 1):
        yield Finding("region", f"address {address} belongs to two hosts", "mend the layout, then ./mobula up", "CL-22")
    azs = sorted({host.az for host in region.hosts.values()})
    if len(azs) != AZS:
        yield Finding(
            "region", f"it has {len(azs)} AZs, {AZS} are promised", "mend the layout, then ./mobula up", "CL-05"
        )
    for pool, count in counts.items():
        per_az = Counter(host.az for host in region.pool(pool))
        if any(per_az[az] != count for az in azs):
            found = ", ".join(f"{per_az[az]} in {az}" for az in azs)
            yield Finding(
                "region", f"pool {pool} has {found}; its profile says {count} in each AZ", "./mobula plan, then ./mobula up",
                "CL-22" if pool in STATELESS else "CL-05",
            )  # fmt: skip


def reachable(
    open_ports: Iterable[tuple[str, int, str]], region: Region, public: Mapping[str, Sequence[int]]
) -> Iterator[Finding]:
    """Of (host, port, open | refused | silent) as the internet sees it: the ports in `public` are open, all else is silent."""
    for name, port, state in open_ports:
        host = region.hosts[name]
        wanted = port in public.get(host.pool, ())
        if wanted and state != "open":
            yield Finding(
                name, f"its port {port} is {state} from the internet, which must reach it",
                f"./mobula status; ./mobula shell -- nc -vz {host.address} {port}", "CL-31" if host.pool == "loadbalancer" else "CL-24",
            )  # fmt: skip
        if not wanted and state != "silent":
            yield Finding(
                name, f"its port {port} is {state} from the internet, which must not reach it",
                "./mobula up restores the edge of its AZ; ./mobula ssh "
                f"{name} -- systemctl restart mobula-firewall restores the machine's", "CL-20",
            )  # fmt: skip


def edge(az: str, loaded: str, wanted: str) -> Iterator[Finding]:
    """The allow-list between an AZ and the internet, as the kernel lists it, against the one of this clone."""
    if "drop" not in loaded:
        yield Finding(f"az {az}", "its edge lets everything in from the internet", "./mobula up restores it", "CL-20")
    elif loaded != wanted:
        yield Finding(
            f"az {az}",
            f"its edge's allow-list is not this clone's ({first_difference(loaded, wanted)})",
            "./mobula up restores it",
            "CL-20",
        )
