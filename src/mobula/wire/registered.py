"""What registrars have written below ``/names``: where the healthy instances of a service are."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import msgspec
import structlog

from mobula.wire.http_failures import Address

log = structlog.get_logger()

ROOT = "/names"
NOWHERE = Address("0.0.0.0", 0)
"""nobody can connect there"""


def addresses_of(picture: Mapping[str, Mapping[str, bytes]], service: str) -> dict[str, Address]:
    """By host; a registration that is not understood is passed over."""
    found = {}
    for host, data in picture.get(service, {}).items():
        try:
            said = msgspec.json.decode(data)
            found[host] = Address(str(said["address"]), int(said["port"]))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            log.warning("registration not understood", service=service, host=host)
    return found


class Webapis:
    """Those that are up; `near`, addresses with ports, are asked before others."""

    def __init__(self, near: Collection[str]) -> None:
        self._near = frozenset(near)
        self._up = [NOWHERE]
        self._pick = random.Random()  # noqa: S311 (spreads load, guards nothing)

    def on_names(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        """What `wire.zookeeper.Tree` says of `ROOT`."""
        up = list(addresses_of(picture, "webapi").values())
        self._up = [address for address in up if str(address) in self._near] or up or [NOWHERE]

    def pick(self) -> Address:
        """One of them; while none is known, an address at which nobody answers."""
        return self._pick.choice(self._up)
