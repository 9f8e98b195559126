"""supervisor.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key
from mobula.metadata.config import Postgres
from mobula.wire.tls import Tls


class SupervisorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Of one supervisor; lists of servers have the own AZ's first. Agents and webapis ask it on `port`."""

    region: str
    host: str
    az: str
    address: str
    port: int
    zookeeper: tuple[str, ...]
    postgres: Postgres
    authcaches: tuple[str, ...]
    tls: Tls
    capability_keys: tuple[str, ...]
    log_level: str = "info"

    def keys(self) -> tuple[bytes, ...]:
        """Any of these may have signed a request. Raises OSError, ValueError."""
        return tuple(parse_key(Path(path).read_text(encoding="ascii")) for path in self.capability_keys)
