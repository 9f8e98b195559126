"""What ``zpool status`` and ``zpool history`` say, as values. The only parser of them: the agent, the role `zfs_pool` and `ops` share it.

The words of zfs-fuse (pool version 23: ``scrub:``, minutes) and of OpenZFS (``scan:``, several lines) are both known. Standard library
only, and no import of ours: Ansible ships this file to the hosts beside the role's module.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

OWNER_PROPERTY = "mobula:owner"
"""of a pool: whose it is, as <region>/<host>"""
SECTIONS = frozenset({"spares", "logs", "cache", "special", "dedup"})
SCAN_KINDS = {"scrub": "scrub", "resilver": "resilver", "resilvered": "resilver"}
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class NotUnderstood(ValueError):
    """A text that is no ``zpool status``."""


@dataclass(frozen=True)
class Node:
    """A line of the configuration and what is below it: the pool, a vdev, or a disk."""

    name: str
    state: str
    read_errors: int = 0
    write_errors: int = 0
    checksum_errors: int = 0
    note: str = ""
    children: tuple[Node, ...] = ()

    @property
    def kind(self) -> str:
        """raidz2 of ``raidz2-0``, spare of ``spare-1``; empty for a disk."""
        found = re.match(r"(raidz[123]?|mirror|spare|replacing|draid\d?)(-\d+)?$", self.name)
        return found[1] if found else ""

    @property
    def parity(self) -> int:
        """How many of its children may fail."""
        if self.kind == "mirror":
            return len(self.children) - 1
        return int(self.kind[5:] or 1) if self.kind.startswith("raidz") else 0

    def leaves(self) -> Iterator[Node]:
        """Its disks, or itself if it is one."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def path(self, folder: str) -> str:
        """Where this disk lies: `folder` is where disks that are not named by their path lie."""
        name = self.name
        was = re.search(r"was (/\S+)", self.note)
        if was and name.isdigit():  # a disk that ZFS no longer finds is named by a number
            name = was[1]
        name = re.sub(r"(/old|-part1)$", "", name)
        return name if name.startswith("/") else f"{folder}/{name}"


@dataclass(frozen=True)
class Scan:
    """The running or last scrub or resilver. `kind`: scrub, resilver, or empty."""

    kind: str = ""
    running: bool = False
    percent: float | None = None
    eta_s: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Pool:
    """One pool. `spares` are lines of their own; a spare in use stands among the vdevs as well."""

    name: str
    state: str
    scan: Scan
    root: Node
    spares: tuple[Node, ...] = ()
    errors: str = ""

    @property
    def vdevs(self) -> tuple[Node, ...]:
        return self.root.children

    @property
    def data_errors(self) -> str:
        """What ZFS says of lost data; empty if none is known."""
        return "" if self.errors in {"", "No known data errors"} else self.errors


def parse_status(text: str, name: str) -> Pool:
    """Pool `name` of the output.

    Raises:
        NotUnderstood: there is no such pool in it, or no configuration.
    """
    for block in re.split(r"(?m)^(?=\s*pool: )", text):
        fields = _fields(block)
        if fields.get("pool", "").strip() != name:
            continue
        roots = _sections(fields.get("config", ""))
        if name not in roots or not fields.get("state"):
            break
        scan = fields.get("scan", fields.get("scrub", ""))
        errors = " ".join(fields.get("errors", "").split())
        return Pool(
            name, fields["state"].strip(), parse_scan(scan), roots[name],
            roots["spares"].children if "spares" in roots else (), errors,
        )  # fmt: skip
    said = " ".join(text.split())[:120]
    raise NotUnderstood(f"read zpool status: no configuration of pool {name!r} in {said!r}")


def _fields(block: str) -> dict[str, str]:
    """``state:``, ``scan:`` and so on; what follows a field in more lines is part of it."""
    parts = re.split(r"(?m)^ *(pool|state|status|action|see|scan|scrub|config|errors|remove|checkpoint):(?= |$)", block)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _sections(config: str) -> dict[str, Node]:
    """Trees of the configuration: the pool's, and those of ``spares`` and so on."""
    lines = []
    for line in config.splitlines():
        words = line.split()
        if words and words[:2] != ["NAME", "STATE"]:
            expanded = line.expandtabs(8)
            lines.append((len(expanded) - len(expanded.lstrip()), words))
    found = {}
    while lines:
        node, lines = _tree(lines)
        found[node.name] = node
    return found


def _tree(lines: list[tuple[int, list[str]]]) -> tuple[Node, list[tuple[int, list[str]]]]:
    """The first line's node with all that is deeper than it, and the lines that follow."""
    (depth, words), rest = lines[0], lines[1:]
    children = []
    while rest and rest[0][0] > depth:
        child, rest = _tree(rest)
        children.append(child)
    name, *more = words
    state = more[0] if more else ""
    counts = [_count(word) for word in more[1:4]]
    if len(counts) == 3 and None not in counts:
        read, write, checksum = (count or 0 for count in counts)
        return Node(name, state, read, write, checksum, " ".join(more[4:]), tuple(children)), rest
    return Node(name, state, note=" ".join(more[1:]), children=tuple(children)), rest


def _count(word: str) -> int | None:
    """``0``, ``519``, ``1.2K``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", word)
    return int(float(found[1]) * UNITS[found[2]]) if found else None


def parse_scan(text: str) -> Scan:
    """Of the lines after ``scan:`` or ``scrub:``."""
    words = " ".join(text.split())
    kind = SCAN_KINDS.get(words.partition(" ")[0], "")
    if " in progress" not in words:
        return Scan(kind, text=words)
    percent = re.search(r"([\d.]+)% done", words)
    return Scan(kind, True, float(percent[1]) if percent else None, _seconds(words), words)


def _seconds(words: str) -> int | None:
    """Of ``0h12m to go``, ``00:01:23 to go``, ``1 days 02:03:04 to go``."""
    found = re.search(r"(?:(\d+)h(\d+)m|(?:(\d+) days? )?(\d+):(\d\d):(\d\d)) to go", words)
    if not found:
        return None
    hours, minutes, days, hours2, minutes2, seconds = (int(value or 0) for value in found.groups())
    return days * 86400 + (hours + hours2) * 3600 + (minutes + minutes2) * 60 + seconds


@dataclass(frozen=True)
class History:
    """Seconds since the epoch: when the pool was made, when a scrub was last begun."""

    created_s: float | None = None
    scrubbed_s: float | None = None


def parse_history(text: str) -> History:
    """Of ``zpool history``: what outlives a restart. zfs-fuse itself forgets the last scrub, or a resilver takes its place."""
    times: dict[str, float] = {}
    for stamp, command in re.findall(r"(?m)^(\d{4}-\d\d-\d\d\.\d\d:\d\d:\d\d) zpool (create|scrub(?! -[ps]))\b", text):
        times[command] = time.mktime(time.strptime(stamp, "%Y-%m-%d.%H:%M:%S"))
    return History(times.get("create"), times.get("scrub"))
