"""What registrars have written below ``/names``: where the healthy instances of a service are."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import structlog

from mobula.wire.http_failures import Address

log = structlog.get_logger()

ROOT = "/names"


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
