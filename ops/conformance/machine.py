"""One machine, judged: every function takes the host, what was read of it, and yields findings. Nothing is asked here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from mobula.lab.topology import TCP_RETRIES
from mobula.pool.zpool_status import Node, NotUnderstood, parse_status
from ops.catalog import services_of
from ops.conformance.model import Finding, Listener, Machine, Unit
from ops.conformance.wanted import packages_of, ports_of, secrets_of, users_of
from ops.region import Host

UID = 900
NO_LOGIN = ("/usr/sbin/nologin", "/bin/false", "/sbin/nologin")
LOGIN = {"root": "/bin/bash", "sync": "/bin/sync", "postgres": "/bin/bash"}
"""who has a shell: the operator; Debian's own two, whose passwords are locked and to whom no key leads"""
GROUPS = {"postgres": ["ssl-cert"]}
"""who is in more groups than its own: PostgreSQL's package adds it, to read /etc/ssl/private, which is empty here"""
READERS_MAX = 0o640
"""a file with a key or password in it: its owner may write, its service's group may read, nobody else"""
VDEVS, SPARES = 3, 2
ZOOKEEPER_LEADER_PORT = 2888
"""only the ensemble's leader listens on it: followers connect to it"""


def identity(host: Host, seen: Machine, region: str) -> Iterator[Finding]:
    """The machine is who the layout says, and nobody else's copy."""
    if seen.hostname != host.name:
        yield Finding(host.name, f"calls itself {seen.hostname!r}", "./mobula lab wipe it, then ./mobula up", "CL-22")
    if seen.label != f"{region} {host.name}":
        yield Finding(
            host.name, f"/etc/mobula-machine says {seen.label!r}, not {region} {host.name}",
            "find out whose machine it is before anything else", "CL-22",
        )  # fmt: skip


def packages(host: Host, seen: Machine) -> Iterator[Finding]:
    """Every package that the roles need is installed, with all of its files."""
    for name in packages_of(host.pool):
        state = seen.packages.get(name, "not there")
        if state != "installed":
            yield Finding(
                host.name, f"package {name} is {state}, its roles need it", f"./mobula ssh {host.name} -- dpkg --audit; "
                "a machine is mended by ./mobula lab wipe and ./mobula up", "CL-100",
            )  # fmt: skip
    if seen.lost_files:
        first, more = seen.lost_files[0], len(seen.lost_files) - 1
        yield Finding(
            host.name, f"{first} is missing, a file of an installed package{f' (and {more} more)' if more else ''}",
            "put it back from another machine; it is lost on no machine made anew (./mobula lab wipe, ./mobula up)", "CL-100",
        )  # fmt: skip


def accounts(host: Host, seen: Machine) -> Iterator[Finding]:
    """Users of the services are there with their numbers; no login and no group that nobody described."""
    by_name = {account.name: account for account in seen.accounts}
    for name in sorted(users_of(host.pool) - set(by_name)):
        yield Finding(host.name, f"has no user {name}, its services run as it", "./mobula up makes it", "CL-100")
    mobula = by_name.get("mobula")
    if mobula and (mobula.uid, mobula.gid) != (UID, UID):
        yield Finding(
            host.name, f"user mobula has number {mobula.uid}:{mobula.gid}, wanted is {UID}:{UID}",
            f"usermod --uid {UID} mobula there, with its services stopped", "CL-100",
        )  # fmt: skip
    for account in seen.accounts:
        if account.uid == 0 and account.name != "root":
            yield Finding(
                host.name, f"user {account.name} has number 0, as root", f"userdel {account.name} there", "CL-20"
            )
        if account.shell not in NO_LOGIN and account.shell != LOGIN.get(account.name):
            yield Finding(
                host.name, f"user {account.name} may log in: its shell is {account.shell}",
                f"usermod --shell {NO_LOGIN[0]} {account.name} there", "CL-20",
            )  # fmt: skip
        for group in account.groups:
            if group not in GROUPS.get(account.name, []):
                yield Finding(
                    host.name, f"user {account.name} is in group {group}, which nothing of ours asks for",
                    f"gpasswd --delete {account.name} {group} there", "CL-20",
                )  # fmt: skip


