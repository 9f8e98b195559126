"""storage.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key


class StorageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one storage host's object server. `capability_keys` are paths; any of these keys may have signed a request."""

    region: str
    host: str
    az: str
    address: str
    port: int
    data_dir: str
    capability_keys: tuple[str, ...]
    listen: str = "0.0.0.0"  # every address of the machine; nft decides who reaches it
    fill_max: float = 0.92
    """of the pool; beyond it nothing new is taken (a full ZFS pool can't even delete)"""
    verify_bytes_per_s: int = 256 << 10
    """at which all copies are read and hashed, round after round, at least: of small files 16 a second"""
    verify_round_s: float = 30 * 86400.0
    """a round that would take longer than this goes faster"""
    verify_settle_s: float = 60.0
    """how old a file must be, and how long a pause there is before each round"""
    log_level: str = "info"

    def keys(self) -> tuple[bytes, ...]:
        """Raises OSError, ValueError."""
        return tuple(parse_key(Path(path).read_text(encoding="ascii")) for path in self.capability_keys)
