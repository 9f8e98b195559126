"""Faults by hand: cuts in the networks (nft, silent: a link set down would say so to both sides and lose its routes), failed disks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mobula.lab import machines, network
from mobula.lab.network import NotThere
from mobula.lab.topology import ZONES

TABLE = "fault"


PUB = 0
"""the internet, where a number of an AZ is expected"""
Deaf = frozenset[tuple[int, int]]
"""who can't hear whom: (from, to), numbers of AZs or `PUB`"""


def both_ways(*links: tuple[int, int]) -> Deaf:
    """Links that carry nothing in either direction."""
    return frozenset(pair for a, b in links for pair in ((a, b), (b, a)))


def alone(zone: int) -> Deaf:
    """An AZ that hears nobody, neither other AZs nor the internet."""
    return both_ways((zone, PUB), *((zone, other) for other in ZONES if other != zone))


def _rules(zone: int, deaf: Deaf) -> dict[tuple[int, int], str]:
    """What the AZ's router matches for what it drops: what comes to it from elsewhere, what goes from it to the internet."""
    found = {}
    for source, target in sorted(deaf):
        if target == zone:
            found[source, target] = 'iifname "pub"' if source == PUB else f'iifname "{_link(source, target)}"'
        elif (source, target) == (zone, PUB):
            found[source, target] = 'oifname "pub"'
    return found


def _link(a: int, b: int) -> str:
    return f"l{min(a, b)}{max(a, b)}"


def _script(zone: int, deaf: Deaf) -> str:
    drops = "\n".join(f"    {match} counter drop" for match in _rules(zone, deaf).values())
    chain = f"type filter hook forward priority -10; policy accept;\n{drops}"
    fresh = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
    return fresh + (f"table inet {TABLE} {{\n  chain forward {{\n    {chain}\n  }}\n}}\n" if drops else "")


def standing_cuts(region: str) -> tuple[Deaf, int]:
    """Who can't hear whom now, and how many packets were dropped for it."""
    deaf, packets = set(), 0
    for zone in ZONES:
        if not (network.NETNS / f"{region}-r{zone}").exists():
            continue
        counted = network.drops(f"{region}-r{zone}", TABLE)
        for pair, match in _rules(zone, ANY_CUT).items():
            if match in counted:
                deaf.add(pair)
                packets += counted[match]
    return frozenset(deaf), packets


ANY_CUT = both_ways(*((a, b) for a in (PUB, *ZONES) for b in ZONES if a < b))


def zone_of(letter: str, zones: Mapping[str, int]) -> int:
    """Number of an AZ from its letter; `zones` are the region's.

    Raises:
        NotThere: no such AZ.
    """
    if letter not in zones:
        raise NotThere(f"find AZ {letter!r}: there are {', '.join(sorted(zones)) or 'none yet'}")
    return zones[letter]


def cut(region: str, deaf: Deaf) -> None:
    """These don't hear those any more, in silence, beside whatever is cut already. Management (`op`) still reaches all.

    Raises:
        NotThere: it is one AZ, named twice.
    """
    if any(source == target for source, target in deaf):
        raise NotThere("cut two AZs from each other: name two different ones")
    _set(region, standing_cuts(region)[0] | deaf)


def heal(region: str, deaf: Deaf = ANY_CUT) -> None:
    """Remove these cuts."""
    _set(region, standing_cuts(region)[0] - deaf)


def _set(region: str, deaf: Deaf) -> None:
    for zone in ZONES:
        network.nft(f"{region}-r{zone}", _script(zone, deaf))


HEAL = "./mobula lab heal"
NEW_DISK = "./mobula up puts a new disk in its place"


def standing(region: str, zones: Mapping[str, int], state_dir: Path) -> list[tuple[str, str, str]]:
    """(AZ or machine, fault, what to do): what is cut, frozen or failed now, however it came to be."""
    found = []
    letters = {PUB: "the internet", **{zone: f"AZ {letter}" for letter, zone in zones.items()}}
    for source, target in sorted(standing_cuts(region)[0]):
        zone = target or source
        found.append((f"az {letters[zone][-1]}", f"{letters[target]} can't hear {letters[source]}", HEAL))
    for folder in sorted((state_dir / "machines").glob("*")):
        if machines.label_of(folder) is None:
            continue
        if machines.is_frozen(machines.load(state_dir, folder.name)):
            found.append((folder.name, "is frozen", HEAL))
        dead = [disk.name for disk in sorted((folder / "disks").glob("*")) if not disk.stat().st_size]
        found += [(folder.name, f"disk {disk} has failed", NEW_DISK) for disk in dead]
    return found


def fail_disk(state_dir: Path, host: str, disk: str) -> None:
    """A storage host's disk reads and writes no more: its file is cut to nothing, and one without a byte lies there instead.

    The first takes what it has from the ZFS that runs; the second stays empty, when that ZFS writes on to the first.

    Raises:
        NotThere: no such host, or it has no such disk.
    """
    folder = machines.load(state_dir, host).folder / "disks"
    if disk not in {p.name for p in folder.iterdir()}:
        raise NotThere(
            f"fail disk {disk!r} of {host}: it has {', '.join(sorted(p.name for p in folder.iterdir())) or 'no disks'}"
        )
    dead = folder / f".{disk}.dead"
    dead.touch()
    with (folder / disk).open("r+b") as handle:
        handle.truncate(0)
    dead.rename(folder / disk)