def keys(host: Host, seen: Machine, operator_key: str) -> Iterator[Finding]:
    """The operator's key opens the machine, and no other one."""
    wanted = operator_key.split()[:2]
    for path, lines in sorted(seen.authorized_keys.items()):
        for line in lines:
            if line.split()[:2] != wanted or path != "/root/.ssh/authorized_keys":
                whose = " ".join(line.split()[2:]) or "no comment"
                yield Finding(
                    host.name, f"{path} lets in a key that is not the operator's ({whose})",
                    "take the line out, and find out who put it there", "CL-20",
                )  # fmt: skip
    if wanted not in [line.split()[:2] for line in seen.authorized_keys.get("/root/.ssh/authorized_keys", [])]:
        yield Finding(
            host.name, "the operator's key is not in /root/.ssh/authorized_keys",
            "put it back while the connection lasts", "CL-100",
        )  # fmt: skip


def secrets(host: Host, seen: Machine) -> Iterator[Finding]:
    """Keys and passwords are read by their services only, and lie only where they are needed; nobody else writes to our files."""
    for file in seen.files:
        mode = f"mode {file.mode:04o}, {file.owner}:{file.group}"
        if file.secret and file.mode & ~READERS_MAX:
            yield Finding(
                host.name, f"secret {file.path} can be read by others ({mode})", "./mobula up sets it right; then renew the secret",
                "CL-20",
            )  # fmt: skip
        elif file.kind != "link" and file.mode & 0o002:
            yield Finding(
                host.name,
                f"{file.path} can be written by everybody ({mode})",
                f"chmod o-w {file.path} there",
                "CL-20",
            )
    found = {
        PurePosixPath(f.path).name
        for f in seen.files
        if PurePosixPath(f.path).parent == PurePosixPath("/etc/mobula/secrets")
    }
    for name in sorted(found - secrets_of(host.pool)):
        yield Finding(
            host.name, f"/etc/mobula/secrets/{name} lies there and no service of a {host.pool} host needs it",
            "remove it there", "CL-20",
        )  # fmt: skip
    for name in sorted(secrets_of(host.pool) - found):
        yield Finding(host.name, f"/etc/mobula/secrets/{name} is missing", "./mobula up ships it", "CL-100")


def units(host: Host, seen: Machine) -> Iterator[Finding]:
    """The described units are enabled and run as described; no other unit of ours is there, and none has failed."""
    described = {service.unit: service.name for service in services_of(host.pool)}
    for unit, name in described.items():
        found = seen.units.get(unit)
        yield from _unit(host, unit, name, found)
    for listed in seen.our_units:
        if listed.removesuffix(".service") not in described:
            yield Finding(
                host.name,
                f"unit {listed} is there, and no service of a {host.pool} host is called so",
                f"./mobula ssh {host.name} -- systemctl disable --now {listed}",
                "CL-100",
            )
    for failed in seen.failed:
        if failed.removesuffix(".service") not in described:  # those are judged above
            yield Finding(
                host.name,
                f"unit {failed} has failed",
                f"./mobula ssh {host.name} -- systemctl status {failed}",
                "CL-26",
            )


def _unit(host: Host, unit: str, name: str, found: Unit | None) -> Iterator[Finding]:
    if found is None or found.load_state != "loaded":
        state = found.load_state if found else "unknown to systemd"
        yield Finding(host.name, f"unit {unit} is {state}", "./mobula up installs it", "CL-25")
        return
    if found.active_state != "active":
        yield Finding(
            host.name, f"unit {unit} is {found.active_state} ({found.sub_state})",
            f"./mobula logs {host.name} {name} says why; ./mobula up starts it", "CL-25",
        )  # fmt: skip
    if found.unit_file_state != "enabled":
        yield Finding(
            host.name, f"unit {unit} is {found.unit_file_state}: it would not come back after a power loss",
            "./mobula up enables it", "CL-100",
        )  # fmt: skip
    if found.drop_in_paths:
        yield Finding(
            host.name, f"unit {unit} is changed by {found.drop_in_paths}", "remove that file there, then ./mobula up",
            "CL-100",
        )  # fmt: skip


