"""Placement groups: which storage servers hold the copies of an object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageServer:
    id: str
    az: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group: an object with n copies lies on the first n servers. The first three are in three AZs."""

    id: int
    epoch: int
    servers: tuple[StorageServer, ...]
