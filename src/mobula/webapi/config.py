"""webapi.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key
from mobula.core.images import ImageVersion
from mobula.core.tokens import TokenKey
from mobula.metadata.config import Postgres
from mobula.wire.tls import Tls
from mobula.wire.token_key import read_token_key


class WebapiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Of one webapi; lists of servers have the own AZ's first."""

    region: str
    host: str
    az: str
    address: str
    port: int
    status_port: int
    domain: str
    zookeeper: tuple[str, ...]
    postgres: Postgres
    authcaches: tuple[str, ...]
    tls: Tls
    capability_keys: tuple[str, ...]
    token_key: str | None = None
    """file with the key and the iv of tokens; without one they are derived from the capability key"""
    shards: int = 1
    images: tuple[ImageVersion, ...] = ()
    """versions of the task image that jobs may ask for"""
    drain_s: float = 3.0
    """how long /ping fails before the listening socket closes: loadbalancers look each second, twice"""
    log_level: str = "info"

    def signing_key(self) -> bytes:
        """The key that signs capabilities. Raises OSError, ValueError."""
        return parse_key(Path(self.capability_keys[0]).read_text(encoding="ascii"))

    def tokens(self) -> TokenKey:
        """What seals tokens. Raises OSError, ValueError."""
        return read_token_key(self.token_key, self.signing_key())
