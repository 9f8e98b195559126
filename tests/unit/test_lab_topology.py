"""Commands are planned from what is seen. `World` does what `ip` would do, so that a plan can be judged by where it leads."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobula.lab.topology import (
    Argv,
    End,
    Interface,
    Link,
    Route,
    Seen,
    Topology,
    commands,
    edge_rules,
    foreign,
    merge,
    of_host,
    of_region,
    port_name,
)

CIDR = "10.77.0.0/16"
HOSTS = [
    of_host("lab", CIDR, "lab-a-storage-01", 1, "10.77.1.41"),
    of_host("lab", CIDR, "lab-c-api-02", 3, "10.77.3.22"),
]
REGION = merge([of_region("lab", CIDR), *HOSTS])


@dataclass
class Port:
    addresses: set[str] = field(default_factory=set)
    up: bool = False
    peer: tuple[str, str] | None = None
    master: str | None = None


class World:
    """Namespaces as far as `commands` knows them; a command that `ip` would refuse fails."""

    def __init__(self) -> None:
        self.ports: dict[str, dict[str, Port]] = {}
        self.routes: dict[str, dict[str, tuple[str, str]]] = {}
        """namespace -> destination -> (gateway, interface)"""
        self.forwarding: set[str] = set()

    def seen(self) -> dict[str, Seen]:
        return {
            name: Seen(
                {port: Interface(frozenset(p.addresses), p.up) for port, p in ports.items()},
                frozenset((to, via) for to, (via, _) in self.routes[name].items()),
            )
            for name, ports in self.ports.items()
        }

    def run(self, argv: Argv) -> None:
        match argv:
            case ("ip", "netns", "add", name):
                assert name not in self.ports
                self.ports[name], self.routes[name] = {"lo": Port()}, {}
            case ("nsenter", net, "sh", "-c", script):
                if "echo 1 > /proc/sys/net/ipv4/ip_forward" in script:
                    self.forwarding.add(net.removeprefix("--net=/run/netns/"))
            case ("ip", "-n", name, "link", "add", port, "type", "veth", "peer", "name", other, "netns", there):
                self._new(name, port).peer = (there, other)
                self._new(there, other).peer = (name, port)
            case ("ip", "-n", name, "link", "add", port, "type", "bridge", *_):
                self._new(name, port)
            case ("ip", "-n", name, "link", "del", port):
                self.remove(name, port)
            case ("ip", "-n", name, "link", "set", port, "master", bridge, "up"):
                assert bridge in self.ports[name]
                self.ports[name][port].master, self.ports[name][port].up = bridge, True
            case ("ip", "-n", name, "link", "set", port, "up"):
                self.ports[name][port].up = True
            case ("ip", "-n", name, "addr", "add", address, "dev", port):
                self.ports[name][port].addresses.add(address)
            case ("ip", "-n", name, "route", "replace", to, "via", via, *_):
                self.routes[name][to] = (via, self._towards(name, via))
            case _:
                pytest.fail(f"no such command: {argv}")

    def _new(self, name: str, port: str) -> Port:
        assert len(port) < 16
        assert port not in self.ports[name], f"{name}/{port}: File exists"
        self.ports[name][port] = Port()
        return self.ports[name][port]

    def _towards(self, name: str, via: str) -> str:
        for port, found in self.ports[name].items():
            nets = [ipaddress.ip_interface(a).network for a in found.addresses]
            if found.up and any(ipaddress.ip_address(via) in net for net in nets):
                return port
        pytest.fail(f"{name}: {via} is unreachable")

    def remove(self, name: str, port: str) -> None:
        """A port goes with its peer and all routes through them, as in a kernel."""
        gone = self.ports[name].pop(port)
        self.routes[name] = {to: r for to, r in self.routes[name].items() if r[1] != port}
        if gone.peer and gone.peer[1] in self.ports.get(gone.peer[0], {}):
            self.remove(*gone.peer)

    def remove_namespace(self, name: str) -> None:
        for port in list(self.ports[name]):
            self.remove(name, port)
        del self.ports[name], self.routes[name]
        self.forwarding.discard(name)


def essential(todo: list[Argv]) -> list[Argv]:
    """Without what is run each time."""
    return [argv for argv in todo if "master" not in argv]


def made(upto: int | None = None) -> World:
    """The region's world, or what the first commands leave of it."""
    world = World()
    for argv in commands(REGION, {})[:upto]:
        world.run(argv)
    return world


