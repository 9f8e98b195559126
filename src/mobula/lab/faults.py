"""Faults by hand: packets that are dropped in the networks (nft, silent: a link set down would say so to both sides and lose its routes),
disks that fail or hold other bytes than were written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mobula.lab import machines, network
from mobula.lab.network import NotThere
from mobula.lab.topology import ZONES

TABLE = "fault"


PUB = 0
"""the internet, where a number of an AZ is expected"""
Ways = frozenset[tuple[int, int]]
"""directions of links: (from, to), numbers of AZs or `PUB`"""


def both_ways(*links: tuple[int, int]) -> Ways:
    """Links in both of their directions."""
    return frozenset(pair for a, b in links for pair in ((a, b), (b, a)))


def alone(zone: int) -> Ways:
    """All links of an AZ, to other AZs and to the internet."""
    return both_ways((zone, PUB), *((zone, other) for other in ZONES if other != zone))


class Kind(StrEnum):
    """Which packets of a direction are dropped; in the order in which a router asks."""

    CUT = "cut"
    """all"""
    LOSS = "loss"
    """some of a hundred, at random"""
    NARROW = "narrow"
    """those beyond a rate"""


BURST_BYTES = 64 << 10
"""what may pass at once beside a second's worth: one packet, as offloads make them"""


@dataclass(frozen=True, slots=True, order=True)
class Drop:
    """Packets that one direction of a link does not carry. `amount`: how many of a hundred (loss), or beyond how many kbit/s (narrow)."""

    source: int
    target: int
    kind: Kind
    amount: int = 0

    @property
    def name(self) -> str:
        """By which a rule is known again (its comment), however nft writes the rest of it."""
        return f"{self.kind} {self.source} {self.target} {self.amount}"

    def rule(self, zone: int) -> str:
        """Of that AZ's router, which drops what comes to it from elsewhere, and what goes from it to the internet; empty: of another's."""
        if self.target == zone:
            where = (
                'iifname "pub"'
                if self.source == PUB
                else f'iifname "l{min(self.source, zone)}{max(self.source, zone)}"'
            )
        elif (self.source, self.target) == (zone, PUB):
            where = 'oifname "pub"'
        else:
            return ""
        return f'{where} {self._which()}counter drop comment "{self.name}"'

    def _which(self) -> str:
        match self.kind:
            case Kind.CUT:
                return ""
            case Kind.LOSS:
                return f"numgen random mod 100 < {self.amount} "
            case Kind.NARROW:
                return f"limit rate over {self.amount * 125} bytes/second burst {BURST_BYTES} bytes "

    def text(self, letters: Mapping[int, str]) -> str:
        """For people; `letters` are what ends are called."""
        source, target = letters[self.source], letters[self.target]
        match self.kind:
            case Kind.CUT:
                return f"{target} can't hear {source}"
            case Kind.LOSS:
                return f"{target} loses {self.amount} % of what {source} sends"
            case Kind.NARROW:
                return f"{target} gets {self.amount} kbit/s of what {source} sends"


Drops = frozenset[Drop]


def cuts(ways: Ways) -> Drops:
    """These don't hear those any more."""
    return frozenset(Drop(*way, Kind.CUT) for way in ways)


def losses(ways: Ways, percent: int) -> Drops:
    """So many of a hundred packets are lost."""
    return frozenset(Drop(*way, Kind.LOSS, percent) for way in ways)


def limits(ways: Ways, kbit_per_s: int) -> Drops:
    """What comes faster is lost."""
    return frozenset(Drop(*way, Kind.NARROW, kbit_per_s) for way in ways)


def _named(name: str) -> Drop | None:
    """The drop that a rule of this name is for; None: no rule of ours."""
    with contextlib.suppress(ValueError):
        kind, source, target, amount = name.split()
        return Drop(int(source), int(target), Kind(kind), int(amount))
    return None


def _script(zone: int, drops: Drops) -> str:
    # By kind: of what is cut off nothing is left to lose at random.
    rules = [d.rule(zone) for d in sorted(drops, key=lambda d: (list(Kind).index(d.kind), d))]
    lines = "\n".join(f"    {rule}" for rule in rules if rule)
    chain = f"type filter hook forward priority -10; policy accept;\n{lines}"
    fresh = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
    return fresh + (f"table inet {TABLE} {{\n  chain forward {{\n    {chain}\n  }}\n}}\n" if lines else "")


def standing_drops(region: str) -> dict[Drop, int]:
    """What is dropped now, and how many packets were."""
    found: dict[Drop, int] = {}
    for zone in ZONES:
        if (network.NETNS / f"{region}-r{zone}").exists():
            counted = network.drops(f"{region}-r{zone}", TABLE)
            found |= {known: packets for name, packets in counted.items() if (known := _named(name)) is not None}
    return found


def zone_of(letter: str, zones: Mapping[str, int]) -> int:
    """Number of an AZ from its letter; `zones` are the region's.

    Raises:
        NotThere: no such AZ.
    """
    if letter not in zones:
        raise NotThere(f"find AZ {letter!r}: there are {', '.join(sorted(zones)) or 'none yet'}")
    return zones[letter]