def is_loopback(address: str) -> bool:
    """No other machine reaches it. (`*` is how ss writes both families' any.)"""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.is_loopback


def listeners(host: Host, seen: Machine) -> Iterator[Finding]:
    """What is described listens, held by its own unit, and nothing else does.

    Loopback is left out, as nobody but the machine itself reaches it: HAProxy's state for the registrar, DNS for the machine.
    """
    described = {(port.protocol, port.port): unit for unit, port in ports_of(host.pool)}
    open_to_others = [found for found in seen.listeners if not is_loopback(found.address)]
    for found in open_to_others:
        wanted = described.get((found.protocol, found.port))
        if wanted is None:
            what = f"{_who(found)} listens on {_where(found)}, which nothing describes"
            yield Finding(host.name, what, _stop(host, found), "CL-20")
        elif found.unit not in (wanted, wanted.replace(".service", ".socket")):
            yield Finding(
                host.name, f"{_who(found)} listens on {_where(found)}, which is {wanted}'s", _stop(host, found), "CL-20"
            )
    for (protocol, port), unit in described.items():
        if port == ZOOKEEPER_LEADER_PORT and seen.zookeeper != "leader":
            continue
        if not any((found.protocol, found.port) == (protocol, port) for found in open_to_others):
            yield Finding(
                host.name, f"nothing listens on {protocol} port {port} of {unit}",
                f"./mobula logs {host.name} {unit.removeprefix('mobula-').removesuffix('.service')}; ./mobula up starts it", "CL-25",
            )  # fmt: skip


def _where(found: Listener) -> str:
    return f"{found.protocol} {found.address}:{found.port}"


def _who(found: Listener) -> str:
    return f"{found.process or 'a process'} of {found.unit or 'no unit'}"


def _stop(host: Host, found: Listener) -> str:
    return (
        f"./mobula ssh {host.name} -- systemctl stop {found.unit}"
        if found.unit
        else f"./mobula ssh {host.name} -- ss -lntup"
    )


def firewall(host: Host, seen: Machine) -> Iterator[Finding]:
    """The kernel has exactly the rules of the machine's file."""
    loaded, wanted = seen.firewall.loaded.strip(), seen.firewall.wanted.strip()
    do = f"./mobula ssh {host.name} -- systemctl restart mobula-firewall"
    if not wanted:
        yield Finding(host.name, "/etc/mobula/firewall.nft can't be loaded", "./mobula up writes it anew", "CL-20")
    elif "policy drop" not in loaded:
        yield Finding(host.name, "no firewall is loaded: every port is open to the whole region", do, "CL-20")
    elif loaded != wanted:
        yield Finding(
            host.name, f"the loaded firewall is not that of /etc/mobula/firewall.nft ({first_difference(loaded, wanted)})", do,
            "CL-20",
        )  # fmt: skip


def kernel(host: Host, seen: Machine) -> Iterator[Finding]:
    """Connections to a host that is gone end soon."""
    if seen.tcp_retries != str(TCP_RETRIES):
        yield Finding(
            host.name, f"net.ipv4.tcp_retries2 is {seen.tcp_retries or 'unknown'}, {TCP_RETRIES} is wanted: after a partition "
            "connections would wait for longer than it lasted",
            f"nsenter --net=/run/netns/{host.name} sysctl -w net.ipv4.tcp_retries2={TCP_RETRIES}", "CL-07",
        )  # fmt: skip


def first_difference(loaded: str, wanted: str) -> str:
    """The first rule that only one of the two has."""
    more = [line.strip() for line in loaded.splitlines() if line not in wanted.splitlines()]
    less = [line.strip() for line in wanted.splitlines() if line not in loaded.splitlines()]
    if more:
        return f"it also has {more[0]!r}"
    return f"it lacks {less[0]!r}" if less else "the same rules in another order"