WHOLE = made()


def test_from_nothing_everything_is_made_and_then_nothing_is_missing() -> None:
    assert set(WHOLE.ports) == set(REGION.namespaces)
    assert WHOLE.forwarding == REGION.routers == {"lab-r1", "lab-r2", "lab-r3"}
    assert essential(commands(REGION, WHOLE.seen())) == []


def test_a_whole_region_has_its_machines_ports_put_into_their_bridges_only() -> None:
    todo = commands(REGION, WHOLE.seen())
    assert {argv[3:6:2] for argv in todo} == {("link", port) for port in {argv[5] for argv in todo}}
    assert len(todo) == len(HOSTS) + 3


@given(st.integers(0, len(commands(REGION, {}))))
def test_a_plan_interrupted_anywhere_is_finished_by_the_next(done: int) -> None:
    world = made(done)
    for argv in commands(REGION, world.seen()):
        world.run(argv)
    assert world.seen() == WHOLE.seen()
    assert world.forwarding == WHOLE.forwarding


def links() -> list[tuple[str, str]]:
    return [(end.namespace, end.name) for link in REGION.links for end in (link.a, link.b)]


DAMAGES: dict[str, Callable[[World, int], object]] = {
    "namespace": lambda w, n: w.remove_namespace(sorted(w.ports)[n % len(w.ports)]) if w.ports else None,
    "link": lambda w, n: w.remove(*at) if (at := links()[n % len(links())])[1] in w.ports.get(at[0], {}) else None,
    "down": lambda w, n: [
        setattr(p, "up", False) for p in list(w.ports.get(links()[n % len(links())][0], {}).values())
    ],
    "address": lambda w, n: [p.addresses.clear() for p in w.ports.get(links()[n % len(links())][0], {}).values()],
    "routes": lambda w, n: w.routes.get(links()[n % len(links())][0], {}).clear(),
    "half a link": lambda w, n: w.ports.get(links()[n % len(links())][0], {}).pop(links()[n % len(links())][1], None),
}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(sorted(DAMAGES)), st.integers(0, 99)), max_size=5))
def test_whatever_was_damaged_one_run_mends(damages: list[tuple[str, int]]) -> None:
    world = made()
    for kind, n in damages:
        DAMAGES[kind](world, n)
    for argv in commands(REGION, world.seen()):
        world.run(argv)
    assert world.seen() == WHOLE.seen()
    assert world.forwarding == WHOLE.forwarding


def without(namespace: str, port: str | None = None, *, routes: bool = True) -> dict[str, Seen]:
    """The whole world as seen, but for a port or the routes of a namespace."""
    seen = WHOLE.seen()
    found = seen[namespace]
    interfaces = {name: i for name, i in found.interfaces.items() if name != port}
    seen[namespace] = Seen(interfaces, found.routes if routes else frozenset())
    return seen


def test_a_missing_route_is_all_that_is_made() -> None:
    assert essential(commands(REGION, without("lab-c-api-02", routes=False))) == [
        ("ip", "-n", "lab-c-api-02", "route", "replace", CIDR, "via", "10.77.3.1")
    ]


def test_half_a_link_is_removed_and_made_anew() -> None:
    port = port_name("lab-c-api-02")
    assert commands(HOSTS[1], without("lab-c-api-02", "host0")) == [
        ("ip", "-n", "lab-r3", "link", "del", port),
        ("ip", "-n", "lab-c-api-02", "link", "add", "host0", "type", "veth", "peer", "name", port, "netns", "lab-r3"),
        ("ip", "-n", "lab-c-api-02", "addr", "add", "10.77.3.22/24", "dev", "host0"),
        ("ip", "-n", "lab-c-api-02", "link", "set", "host0", "up"),
        ("ip", "-n", "lab-r3", "link", "set", port, "master", "br0", "up"),
        ("ip", "-n", "lab-c-api-02", "route", "replace", CIDR, "via", "10.77.3.1"),
    ]


