"""Registrations to DNS records: pure. Layout of the registrations and of the zone: docs/architecture.md, sections 5 and 6."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

TTL_MAX_S = 5
NS_TTL_S = 300
APEX = "@"
NAMESERVERS = "ns"


class Registered(msgspec.Struct, frozen=True):
    """What an instance says of itself."""

    address: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    ttl: int = TTL_MAX_S


Picture = Mapping[str, Mapping[str, bytes]]
"""registrations as they lie in ZooKeeper: service -> instance -> JSON"""


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; names are absolute, in lower case, with a final dot."""

    name: str
    type: str
    content: str
    ttl_s: int


def read(picture: Picture) -> dict[str, dict[str, Registered]]:
    """The registrations that can be understood; whatever else lies there is left out."""
    services: dict[str, dict[str, Registered]] = {}
    for service, instances in picture.items():
        services[service] = {}
        for instance, data in instances.items():
            try:
                found = msgspec.json.decode(data, type=Registered)
                ipaddress.IPv4Address(found.address)
            except (
                ValueError,
                RecursionError,
            ):  # malformed in any way (msgspec's errors are ValueErrors), nested too deep
                continue
            services[service][instance] = found
    return services


def build(zone: str, services: Mapping[str, Mapping[str, Registered]]) -> dict[str, tuple[Record, ...]]:
    """Every record of the zone by owner name.

    A service keeps its name without any instance (a TXT record): its address is then NODATA, not NXDOMAIN.
    """
    zone = zone.rstrip(".").lower() + "."
    records: dict[str, list[Record]] = {}

    def add(name: str, kind: str, content: str, ttl_s: int = TTL_MAX_S) -> None:
        records.setdefault(name.lower(), []).append(Record(name.lower(), kind, content, ttl_s))

    add(zone, "SOA", f"ns1.{zone} hostmaster.{zone} 1 3600 600 86400 {TTL_MAX_S}")
    for instance in sorted(services.get(NAMESERVERS, {})):
        add(zone, "NS", f"{instance}.{NAMESERVERS}.{zone}", NS_TTL_S)
    for service, instances in sorted(services.items()):
        name = zone if service == APEX else f"{service}.{zone}"
        if service != APEX:
            add(name, "TXT", '"mobula"')
            add(f"_tcp.{name}", "TXT", '"mobula"')  # else NXDOMAIN, although a name below it exists (RFC 8020)
            add(f"_http._tcp.{name}", "TXT", '"mobula"')
        for instance, found in sorted(instances.items()):
            ttl_s = max(0, min(found.ttl, TTL_MAX_S))
            add(name, "A", found.address, ttl_s)
            if service != APEX:
                add(f"{instance}.{name}", "A", found.address, ttl_s)
                add(f"_http._tcp.{name}", "SRV", f"0 10 {found.port} {instance}.{name}", ttl_s)
    return {name: tuple(found) for name, found in records.items()}


def select(records: Mapping[str, Sequence[Record]], name: str, kind: str) -> list[Record]:
    """Records of an owner name and type (ANY: all of them)."""
    found = records.get(name.lower().rstrip(".") + ".", ())
    return [record for record in found if kind in {"ANY", record.type}]
