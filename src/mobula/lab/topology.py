"""The lab's networks as values, and the commands that make what is missing. Pure.

Per region (``<r>`` its name, ``P`` the first half of its /16):

    <r>-r1..3   an AZ's router: bridge br0 = P.N.1/24 with the AZ's machines, l12 l13 l23 to the other routers
    <r>-op      management: one uplink to every router, so that it reaches both sides of a partition
    <r>-pub     the internet: one cuttable link per AZ; at the router's edge only 80 and 443 of the loadbalancers and 53 of the nameservers
    <r>-c1..3   a client host inside each AZ, P.N.250

The host's own namespace gets no interface into the region, only a blackhole route: a stray packet must not leave the machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ZONES = (1, 2, 3)
TCP_RETRIES = 5
"""A connection that nobody acknowledges ends after 13 s, not after 15 min. Each packet that goes out again waits twice as long as the one
before it: after a partition of 30 s the election of ZooKeeper's servers would go on only 25 s later.
"""
TCP_RETRIES_PUBLIC = 2
"""Of who is outside, the door too: 3 s. HAProxy's own `tcp-ut` of a server does nothing (3.0.11)."""
Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth pair: namespace, interface, its address (None: a bridge port of `master`)."""

    namespace: str
    name: str
    address: str | None = None
    master: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    a: End
    b: End


@dataclass(frozen=True, slots=True)
class Route:
    namespace: str
    to: str
    via: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """All that should be there. `routers` forward; `bridges` and `loopbacks` map a namespace to an address."""

    namespaces: tuple[str, ...] = ()
    routers: frozenset[str] = frozenset()
    bridges: Mapping[str, str] = field(default_factory=dict)
    loopbacks: Mapping[str, str] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """What `ip` says of one interface."""

    addresses: frozenset[str]
    up: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What is there in one namespace."""

    interfaces: Mapping[str, Interface]
    routes: frozenset[tuple[str, str]]
    """(destination, gateway)"""


_PORT = re.compile("h[0-9a-f]{10}")


def port_name(host: str) -> str:
    """The router's end of a host's link: interface names have at most 15 characters, host names more."""
    return "h" + hashlib.sha256(host.encode()).hexdigest()[:10]


def of_region(region: str, cidr: str) -> Topology:
    """The networks of a region without its machines."""
    p = ".".join(cidr.split(".")[:2])
    router = {z: f"{region}-r{z}" for z in ZONES}
    op, pub = f"{region}-op", f"{region}-pub"
    links, routes = [], []
    for z in ZONES:
        links += [
            Link(End(op, f"az{z}", f"{p}.25{z}.1/30"), End(router[z], "op", f"{p}.25{z}.2/30")),
            Link(End(pub, f"az{z}", f"{p}.24{z}.1/30"), End(router[z], "pub", f"{p}.24{z}.2/30")),
        ]
        routes += [
            Route(op, f"{p}.{z}.0/24", f"{p}.25{z}.2", f"{p}.250.1"),
            Route(router[z], f"{p}.250.0/24", f"{p}.25{z}.1"),
            Route(pub, f"{p}.{z}.0/24", f"{p}.24{z}.2", f"{p}.240.1"),
            Route(router[z], f"{p}.240.0/24", f"{p}.24{z}.1"),
        ]
    for x, y in ((1, 2), (1, 3), (2, 3)):
        net = f"{p}.1{x}{y}"
        links.append(Link(End(router[x], f"l{x}{y}", f"{net}.1/30"), End(router[y], f"l{x}{y}", f"{net}.2/30")))
        routes += [Route(router[x], f"{p}.{y}.0/24", f"{net}.2"), Route(router[y], f"{p}.{x}.0/24", f"{net}.1")]
    base = Topology(
        namespaces=(*router.values(), op, pub), routers=frozenset(router.values()),
        bridges={router[z]: f"{p}.{z}.1/24" for z in ZONES}, loopbacks={op: f"{p}.250.1/32", pub: f"{p}.240.1/32"},
        links=tuple(links), routes=tuple(routes),
    )  # fmt: skip
    clients = [of_host(region, cidr, f"{region}-c{z}", z, client_address(cidr, z)) for z in ZONES]
    return merge([base, *clients])


def client_address(cidr: str, zone: int) -> str:
    """Of the client host inside an AZ."""
    return f"{'.'.join(cidr.split('.')[:2])}.{zone}.250"


def of_host(region: str, cidr: str, host: str, zone: int, address: str) -> Topology:
    """A machine's own namespace (called as the host) and its link into its AZ's bridge."""
    port = End(f"{region}-r{zone}", port_name(host), master="br0")
    gateway = ".".join(address.split(".")[:3]) + ".1"
    return Topology(
        namespaces=(host,), links=(Link(End(host, "host0", f"{address}/24"), port),), routes=(Route(host, cidr, gateway),)
    )  # fmt: skip


def merge(parts: Iterable[Topology]) -> Topology:
    """One topology of several."""
    parts = list(parts)
    return Topology(
        namespaces=tuple(n for p in parts for n in p.namespaces), routers=frozenset().union(*(p.routers for p in parts)),
        bridges={k: v for p in parts for k, v in p.bridges.items()}, loopbacks={k: v for p in parts for k, v in p.loopbacks.items()},
        links=tuple(x for p in parts for x in p.links), routes=tuple(x for p in parts for x in p.routes),
    )  # fmt: skip


