"""What conformance is judged on: a machine as `ops/facts/machine.py` read it; and what comes of it: findings, each with its claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; `claim` is the promise that it breaks."""

    host: str
    what: str
    do: str
    claim: str


class Account(msgspec.Struct, frozen=True):
    """A line of the machine's user list; `groups` beside its own one."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: list[str]


class File(msgspec.Struct, frozen=True):
    """A file of ours; `secret`: a key or password stands in it."""

    path: str
    mode: int
    kind: str
    owner: str
    group: str
    secret: bool


class Unit(msgspec.Struct, frozen=True, rename="pascal"):
    """What systemd says of a unit."""

    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str
    need_daemon_reload: str
    drop_in_paths: str = ""


class Listener(msgspec.Struct, frozen=True):
    """A socket that takes connections or datagrams."""

    protocol: str
    address: str
    port: int
    process: str
    unit: str


class Firewall(msgspec.Struct, frozen=True):
    """The rules that are loaded, and those that the machine's file would load, as the kernel lists them."""

    loaded: str
    wanted: str


class Zfs(msgspec.Struct, frozen=True):
    """A storage host's pool as the ZFS commands show it."""

    status: str
    owner: str
    failmode: str
    mounted: str
    disks: list[str]


class Standby(msgspec.Struct, frozen=True):
    """A standby as its primary sees it."""

    name: str
    state: str
    sync: str


class Group(msgspec.Struct, frozen=True):
    """A placement group: its servers in order."""

    id: int
    servers: list[dict[str, Any]]


class Server(msgspec.Struct, frozen=True):
    """What PostgreSQL says of itself."""

    standby: bool
    settings: dict[str, str]
    overridden: list[str]
    """settings of ALTER SYSTEM, which beat Patroni's"""
    standbys: list[Standby]
    roles: dict[str, bool]
    """users that may log in, and whether they are superusers"""
    groups: list[Group]


class Postgres(msgspec.Struct, frozen=True):
    """A peer of a shard: the server, Patroni's settings for the whole shard, the guard's words; null for who does not answer."""

    server: Server | None
    patroni: dict[str, Any] | None
    guard: dict[str, Any] | None


class Machine(msgspec.Struct, frozen=True):
    """A machine as it was read."""

    hostname: str
    label: str
    machine_id: str
    packages: dict[str, str]
    lost_files: list[str]
    accounts: list[Account]
    authorized_keys: dict[str, list[str]]
    files: list[File]
    units: dict[str, Unit]
    our_units: list[str]
    failed: list[str]
    listeners: list[Listener]
    firewall: Firewall
    tcp_retries: str
    """net.ipv4.tcp_retries2"""
    zfs: Zfs | None = None
    postgres: Postgres | None = None
    zookeeper: str = ""
    """of a nameserver: leader, follower, or why neither"""
