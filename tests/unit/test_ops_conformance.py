"""Conformance, judged from recorded facts: a machine as described has nothing to say, each deviation one sentence."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops import status
from ops.ansible import Changed, Failure, Outcome, Recap
from ops.catalog import services_of
from ops.conformance import machine, region, rendered
from ops.conformance.model import Finding, Machine
from ops.conformance.region import Answer
from ops.conformance.wanted import PUBLIC, packages_of, ports_of, secrets_of, users_of
from ops.region import Host, Region
from tests.conformance.outside import encode, read_answer

POOLS = {"nameservice": 11, "api": 21, "storage": 41, "metadata": 61, "loadbalancer": 81}
HOSTS = {
    f"lab-{az}-{pool}-01": Host(
        f"lab-{az}-{pool}-01", az, pool, 1, f"10.77.{n}.{last}", int(pool == "metadata"), 14 if pool == "storage" else 0
    )
    for n, az in enumerate("abc", 1)
    for pool, last in POOLS.items()
}
REGION = Region("lab", "mobula.test", "10.77.0.0/16", 18443, Path("state"), Path("stack"), HOSTS, "small")
KEY = "ssh-ed25519 AAAAoperator operator of lab"
RULES = "table inet mobula {\n\tchain input {\n\t\tpolicy drop;\n\t}\n}\n"
DISKS = [f"/disks/d{n:02}" for n in range(1, 15)]
Facts = dict[str, Any]


def pool_status(vdevs: Iterable[Iterable[str]], spares: Iterable[str]) -> str:
    lines = [
        "  pool: tank",
        " state: ONLINE",
        " scrub: none requested",
        "config:",
        "",
        "\tNAME  STATE  READ WRITE CKSUM",
        "\ttank  ONLINE  0 0 0",
    ]
    for number, vdev in enumerate(vdevs):
        lines += [f"\t  raidz2-{number}  ONLINE  0 0 0", *(f"\t    {disk}  ONLINE  0 0 0" for disk in vdev)]
    lines += ["\tspares", *(f"\t  {disk}  AVAIL" for disk in spares), "", "errors: No known data errors"]
    return "\n".join(lines)


VDEVS = [DISKS[0:4], DISKS[4:8], DISKS[8:12]]


def server(role: str) -> Facts:
    others = [
        {"name": "lab-b-metadata-01", "state": "streaming", "sync": "sync"},
        {"name": "lab-c-metadata-01", "state": "streaming", "sync": "async"},
    ]
    groups = [{"id": 1, "servers": [{"id": f"lab-{az}-storage-01", "az": az} for az in "abc"]}]
    return {
        "standby": role != "leader", "settings": {**region.SAFE, "synchronous_standby_names": "\"lab-b-metadata-01\""}, "overridden": [],
        "standbys": others if role == "leader" else [], "roles": dict(region.DATABASE_ROLES), "groups": groups,
    }  # fmt: skip


def facts(host: Host) -> Facts:
    """Of a machine on which all is as described."""
    services = services_of(host.pool)
    zookeeper = ("leader" if host.az == "a" else "follower") if host.pool == "nameservice" else ""
    users = [
        ("root", 0, "/bin/bash", []),
        *((u, 900, "/usr/sbin/nologin", []) for u in sorted(users_of(host.pool) - {"root", "postgres"})),
    ]
    users += [("postgres", 102, "/bin/bash", ["ssl-cert"])]
    return {
        "hostname": host.name, "label": f"lab {host.name}", "machine_id": host.name,
        "packages": dict.fromkeys(packages_of(host.pool), "installed"), "lost_files": [],
        "accounts": [{"name": n, "uid": u, "gid": u, "home": "/", "shell": s, "groups": g} for n, u, s, g in users],
        "authorized_keys": {"/root/.ssh/authorized_keys": [KEY]},
        "files": [
            {
                "path": f"/etc/mobula/secrets/{name}", "mode": 0o600 if "key" in name else 0o644, "kind": "file", "owner": "mobula",
                "group": "root", "secret": "key" in name,
            }
            for name in sorted(secrets_of(host.pool))
        ],
        "units": {
            s.unit: {
                "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "NeedDaemonReload": "no",
                "DropInPaths": "",
            }
            for s in services
        },
        "our_units": [f"{s.unit}.service" for s in services], "failed": [],
        "listeners": [
            {"protocol": port.protocol, "address": "0.0.0.0", "port": port.port, "process": "x", "unit": unit}
            for unit, port in ports_of(host.pool)
            if port.port != machine.ZOOKEEPER_LEADER_PORT or zookeeper == "leader"
        ],
        "firewall": {"loaded": RULES, "wanted": RULES},
        "tcp_retries": "5",
        "zfs": {
            "status": pool_status(VDEVS, DISKS[12:]), "owner": f"lab/{host.name}", "failmode": "tank  failmode  continue  local",
            "mounted": "yes", "disks": DISKS,
        },
        "postgres": {
            "server": server("leader" if host.az == "a" else "replica"),
            "patroni": {"synchronous_mode": True, "synchronous_mode_strict": True},
            "guard": {"role": "primary", "lease": {"kind": "beat", "left_s": 0.9}, "healthy": True, "why": ""},
        },
        "zookeeper": zookeeper,
    }  # fmt: skip


def read(found: Facts) -> Machine:
    return msgspec.convert(found, Machine)


def judged(host: Host, found: Facts) -> list[Finding]:
    """Every judgement of a single machine."""
    seen = read(found)
    checks = (
        machine.packages,
        machine.accounts,
        machine.secrets,
        machine.units,
        machine.listeners,
        machine.firewall,
        machine.kernel,
    )
    told = [*machine.identity(host, seen, "lab"), *machine.keys(host, seen, KEY)]
    told += [finding for check in checks for finding in check(host, seen)]
    return told + (list(machine.pool(host, seen, "lab")) if host.pool == "storage" else [])


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_a_machine_that_is_as_described_has_nothing_to_say(name: str) -> None:
    assert judged(HOSTS[name], facts(HOSTS[name])) == []


API, STORAGE, NAMES = HOSTS["lab-c-api-01"], HOSTS["lab-c-storage-01"], HOSTS["lab-b-nameservice-01"]
LISTENER = {"protocol": "tcp", "address": "0.0.0.0", "port": 9999, "process": "python3", "unit": "run-u7.service"}
Change = Callable[[Facts], object]


def of_unit(unit: str, **values: str) -> Change:
    return lambda found: found["units"][unit].update(values)


def of_user(name: str, **values: Any) -> Change:
    return lambda found: next(a for a in found["accounts"] if a["name"] == name).update(values)


def of_file(name: str, **values: Any) -> Change:
    return lambda found: next(f for f in found["files"] if f["path"].endswith(name)).update(values)


def of_pool(**values: Any) -> Change:
    return lambda found: found["zfs"].update(values)


DEVIATIONS: list[tuple[Host, Change, str, str]] = [
    (API, lambda f: f.update(hostname="other"), "calls itself 'other'", "CL-22"),
    (API, lambda f: f.update(label="lab lab-a-api-01"), "/etc/mobula-machine says 'lab lab-a-api-01'", "CL-22"),
    (API, lambda f: f["packages"].update(nftables="config-files"), "package nftables is config-files", "CL-100"),
    (API, lambda f: f["packages"].pop("nftables"), "package nftables is not there", "CL-100"),
    (
        API,
        lambda f: f.update(lost_files=["/usr/sbin/nft", "/x"]),
        "/usr/sbin/nft is missing, a file of an installed package (and 1 more)",
        "CL-100",
    ),
    (API, of_user("mobula", uid=901), "user mobula has number 901:900", "CL-100"),
    (API, of_user("mobula", shell="/bin/sh"), "user mobula may log in: its shell is /bin/sh", "CL-20"),  # noqa: S604
    (API, of_user("mobula", groups=["shadow"]), "user mobula is in group shadow", "CL-20"),
    (API, of_user("mobula", uid=0), "user mobula has number 0, as root", "CL-20"),
    (API, lambda f: f["accounts"].pop(1), "has no user mobula", "CL-100"),
    (
        API,
        lambda f: f["authorized_keys"]["/root/.ssh/authorized_keys"].append("ssh-rsa AAAAother eve"),
        "a key that is not the operator's (eve)",
        "CL-20",
    ),
    (
        API,
        lambda f: f["authorized_keys"].update({"/home/x/.ssh/authorized_keys": [KEY]}),
        "/home/x/.ssh/authorized_keys lets in a key",
        "CL-20",
    ),
    (API, lambda f: f["authorized_keys"].clear(), "the operator's key is not in", "CL-100"),
    (
        API,
        of_file("host.key", mode=0o604),
        "secret /etc/mobula/secrets/host.key can be read by others (mode 0604",
        "CL-20",
    ),
    (
        API,
        of_file("host.key", mode=0o660),
        "secret /etc/mobula/secrets/host.key can be read by others (mode 0660",
        "CL-20",
    ),
    (API, of_file("host.pem", mode=0o666), "host.pem can be written by everybody", "CL-20"),
    (API, of_file("client.key", path="/etc/mobula/secrets/other.key"), "other.key lies there and no service", "CL-20"),
    (API, of_file("client.key", path="/etc/mobula/secrets/other.key"), "client.key is missing", "CL-100"),
    (
        API,
        of_unit("mobula-webapi", ActiveState="inactive", SubState="dead"),
        "unit mobula-webapi is inactive (dead)",
        "CL-25",
    ),
    (API, of_unit("mobula-webapi", UnitFileState="disabled"), "unit mobula-webapi is disabled", "CL-100"),
    (API, of_unit("mobula-webapi", LoadState="masked"), "unit mobula-webapi is masked", "CL-25"),
    (
        API,
        of_unit("mobula-webapi", DropInPaths="/etc/systemd/system/x.conf"),
        "is changed by /etc/systemd/system/x.conf",
        "CL-100",
    ),
    (API, lambda f: f["units"].pop("mobula-webapi"), "unit mobula-webapi is unknown to systemd", "CL-25"),
    (API, lambda f: f["our_units"].append("mobula-storage.service"), "unit mobula-storage.service is there", "CL-100"),
    (API, lambda f: f["failed"].append("cron.service"), "unit cron.service has failed", "CL-26"),
    (API, lambda f: f["listeners"].append(LISTENER), "python3 of run-u7.service listens on tcp 0.0.0.0:9999", "CL-20"),
    (
        API,
        lambda f: f["listeners"].append({**LISTENER, "port": 8080}),
        "listens on tcp 0.0.0.0:8080, which is mobula-webapi.service's",
        "CL-20",
    ),
    (
        API,
        lambda f: f.update(listeners=[x for x in f["listeners"] if x["port"] != 8081]),
        "nothing listens on tcp port 8081",
        "CL-25",
    ),
    (NAMES, lambda f: f.update(zookeeper="leader"), "nothing listens on tcp port 2888", "CL-25"),
    (API, lambda f: f["firewall"].update(loaded=""), "no firewall is loaded", "CL-20"),
    (API, lambda f: f.update(tcp_retries="15"), "net.ipv4.tcp_retries2 is 15", "CL-07"),
    (API, lambda f: f["firewall"].update(wanted=""), "/etc/mobula/firewall.nft can't be loaded", "CL-20"),
    (
        API,
        lambda f: f["firewall"].update(loaded=RULES + "\ttcp dport 22 accept\n"),
        "it also has 'tcp dport 22 accept'",
        "CL-20",
    ),
    (
        API,
        lambda f: f["firewall"].update(wanted=RULES + "\ttcp dport 22 accept\n"),
        "it lacks 'tcp dport 22 accept'",
        "CL-20",
    ),
    (STORAGE, of_pool(status=""), "has no ZFS pool tank", "CL-60"),
    (STORAGE, of_pool(status=pool_status(VDEVS, DISKS[12:13])), "has 1 hot spares, wanted are 2 (/disks/d14)", "CL-60"),
    (
        STORAGE,
        of_pool(status=pool_status([DISKS[:6], DISKS[6:12]], DISKS[12:])),
        "raidz2 vdevs have 6 + 6 disks, wanted are 3 x 4",
        "CL-60",
    ),
    (
        STORAGE,
        of_pool(status=pool_status(VDEVS, DISKS[12:]).replace("d03  ONLINE", "d03  FAULTED")),
        "disk /disks/d03 of its pool is FAULTED",
        "CL-63",
    ),
    (
        STORAGE,
        of_pool(status=pool_status(VDEVS, DISKS[12:]).replace("No known", "7")),
        "its pool has data errors",
        "CL-67",
    ),
    (STORAGE, of_pool(owner="lab/other"), "its pool's owner is 'lab/other'", "CL-60"),
    (STORAGE, of_pool(failmode="tank  failmode  wait  default"), "failmode is not continue", "CL-60"),
    (STORAGE, of_pool(mounted="no"), "tank/objects is not mounted", "CL-60"),
    (STORAGE, of_pool(disks=DISKS[:13]), "has 13 disks, its layout says 14", "CL-60"),
]


@pytest.mark.parametrize(("host", "change", "says", "claim"), DEVIATIONS)
def test_a_deviation_is_named_with_its_claim(host: Host, change: Change, says: str, claim: str) -> None:
    found = facts(host)
    change(found)
    told = judged(host, found)
    assert any(says in f.what and f.claim == claim and f.host == host.name and f.do for f in told), told


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_a_listener_on_loopback_is_nobodys_business(address: str) -> None:
    found = facts(API)
    found["listeners"].append({**LISTENER, "address": address})
    assert judged(API, found) == []


@pytest.mark.parametrize("address", ["*", "::", "10.77.3.21", "fe80::1", ""])
def test_any_other_address_is(address: str) -> None:
    assert not machine.is_loopback(address)


PEERS = [h for h in HOSTS.values() if h.pool == "metadata"]
ENSEMBLE = [h for h in HOSTS.values() if h.pool == "nameservice"]
A, B, C = (h.name for h in PEERS)


def of_shard(change: Callable[[dict[str, Facts]], object]) -> list[Finding]:
    found = {h.name: facts(h) for h in PEERS}
    change(found)
    seen = {name: read(one) for name, one in found.items()}
    return [*region.shard(1, PEERS, seen), *region.placement(1, REGION, PEERS, seen)]


def test_a_shard_as_described_has_nothing_to_say() -> None:
    assert of_shard(lambda _: None) == []


def of_server(name: str, **values: Any) -> Callable[[dict[str, Facts]], object]:
    return lambda found: found[name]["postgres"]["server"].update(values)


def of_groups(*groups: str) -> Callable[[dict[str, Facts]], object]:
    made = [{"id": n, "servers": [{"id": i} for i in group.split()]} for n, group in enumerate(groups)]
    return of_server(A, groups=made)


@pytest.mark.parametrize(
    ("change", "says", "claim"),
    [
        (of_server(A, standby=True), "0 of its servers are primaries (none)", "CL-74"),
        (of_server(B, standby=False), "2 of its servers are primaries", "CL-74"),
        (lambda f: f[B]["postgres"].update(server=None), "its PostgreSQL does not answer", "CL-72"),
        (of_server(A, standbys=[]), f"{B}, {C} is missing", "CL-73"),
        (of_server(A, standbys=[]), "has 0 synchronous and 0 asynchronous standbys", "CL-73"),
        (of_server(A, settings=dict(region.SAFE)), "has no synchronous_standby_names", "CL-76"),
        (
            of_server(A, settings={**region.SAFE, "synchronous_standby_names": "x", "fsync": "off"}),
            "runs with fsync = off",
            "CL-14",
        ),
        (of_server(B, overridden=["work_mem"]), "PostgreSQL's work_mem was set by ALTER SYSTEM", "CL-76"),
        (
            of_server(B, roles={**region.DATABASE_ROLES, "eve": True}),
            "database user eve is a superuser, wanted is not there",
            "CL-20",
        ),
        (
            of_server(B, roles={**region.DATABASE_ROLES, "mobula": True}),
            "database user mobula is a superuser, wanted is a plain user",
            "CL-20",
        ),
        (
            lambda f: f[A]["postgres"]["patroni"].update(synchronous_mode_strict=False),
            "Patroni's synchronous_mode_strict is False",
            "CL-76",
        ),
        (lambda f: f[A]["postgres"]["patroni"].update(pause=True), "Patroni is paused", "CL-77"),
        (lambda f: f[A]["postgres"].update(guard=None), "holds no lease (it does not answer)", "CL-12"),
        (lambda f: f[A]["postgres"]["guard"].update(lease=None, why="no beat"), "holds no lease (no beat)", "CL-12"),
        (of_groups(), "has no placement groups", "CL-44"),
        (of_groups("lab-a-storage-01 lab-a-storage-01"), "1 placement groups name a server twice", "CL-42"),
        (
            of_groups("lab-a-storage-01 lab-a-storage-01"),
            "1 placement groups have their first two servers in one AZ (0)",
            "CL-44",
        ),
        (
            of_groups("lab-a-storage-01 lab-b-storage-01 lab-a-storage-01"),
            "first three servers in fewer than three AZs",
            "CL-43",
        ),
        (of_groups("lab-a-storage-01 gone"), "name gone, which is no storage host", "CL-70"),
    ],
)
def test_what_is_wrong_with_a_shard_is_named(
    change: Callable[[dict[str, Facts]], object], says: str, claim: str
) -> None:
    told = of_shard(change)
    assert any(says in f.what and f.claim == claim for f in told), told


def test_a_peer_that_can_not_be_read_is_named() -> None:
    seen = {h.name: read(facts(h)) for h in PEERS[:2]}
    (unread,) = region.shard(1, PEERS, seen)
    assert (unread.host, unread.what) == (C, "can't be read, so its part in the whole is not known")
    (unknown,) = region.placement(1, REGION, PEERS, {C: read(facts(PEERS[2]))})
    assert unknown.what == "its placement groups can't be read: no primary answers"
    assert [f.host for f in region.ensemble(ENSEMBLE, {})] == [h.name for h in ENSEMBLE]


def of_ensemble(modes: Iterable[str], hosts: list[Host] = ENSEMBLE) -> list[Finding]:
    seen = {h.name: read({**facts(h), "zookeeper": mode}) for h, mode in zip(hosts, modes, strict=True)}
    return list(region.ensemble(hosts, seen))


def test_an_ensemble_has_one_leader() -> None:
    assert of_ensemble(["follower", "leader", "follower"]) == []
    assert "0 leaders and 3 followers" in of_ensemble(["follower"] * 3)[0].what
    refused, count = of_ensemble(["leader", "follower", "[Errno 111] Connection refused"])
    assert "neither leader nor follower: [Errno 111]" in refused.what
    assert "1 leaders and 1 followers" in count.what
    two = [ENSEMBLE[0], dataclasses.replace(ENSEMBLE[1], az="a"), ENSEMBLE[2]]
    assert "not one in each of three AZs" in of_ensemble(["leader", "follower", "follower"], two)[0].what


def answers() -> dict[tuple[str, str], Answer]:
    return {
        asked: Answer(tuple((content, 5) for content in wanted)) for asked, wanted in region.questions(REGION).items()
    }


def test_names_are_compared_with_the_layout() -> None:
    apex = ("lab.mobula.test", "A")
    assert list(region.names(NAMES, REGION, answers())) == []
    (lost,) = region.names(NAMES, REGION, {**answers(), apex: Answer((("10.77.1.81", 5), ("10.9.9.9", 5)))})
    assert lost.what == (
        "its DNS answers lab.mobula.test A without 10.77.2.81 10.77.3.81 and with 10.9.9.9, which should not be there"
    )
    slow = {**answers(), apex: Answer(tuple((content, 60) for content, _ in answers()[apex].records))}
    (ttl,) = region.names(NAMES, REGION, slow)
    assert "with a TTL of 60 s" in ttl.what
    (silent,) = region.names(NAMES, REGION, {**answers(), apex: Answer(why="timed out")})
    assert silent.what == "its DNS does not answer lab.mobula.test A: timed out"


def test_a_reply_of_a_nameserver_is_read() -> None:
    name = encode("_http._tcp.webapi.lab.mobula.test")
    target = encode("lab-a-api-01")[:-1] + struct.pack(">H", 0xC000 | (12 + len(encode("_http._tcp")) - 1))
    header = struct.pack(">HHHHHH", 7, 0x8400, 1, 1, 0, 0)
    srv = struct.pack(">HHH", 0, 10, 8080) + target
    record = struct.pack(">HHHIH", 0xC00C, 33, 1, 4, len(srv)) + srv
    assert read_answer(header + name + struct.pack(">HH", 33, 1) + record, 33) == Answer(
        (("8080 lab-a-api-01.webapi.lab.mobula.test", 4),)
    )
    assert (
        read_answer(struct.pack(">HHHHHH", 7, 0x8402, 1, 0, 0, 0) + name + struct.pack(">HH", 33, 1), 33).why
        == "code 2"
    )


@pytest.mark.parametrize(
    ("what", "claim"),
    [
        ("webapi: inactive (dead)", "CL-25"), ("does not answer by SSH: timed out", "CL-25"), ("has no release, wanted is 1", "CL-100"),
        ("webapi runs with another config than lies on disk", "CL-100"), ("its ZFS pool is DEGRADED", "CL-60"),
        ("is 100 MiB behind its leader", "CL-80"), ("has 0 peers in the role sync_standby, wanted is 1", "CL-73"),
    ],
)  # fmt: skip
def test_what_status_finds_breaks_a_promise_too(what: str, claim: str) -> None:
    said = [status.Finding("h1", what, "mend it"), status.Finding("h2", "something else", "mend that")]
    assert list(region.by_status("h1", said)) == [Finding("h1", what, "mend it", claim)]


def test_the_version_that_runs_is_the_releases() -> None:
    services = [
        status.ServiceStatus(n, "active", True, "", v, "")
        for n, v in (("webapi", "0.1.0"), ("patroni", ""), ("authcache", "0.0.9"))
    ]
    seen = status.HostStatus("h1", "a", "api", "10.77.1.21", True, "0.1.0-abc", "", "", 0, None, 0, None, services)
    (old,) = region.versions(seen, "0.1.0-abc")
    assert old.what == "authcache runs version 0.0.9, wanted is 0.1.0"


def test_instances_are_spread() -> None:
    counts = dict.fromkeys(POOLS, 1)
    ids = {name: name for name in HOSTS}
    assert list(region.spread(REGION, counts, ids)) == []
    (twins,) = region.spread(REGION, counts, {**ids, "lab-a-api-01": "lab-b-api-01"})
    assert twins.what == "lab-a-api-01 and lab-b-api-01 are one machine"
    (few,) = region.spread(REGION, {**counts, "api": 2}, ids)
    assert (few.what, few.claim) == ("pool api has 1 in a, 1 in b, 1 in c; its profile says 2 in each AZ", "CL-22")
    moved = {**HOSTS, "lab-c-api-01": dataclasses.replace(HOSTS["lab-c-api-01"], az="b", address="10.77.2.21")}
    told = [f.what for f in region.spread(dataclasses.replace(REGION, hosts=moved), counts, ids)]
    assert "address 10.77.2.21 belongs to two hosts" in told


def test_the_internet_reaches_what_is_public_and_nothing_else() -> None:
    public = {pool: ports for pool, (_, ports) in PUBLIC.items()}
    well = [
        ("lab-a-loadbalancer-01", 443, "open"),
        ("lab-a-loadbalancer-01", 22, "silent"),
        (API.name, 443, "silent"),
        (NAMES.name, 53, "open"),
    ]
    assert list(region.reachable(well, REGION, public)) == []
    ill = [
        ("lab-a-loadbalancer-01", 443, "silent"),
        (API.name, 22, "refused"),
        (API.name, 8080, "open"),
        (NAMES.name, 53, "refused"),
    ]
    told = list(region.reachable(ill, REGION, public))
    assert [f.claim for f in told] == ["CL-31", "CL-20", "CL-20", "CL-24"]
    assert told[1].what == "its port 22 is refused from the internet, which must not reach it"


def test_the_edge_of_an_az_has_its_allow_list() -> None:
    assert list(region.edge("a", RULES, RULES)) == []
    (gone,) = region.edge("a", "", RULES)
    assert (gone.host, gone.what) == ("az a", "its edge lets everything in from the internet")
    (more,) = region.edge("a", RULES + "\t\taccept\n", RULES)
    assert "it also has 'accept'" in more.what


def test_what_ansible_would_change_is_one_sentence_a_task() -> None:
    found = Outcome(
        Recap(0, 0, 0),
        (
            Changed("h1", "Ship", ("/etc/hosts", "mobula-dns restarted", "mobula-dns enabled")),
            Changed("h1", "Start", ("mobula-dns started",)),
            Changed("h2", "Some command"),
        ),
        (Failure("h3", "Ship", "create user mobula: it exists\nwith number 901"),),
    )
    assert [f.what for f in rendered.differences("h1", found)] == [
        "is not what this clone renders; ./mobula up would change /etc/hosts, mobula-dns restarted"
    ]
    assert [f.what for f in rendered.differences("h2", found)] == [
        "is not what this clone renders; ./mobula up would change Some command"
    ]
    (failed,) = rendered.differences("h3", found)
    assert (
        failed.what == "can't be compared with what this clone renders: create user mobula: it exists with number 901"
    )