def commands(wanted: Topology, seen: Mapping[str, Seen]) -> list[Argv]:
    """What to run so that everything wanted is there; nothing for what is there already.

    A half-made veth pair (one end missing or in the wrong place) is removed and made anew.
    """
    todo: list[Argv] = []
    for name in wanted.namespaces:
        if name not in seen:
            todo.append(("ip", "netns", "add", name))
        if not _is(seen, name, "lo").up:
            # In this order: a loopback that is up says that the namespace was finished, also to a run after a crash.
            todo += [_sysctl(name, forward=name in wanted.routers), ("ip", "-n", name, "link", "set", "lo", "up")]
    for name, address in wanted.bridges.items():
        if not _there(seen, name, "br0"):
            todo.append(
                ("ip", "-n", name, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            )
        todo += _address(seen, name, "br0", address)
    for name, address in wanted.loopbacks.items():
        todo += _address(seen, name, "lo", address)
    remade: set[str] = set()
    for link in wanted.links:
        todo += _link(seen, link)
        if not _is_whole(seen, link):
            remade |= {link.a.namespace, link.b.namespace}
    for route in wanted.routes:
        # The kernel drops a link's routes with it, also those that were seen a moment ago.
        if route.namespace in remade or (route.to, route.via) not in seen.get(route.namespace, _NOTHING).routes:
            source = ("src", route.source) if route.source else ()
            todo.append(("ip", "-n", route.namespace, "route", "replace", route.to, "via", route.via, *source))
    return todo


_NOTHING = Seen({}, frozenset())
_ABSENT = Interface(frozenset(), up=False)


def _there(seen: Mapping[str, Seen], namespace: str, name: str) -> bool:
    return name in seen.get(namespace, _NOTHING).interfaces


def _is(seen: Mapping[str, Seen], namespace: str, name: str) -> Interface:
    return seen.get(namespace, _NOTHING).interfaces.get(name, _ABSENT)


def _sysctl(namespace: str, *, forward: bool) -> Argv:
    retries = TCP_RETRIES_PUBLIC if namespace.endswith("-pub") else TCP_RETRIES
    set_all = "for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done 2>/dev/null; "
    return (
        "nsenter",
        f"--net=/run/netns/{namespace}",
        "sh",
        "-c",
        set_all
        + f"echo {retries} > /proc/sys/net/ipv4/tcp_retries2; echo {int(forward)} > /proc/sys/net/ipv4/ip_forward",
    )


def _address(seen: Mapping[str, Seen], namespace: str, name: str, address: str) -> list[Argv]:
    found = _is(seen, namespace, name)
    todo: list[Argv] = []
    if address not in found.addresses:
        todo.append(("ip", "-n", namespace, "addr", "add", address, "dev", name))
    if not found.up:
        todo.append(("ip", "-n", namespace, "link", "set", name, "up"))
    return todo


def _is_whole(seen: Mapping[str, Seen], link: Link) -> bool:
    return all(_there(seen, end.namespace, end.name) for end in (link.a, link.b))


def foreign(wanted: Topology, seen: Mapping[str, Seen]) -> list[tuple[str, str]]:
    """(namespace, interface): what is up in the wanted namespaces and was never ours, so that the namespace isn't either.

    A router has a port for each host, which another topology names; and the kernel may put tunnels, down, into any namespace.
    """
    ours = {(end.namespace, end.name) for link in wanted.links for end in (link.a, link.b)}
    ours |= {(name, "br0") for name in wanted.bridges}
    return [
        (name, interface)
        for name in wanted.namespaces
        for interface, state in sorted(seen.get(name, _NOTHING).interfaces.items())
        if state.up and interface != "lo" and (name, interface) not in ours
        if not (name in wanted.bridges and _PORT.fullmatch(interface))
    ]


def _link(seen: Mapping[str, Seen], link: Link) -> list[Argv]:
    todo: list[Argv] = []
    ends = (link.a, link.b)
    if not _is_whole(seen, link):
        todo += [("ip", "-n", e.namespace, "link", "del", e.name) for e in ends if _there(seen, e.namespace, e.name)]
        todo.append(
            (
                "ip",
                "-n",
                link.a.namespace,
                "link",
                "add",
                link.a.name,
                "type",
                "veth",
                "peer",
                "name",
                link.b.name,
                "netns",
                link.b.namespace,
            )
        )
        seen = {}
    for end in ends:
        if end.master:
            # Cheap, and right also for a port that lost its bridge.
            todo.append(("ip", "-n", end.namespace, "link", "set", end.name, "master", end.master, "up"))
        elif end.address:
            todo += _address(seen, end.namespace, end.name, end.address)
    return todo


def edge_rules(nameservers: Iterable[str], loadbalancers: Iterable[str]) -> str:
    """nft script of a router's edge to `pub`: what comes in is an allow-list. Stateless, as the kernel may have no conntrack."""
    names, balancers = ", ".join(sorted(nameservers)), ", ".join(sorted(loadbalancers))
    return f"""table inet edge {{}}
delete table inet edge
table inet edge {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname "pub" ip daddr {{ {balancers} }} tcp dport {{ 80, 443 }} accept
    # Answers to what a loadbalancer asks outside: it must find out whether its uplink lives.
    iifname "pub" ip daddr {{ {balancers} }} tcp flags & (syn | ack) != syn accept
    iifname "pub" ip daddr {{ {names} }} udp dport 53 accept
    iifname "pub" ip daddr {{ {names} }} tcp dport 53 accept
    iifname "pub" drop
  }}
}}
"""
