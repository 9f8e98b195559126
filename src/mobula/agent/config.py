"""agent.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key
from mobula.core.images import ImageVersion
from mobula.core.tokens import TokenKey
from mobula.wire.token_key import read_token_key


class ImageFiles(msgspec.Struct, frozen=True):
    """Of one version of the task image."""

    root: str
    """what tasks see as their root"""
    program: str
    """sandbox-init"""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Of one agent; lists of servers have the own AZ's first. Paths are absolute."""

    region: str
    host: str
    az: str
    address: str
    status_port: int
    zookeeper: tuple[str, ...]
    near_webapis: tuple[str, ...]
    """addresses with ports, of this AZ: asked before others"""
    capability_keys: tuple[str, ...]
    token_key: str | None = None
    """as the webapis have it"""
    shards: int
    data_dir: str
    """where the object server of this host has its files"""
    images: dict[ImageVersion, ImageFiles]
    """versions of the task image that this host has"""
    volumes: str
    """a mounted btrfs with quotas, for what tasks write"""
    processes_max: int = 1024
    """of one task"""
    log_level: str = "info"

    def signing_key(self) -> bytes:
        """The key that signs capabilities. Raises OSError, ValueError."""
        return parse_key(Path(self.capability_keys[0]).read_text(encoding="ascii"))

    def tokens(self) -> TokenKey:
        """What seals tokens. Raises OSError, ValueError."""
        return read_token_key(self.token_key, self.signing_key())