def drop(region: str, drops: Drops) -> None:
    """Drop these as well, in silence, beside whatever is dropped already. Management (`op`) still reaches all.

    Raises:
        NotThere: a link's two ends are one.
    """
    if any(d.source == d.target for d in drops):
        raise NotThere("cut two AZs from each other: name two different ones")
    _set(region, frozenset(standing_drops(region)) | drops)


def heal(region: str, drops: Drops | None = None) -> None:
    """Drop these no more; by default nothing."""
    _set(region, frozenset() if drops is None else frozenset(standing_drops(region)) - drops)


def _set(region: str, drops: Drops) -> None:
    for zone in ZONES:
        network.nft(f"{region}-r{zone}", _script(zone, drops))


HEAL = "./mobula lab heal"
NEW_DISK = "./mobula up puts a new disk in its place"


def standing(region: str, zones: Mapping[str, int], state_dir: Path) -> list[tuple[str, str, str]]:
    """(AZ or machine, fault, what to do): what is dropped, frozen or failed now, however it came to be."""
    found = []
    letters = {PUB: "the internet", **{zone: f"AZ {letter}" for letter, zone in zones.items()}}
    for dropped in sorted(standing_drops(region)):
        zone = dropped.target or dropped.source
        found.append((f"az {letters[zone][-1]}", dropped.text(letters), HEAL))
    for folder in sorted((state_dir / "machines").glob("*")):
        if machines.label_of(folder) is None:
            continue
        if machines.is_frozen(machines.load(state_dir, folder.name)):
            found.append((folder.name, "is frozen", HEAL))
        dead = [disk.name for disk in sorted((folder / "disks").glob("*")) if not disk.stat().st_size]
        found += [(folder.name, f"disk {disk} has failed", NEW_DISK) for disk in dead]
    return found


def _disk(state_dir: Path, host: str, disk: str, what: str) -> Path:
    """Raises NotThere: no such host, or it has no such disk; `what` says what was tried."""
    folder = machines.load(state_dir, host).folder / "disks"
    if disk not in {p.name for p in folder.iterdir()}:
        raise NotThere(
            f"{what} disk {disk!r} of {host}: it has {', '.join(sorted(p.name for p in folder.iterdir())) or 'no disks'}"
        )
    return folder / disk


def fail_disk(state_dir: Path, host: str, disk: str) -> None:
    """A storage host's disk reads and writes no more: its file is cut to nothing, and one without a byte lies there instead.

    The first takes what it has from the ZFS that runs; the second stays empty, when that ZFS writes on to the first.

    Raises:
        NotThere: no such host, or it has no such disk.
    """
    path = _disk(state_dir, host, disk, "fail")
    dead = path.with_name(f".{disk}.dead")
    dead.touch()
    with path.open("r+b") as handle:
        handle.truncate(0)
    dead.rename(path)


SECTOR_BYTES = 512
LABELS_BYTES = 4 << 20
"""at each end of a disk, of which nothing is touched: ZFS has its labels and boot block there, and its data between"""
_CHUNK_BYTES = 1 << 20


def inverted(sector: bytes) -> bytes:
    """What a sector becomes that is spoiled: every bit of it is wrong."""
    return bytes(byte ^ 0xFF for byte in sector)


def spoil_sectors(state_dir: Path, host: str, disk: str, sectors: Collection[bytes]) -> int:
    """A storage host's disk has other bytes in these very sectors, wherever it holds them, and nowhere else; answers in how many.

    Raises:
        NotThere: no such host, or it has no such disk.
    """
    path, count = _disk(state_dir, host, disk, "spoil"), 0
    with path.open("r+b", buffering=0) as handle:
        for at, sector in _found(handle.fileno(), frozenset(sectors)):
            os.pwrite(handle.fileno(), inverted(sector), at)
            count += 1
        os.fsync(handle.fileno())
    return count


def count_sectors(state_dir: Path, host: str, disk: str, sectors: Collection[bytes]) -> int:
    """How many sectors of a storage host's disk are one of these.

    Raises:
        NotThere: no such host, or it has no such disk.
    """
    with _disk(state_dir, host, disk, "read").open("rb", buffering=0) as handle:
        return sum(1 for _ in _found(handle.fileno(), frozenset(sectors)))


def _found(fd: int, sectors: frozenset[bytes]) -> Iterator[tuple[int, bytes]]:
    """Where these sectors are, between a disk's labels."""
    for first, end in _written(fd, LABELS_BYTES, os.fstat(fd).st_size - LABELS_BYTES):
        for start in range(first, end, _CHUNK_BYTES):
            chunk = os.pread(fd, min(_CHUNK_BYTES, end - start), start)
            for at in range(0, len(chunk), SECTOR_BYTES):
                if (sector := chunk[at : at + SECTOR_BYTES]) in sectors:
                    yield start + at, sector


def _written(fd: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a disk's file that were ever written, of whole sectors: most of it is a hole."""
    while at < end:
        try:
            first = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        at = min(os.lseek(fd, first, os.SEEK_HOLE), end)
        first -= first % SECTOR_BYTES
        if first < at:
            yield first, at
