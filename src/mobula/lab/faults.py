"""Faults by hand: cuts in the networks (nft, silent: a link set down would say so to both sides and lose its routes), failed disks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mobula.lab import machines, network
from mobula.lab.network import NotThere
from mobula.lab.topology import ZONES

TABLE = "fault"


def _cut_rules(links: Iterable[str]) -> str:
    drops = "\n".join(f'    iifname "{link}" drop\n    oifname "{link}" drop' for link in sorted(links))
    chain = f"type filter hook forward priority -10; policy accept;\n{drops}"
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain forward {{\n    {chain}\n  }}\n}}\n"


def zone_of(letter: str, zones: Mapping[str, int]) -> int:
    """Number of an AZ from its letter; `zones` are the region's.

    Raises:
        NotThere: no such AZ.
    """
    if letter not in zones:
        raise NotThere(f"find AZ {letter!r}: there are {', '.join(sorted(zones)) or 'none yet'}")
    return zones[letter]


def cut(region: str, a: int, b: int) -> None:
    """Nothing passes between two AZs any more, in silence.

    Raises:
        NotThere: it is one AZ, named twice.
    """
    if a == b:
        raise NotThere("cut two AZs from each other: name two different ones")
    low, high = sorted((a, b))
    for zone in (low, high):
        network.nft(f"{region}-r{zone}", _cut_rules([f"l{low}{high}"]))


def isolate(region: str, zone: int) -> None:
    """Nothing passes between this AZ and the others or the internet; management (`op`) still reaches it."""
    others = [z for z in ZONES if z != zone]
    network.nft(f"{region}-r{zone}", _cut_rules([*(f"l{min(z, zone)}{max(z, zone)}" for z in others), "pub"]))


def heal(region: str) -> None:
    """Remove every cut."""
    for zone in ZONES:
        network.nft(f"{region}-r{zone}", f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n")


HEAL = "./mobula lab heal"
NEW_DISK = "./mobula up puts a new disk in its place"


def standing(region: str, zones: Mapping[str, int], state_dir: Path) -> list[tuple[str, str, str]]:
    """(AZ or machine, fault, what to do): what is cut, frozen or failed now, however it came to be."""
    found = []
    for letter, zone in sorted(zones.items()):
        if (network.NETNS / f"{region}-r{zone}").exists():
            links = network.cut_links(f"{region}-r{zone}", TABLE)
            found += [(f"az {letter}", f"its links {', '.join(links)} are cut", HEAL)] if links else []
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