def test_a_link_of_nothing_but_two_ends_is_two_addresses_and_two_ups() -> None:
    link = Topology(("a", "b"), links=(Link(End("a", "x", "10.0.0.1/30"), End("b", "y", "10.0.0.2/30")),))
    up = {"lo": Interface(frozenset(), up=True)}
    assert commands(link, {"a": Seen(up, frozenset()), "b": Seen(up, frozenset())}) == [
        ("ip", "-n", "a", "link", "add", "x", "type", "veth", "peer", "name", "y", "netns", "b"),
        ("ip", "-n", "a", "addr", "add", "10.0.0.1/30", "dev", "x"),
        ("ip", "-n", "a", "link", "set", "x", "up"),
        ("ip", "-n", "b", "addr", "add", "10.0.0.2/30", "dev", "y"),
        ("ip", "-n", "b", "link", "set", "y", "up"),
    ]


def test_no_address_is_given_twice_and_all_are_the_regions() -> None:
    addresses = [end.address for link in REGION.links for end in (link.a, link.b) if end.address]
    addresses += [*REGION.bridges.values(), *REGION.loopbacks.values()]
    found = [ipaddress.ip_interface(address).ip for address in addresses]
    assert len(found) == len(set(found))
    assert all(address in ipaddress.ip_network(CIDR) for address in found)


def test_each_routers_links_lead_to_both_others_and_to_op_and_pub() -> None:
    for z in (1, 2, 3):
        routes = {route.to for route in REGION.routes if route.namespace == f"lab-r{z}"}
        others = {f"10.77.{o}.0/24" for o in {1, 2, 3} - {z}}
        assert routes == {*others, "10.77.250.0/24", "10.77.240.0/24"}


def test_management_and_internet_speak_from_addresses_of_their_own() -> None:
    assert Route("lab-op", "10.77.2.0/24", "10.77.252.2", "10.77.250.1") in REGION.routes
    assert Route("lab-pub", "10.77.2.0/24", "10.77.242.2", "10.77.240.1") in REGION.routes
    assert ("src", "10.77.240.1") in {argv[-2:] for argv in commands(REGION, {})}


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=60))
def test_a_ports_name_is_short_enough_for_the_kernel(host: str) -> None:
    assert len(port_name(host)) < 16
    assert port_name(host) == port_name(host)
    assert port_name(host) != port_name(host + "x")


def test_the_edge_lets_in_the_web_and_dns_and_nothing_else() -> None:
    rules = edge_rules(["10.77.1.11"], ["10.77.1.82", "10.77.1.81"])
    inside = [line.strip() for line in rules.splitlines() if 'iifname "pub"' in line]
    assert inside == [
        'iifname "pub" ip daddr { 10.77.1.81, 10.77.1.82 } tcp dport { 80, 443 } accept',
        'iifname "pub" ip daddr { 10.77.1.81, 10.77.1.82 } tcp flags & (syn | ack) != syn accept',
        'iifname "pub" ip daddr { 10.77.1.11 } udp dport 53 accept',
        'iifname "pub" ip daddr { 10.77.1.11 } tcp dport 53 accept',
        'iifname "pub" drop',
    ]


def test_the_edges_rules_replace_what_was_there_in_one_step() -> None:
    assert edge_rules(["10.77.1.11"], ["10.77.1.81"]).splitlines()[:3] == [
        "table inet edge {}",
        "delete table inet edge",
        "table inet edge {",
    ]


def test_a_namespace_with_somebody_elses_interface_is_not_ours() -> None:
    up, down = Interface(frozenset(), up=True), Interface(frozenset(), up=False)
    seen = {
        "lab-r1": Seen({"lo": up, "br0": up, "op": up, port_name("lab-a-storage-01"): up, "tunl0": down}, frozenset()),
        "lab-a-storage-01": Seen({"lo": up, "host0": up, "wg0": up}, frozenset()),
        "elsewhere": Seen({"eth0": up}, frozenset()),
    }
    assert foreign(REGION, seen) == [("lab-a-storage-01", "wg0")]
    assert foreign(REGION, {"lab-op": Seen({"br0": up}, frozenset())}) == [("lab-op", "br0")]


def test_who_is_outside_gives_up_a_dead_connection_before_the_machines_do() -> None:
    scripts = {argv[1]: argv[-1] for argv in commands(of_region("lab", CIDR), {}) if argv[0] == "nsenter"}
    retries = {
        net.rpartition("/")[2]: text.split("> /proc/sys/net/ipv4/tcp_retries2")[0].split()[-1]
        for net, text in scripts.items()
    }
    assert retries.pop("lab-pub") == "2"
    assert set(retries.values()) == {"5"}
