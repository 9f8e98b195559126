"""worker.json."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mobula.core.capability import parse_key
from mobula.core.tokens import TokenKey
from mobula.metadata.config import Postgres
from mobula.metadata.model import COMMIT_DEADLINE_S
from mobula.wire.token_key import read_token_key


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How late, how fast; durations in seconds."""

    grace_s: float = 3600.0
    """garbage is collected when it is older; longer than anybody reads bytes whose name has gone"""
    commit_deadline_s: float = float(COMMIT_DEADLINE_S)
    """what is younger may be a PUT or a link on its way. A PUT is not committed past half of the released value: less is for tests"""
    poll_s: float = 5.0
    """between two looks when there was nothing to do"""
    batch: int = 500
    """rows in one statement"""
    collect_per_s: float = 500.0
    """objects, of each shard"""
    files_per_s: float = 500.0
    """files that are looked at, on each storage host"""
    sweep_pause_s: float = 3600.0
    """between two walks over a storage host's files"""
    orphans_max: int = 10_000
    """removed in one walk over a storage host's files; more are left to the next walk, and somebody should look why"""

    @property
    def patience_s(self) -> float:
        """How old a transaction may be that goes on while something is concluded from what is not there: far less than the half of the
        deadline that has passed since the last moment at which a commit of old bytes was sent."""
        return self.commit_deadline_s / 4


class WorkerConfig(Pace, frozen=True, kw_only=True):
    """Of one worker."""

    region: str
    host: str
    az: str
    address: str
    status_port: int
    zookeeper: tuple[str, ...]
    postgres: Postgres
    capability_keys: tuple[str, ...]
    near_webapis: tuple[str, ...] = ()
    """addresses with ports, of this AZ: asked before others"""
    token_key: str | None = None
    """as the webapis have it"""
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Raises ValueError, which is a config that can't be used."""
        for name in ("grace_s", "commit_deadline_s", "poll_s", "sweep_pause_s", "collect_per_s", "files_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if not 1 <= self.batch <= 10_000:
            raise ValueError(f"batch is {self.batch}; it must be from 1 to 10000")
        if self.orphans_max < 0:
            raise ValueError(f"orphans_max is {self.orphans_max}; it must not be negative")

    def tokens(self) -> TokenKey:
        """What seals tokens. Raises OSError, ValueError."""
        return read_token_key(self.token_key, self.signing_key())

    def signing_key(self) -> bytes:
        """The key that signs capabilities. Raises OSError, ValueError."""
        return parse_key(Path(self.capability_keys[0]).read_text(encoding="ascii"))
