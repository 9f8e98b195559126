"""What a run measures: values that the command line makes and everything else follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
SYSTEMS = ("mobula", "swift", "seaweedfs")
METHODS = ("PUT", "GET", "HEAD", "DELETE")
SIZES_BYTES = (KIB, 64 * KIB, MIB, 64 * MIB)
CONNECTIONS = (1, 16, 64)
LARGE_BYTES = 16 * MIB
LARGE_CONNECTIONS = (1, 4)
"""instead of `CONNECTIONS`, for objects from `LARGE_BYTES` on"""
PUT_BYTES_MAX = 512 * MIB
"""of one measurement of PUT: bounds the disk that a run takes"""
SETUP_S = 300.0
LIMITS_S = 240.0
JOBS_S = 180.0
"""each repetition"""
CEILING = "ceiling"
"""the name under which the load's own limit stands among the systems"""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Lists are in the order in which they are measured."""

    systems: tuple[str, ...] = SYSTEMS
    methods: tuple[str, ...] = METHODS
    sizes_bytes: tuple[int, ...] = SIZES_BYTES
    connections: tuple[int, ...] = CONNECTIONS
    large_connections: tuple[int, ...] = LARGE_CONNECTIONS
    repetitions: int = 3
    seconds: float = 3.0
    entries: int = 10_000
    """of the directory that is listed; 0: none is"""
    limits: bool = False
    """instead of all that: our own limits (tests/bench/limits.py)"""
    jobs: bool = False
    """instead of all that: jobs against clients that do their work (tests/bench/greps.py)"""
    job_cells: tuple[tuple[int, int], ...] = ((1000, 4 * KIB), (100, 4 * MIB))
    """objects, and bytes of each"""

    def cells(self) -> Iterator[tuple[int, int]]:
        """Pairs of size (bytes) and connections."""
        for size_bytes in self.sizes_bytes:
            for count in self.large_connections if size_bytes >= LARGE_BYTES else self.connections:
                yield size_bytes, count

    def turn(self, repetition: int) -> tuple[str, ...]:
        """The systems in the order of this repetition: each is first in its turn."""
        first = repetition % len(self.systems)
        return self.systems[first:] + self.systems[:first]

    @property
    def load_s(self) -> float:
        """How long all loads take together, about: each measurement, with what comes before and after it."""
        if self.limits:
            return LIMITS_S
        if self.jobs:
            return JOBS_S * self.repetitions
        count = len(list(self.cells())) * len(self.systems) * len(self.methods) * self.repetitions
        return count * (self.seconds + 1.5) + len(self.systems) * self.entries * 0.005

    @property
    def bound_s(self) -> float:
        """No run takes longer."""
        return SETUP_S + 4 * self.load_s

    @property
    def disk_bytes(self) -> int:
        """What a run may fill at most: two copies of all that is put in, as far as it is not freed at once."""
        large = sum(1 for size_bytes, _ in self.cells() if size_bytes >= MIB)
        return (4 << 30) + 2 * large * len(self.systems) * PUT_BYTES_MAX * self.repetitions


QUICK = Plan(
    sizes_bytes=(KIB, MIB),
    connections=(16,),
    repetitions=1,
    seconds=2.0,
    entries=1000,
    job_cells=((200, 4 * KIB), (20, 4 * MIB)),
)


def size_name(size_bytes: int) -> str:
    """As people say it: 1 KiB."""
    return f"{size_bytes // MIB} MiB" if size_bytes >= MIB else f"{size_bytes // KIB} KiB"
