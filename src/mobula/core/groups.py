"""Placement groups: which storage servers hold the copies of an object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageServer:
    id: str
    az: str
    address: str
    port: int
    generation: int = 0
    """how often this place in its group got an empty pool: bytes that went to an earlier one are not there"""


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group: an object with n copies lies on the first n servers. The first three are in three AZs."""

    id: int
    epoch: int
    servers: tuple[StorageServer, ...]