def pool(host: Host, seen: Machine, region: str) -> Iterator[Finding]:
    """A storage host's pool: three raidz2 vdevs of equal width and two spares of exactly its disks, ours, whole, mounted."""
    found = seen.zfs
    look = f"./mobula ssh {host.name} -- zpool status tank"
    if found is None or "pool: tank" not in found.status:
        yield Finding(host.name, "has no ZFS pool tank", f"{look}; ./mobula up makes it of blank disks", "CL-60")
        return
    yield from _layout(host, found.status, found.disks, look)
    if found.owner != f"{region}/{host.name}":
        yield Finding(host.name, f"its pool's owner is {found.owner!r}, not {region}/{host.name}", look, "CL-60")
    if "continue" not in found.failmode:
        yield Finding(
            host.name, "its pool's failmode is not continue: one lost pool would hang its server",
            f"./mobula ssh {host.name} -- zpool set failmode=continue tank", "CL-60",
        )  # fmt: skip
    if found.mounted != "yes":
        yield Finding(host.name, "dataset tank/objects is not mounted", f"./mobula ssh {host.name} -- zfs mount -a", "CL-60")  # fmt: skip
    if "errors: No known data errors" not in found.status:
        yield Finding(host.name, "its pool has data errors", look, "CL-67")


def _layout(host: Host, status: str, disks: Sequence[str], look: str) -> Iterator[Finding]:
    width = (host.disks - SPARES) // VDEVS
    data, spares = disks[: VDEVS * width], disks[VDEVS * width :]
    wanted = [tuple(data[n * width : (n + 1) * width]) for n in range(VDEVS)]
    found_vdevs, found_spares, troubled = read_pool(status)
    if len(disks) != host.disks:
        yield Finding(host.name, f"has {len(disks)} disks, its layout says {host.disks}", look, "CL-60")
    if found_vdevs != wanted:
        shape = " + ".join(str(len(v)) for v in found_vdevs) or "none"
        yield Finding(
            host.name, f"its pool's raidz2 vdevs have {shape} disks, wanted are {VDEVS} x {width} in the order of the disks", look,
            "CL-60",
        )  # fmt: skip
    if sorted(found_spares) != sorted(spares):
        lost = " ".join(sorted(set(spares) - set(found_spares))) or "none is missing"
        yield Finding(
            host.name, f"its pool has {len(found_spares)} hot spares, wanted are {len(spares)} ({lost})",
            f"./mobula ssh {host.name} -- zpool add tank spare {lost}", "CL-60",
        )  # fmt: skip
    for disk, state in troubled:
        yield Finding(host.name, f"disk {disk} of its pool is {state}", look, "CL-63")


def read_pool(status: str) -> tuple[list[tuple[str, ...]], list[str], list[tuple[str, str]]]:
    """Of ``zpool status``: disks by raidz2 vdev, spares, and disks with their state if it is not as it should be."""
    try:
        pool = parse_status(status, "tank")
    except NotUnderstood:
        return [], [], []
    vdevs = [vdev for vdev in pool.vdevs if vdev.kind == "raidz2"]
    troubled = [(leaf.name, trouble) for vdev in vdevs for leaf in vdev.leaves() if (trouble := _trouble(leaf))]
    troubled += [(spare.name, spare.state) for spare in pool.spares if spare.state != "AVAIL"]
    return [tuple(leaf.name for leaf in vdev.leaves()) for vdev in vdevs], [s.name for s in pool.spares], troubled


def _trouble(disk: Node) -> str:
    """Its state and errors; empty if all is as it should be."""
    counts = {"read": disk.read_errors, "write": disk.write_errors, "checksum": disk.checksum_errors}
    errors = ", ".join(f"{count} {kind} errors" for kind, count in counts.items() if count)
    return " with ".join(filter(None, [disk.state, errors])) if disk.state != "ONLINE" or errors else ""
