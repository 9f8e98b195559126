"""pool-agent.json."""

from __future__ import annotations

import re

import msgspec

DAY_S = 86400.0


class PoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one storage host's pool agent; durations in seconds."""

    region: str
    host: str
    az: str
    address: str
    status_port: int
    pool: str
    folder: str
    """where the disks lie that ZFS does not name by their path"""
    spares: int
    listen: str = "0.0.0.0"  # every address of the machine; nft decides who reaches it
    period_s: float = 5.0
    """a failed disk is seen within 10 s"""
    confirm_s: float = 1.0
    """a disk that seems to have failed is looked at again after this"""
    look_timeout_s: float = 4.0
    command_timeout_s: float = 60.0
    """of what changes the pool; what only asks has a sixth of it"""
    io_errors_max: int = 20
    """read and write errors that ZFS has counted: so many are a failed disk"""
    scrub_every_days: float = 7.0
    """0: never"""
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec hands on with the field's file."""
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", self.pool):
            raise ValueError(
                f"pool {self.pool!r} can't be a pool's name: letters, digits, '_', '-', '.' are, a letter first"
            )
        if not self.folder.startswith("/"):
            raise ValueError(f"folder {self.folder!r} is no absolute path")
        for name, least in (("period_s", 0.1), ("confirm_s", 0.0), ("look_timeout_s", 0.1), ("command_timeout_s", 1.0)):
            if not least <= getattr(self, name) <= 3600:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be between {least:g} and 3600")
        for name, least in (("spares", 0), ("io_errors_max", 1), ("scrub_every_days", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least {least}")

    @property
    def owner(self) -> str:
        """What a pool of ours says whose it is."""
        return f"{self.region}/{self.host}"
