"""supervisor.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key
from mobula.core.tokens import TokenKey
from mobula.metadata.config import Postgres
from mobula.wire.tls import Tls
from mobula.wire.token_key import read_token_key


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
    near_webapis: tuple[str, ...]
    """addresses with ports, of this AZ: asked before others"""
    tls: Tls
    capability_keys: tuple[str, ...]
    token_key: str | None = None
    """as the webapis have it"""
    live_s: float = 3600.0
    """for so long after it was archived a job is there live, and an input to which nobody adds anything stays open"""
    purge_s: float = 86400.0
    """and for so long its rows are kept"""
    log_level: str = "info"

    def keys(self) -> tuple[bytes, ...]:
        """Any of these may have signed a request. Raises OSError, ValueError."""
        return tuple(parse_key(Path(path).read_text(encoding="ascii")) for path in self.capability_keys)

    def tokens(self) -> TokenKey:
        """What seals tokens. Raises OSError, ValueError."""
        return read_token_key(self.token_key, self.keys()[0])
