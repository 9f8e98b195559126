"""For the tests of drills: regions as drills find them, operations in short, and a real register that many clients use at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from ops.drills.history import Operation
from ops.drills.model import Scene, Shard
from ops.region import Host, Region

PROFILES = {"small": (1, 1), "lab": (2, 2)}
"""hosts of each stateless pool in an AZ, shards"""
PLACES = {"storage": 40, "api": 20, "loadbalancer": 10, "nameservice": 5, "metadata": 60}
ZONES = {"a": 1, "b": 2, "c": 3}


def hosts(profile: str, region: str = "lab") -> dict[str, Host]:
    """As Terraform lays them out."""
    wide, shards = PROFILES[profile]
    found = {}
    for az, zone in ZONES.items():
        for pool, place in PLACES.items():
            for index in range(1, {"nameservice": 1, "metadata": shards}.get(pool, wide) + 1):
                name = f"{region}-{az}-{pool}-{index:02}"
                shard, disks = (index if pool == "metadata" else 0), (14 if pool == "storage" else 0)
                found[name] = Host(name, az, pool, index, f"10.77.{zone}.{place + index}", shard, disks)
    return found


def region_in(state_dir: Path, profile: str = "small", name: str = "lab") -> Region:
    """A region that has its hosts and nothing else."""
    return Region(
        name, "mobula.test", "10.77.0.0/16", 8443, state_dir, state_dir, hosts(profile, name), profile, drillable=True
    )


def scene(profile: str, leader: str = "b") -> Scene:
    """With ZooKeeper's leader in an AZ; the primaries are in AZs one after the other."""
    azs = [*ZONES, *ZONES]
    peers = {n: [f"lab-{az}-metadata-{n:02}" for az in azs[n - 1 : n + 2]] for n in range(1, PROFILES[profile][1] + 1)}
    shards = {n: Shard(*found) for n, found in peers.items()}
    known, cold = (
        tuple(f"/demo/stor/drills/x/d{shard}/{kind}{number:03}" for shard in shards for number in range(3))
        for kind in ("known", "known-cold")
    )
    return Scene(hosts(profile), ZONES, shards, f"lab-{leader}-nameservice-01", known, cold)


def put(value: str, began_s: float, ended_s: float, status: int = 204) -> Operation:
    return Operation("c", "a", "put", "k", value, began_s, ended_s, status)


def swap(expected: str | None, value: str, began_s: float, ended_s: float, status: int = 204) -> Operation:
    return Operation("c", "a", "put_if_match", "k", value, began_s, ended_s, status, expected=expected)


def get(value: str | None, began_s: float, ended_s: float, status: int | None = None) -> Operation:
    told = status if status is not None else 404 if value is None else 200
    return Operation("c", "a", "get", "k", value, began_s, ended_s, told)


def delete(began_s: float, ended_s: float, status: int = 204, expected: str | None = None) -> Operation:
    return Operation("c", "a", "delete", "k", None, began_s, ended_s, status, expected=expected)


@dataclass
class Atomic:
    """A register of which each operation takes effect at one moment; an answer in `lost` of all cases does not arrive, and then the
    operation happens at any later time, or never.
    """

    source: random.Random
    clients: int
    lost: float
    value: str | None = None
    written: int = 0
    known: list[str | None] = field(default_factory=lambda: [None])
    """what somebody was told is there: only this can be made a condition"""

    def history(self, count: int) -> list[Operation]:
        """By the end of each."""
        # (when, order of coming, what then): begin, effect, end of each client's operation
        free = [(self.source.random(), client) for client in range(self.clients)]
        effects: list[tuple[float, int]] = []
        under: dict[int, tuple[Operation, bool]] = {}
        out: list[Operation] = []
        for number in range(count):
            free.sort()
            began_s, client = free.pop(0)
            self._happen(effects, began_s, under, out)
            took = self.source.expovariate(1.0)
            lost = self.source.random() < self.lost
            at = began_s + took * self.source.random()
            if lost:
                at = began_s + self.source.choice([0.1, took, 30.0, 1e9]) * self.source.random()
            under[number] = (self._asked(f"c{client}", began_s, began_s + took), lost)
            effects.append((at, number))
            free.append((began_s + took + self.source.random() * 0.2, client))
        self._happen(effects, 1e8, under, out)
        out += [operation for operation, _ in under.values()]
        return sorted(out, key=lambda o: o.ended_s)

    def _asked(self, client: str, began_s: float, ended_s: float) -> Operation:
        draw = self.source.random()
        expected = self.source.choice([self.known[-1], self.known[-1], self.source.choice(self.known)])
        kind = "get" if draw < 0.5 else "put" if draw < 0.7 else "put_if_match" if draw < 0.85 else "delete"
        value = None
        if kind in ("put", "put_if_match"):
            self.written += 1
            value = f"{self.written:032x}"
        if kind in ("get", "put") or (kind == "delete" and self.source.random() < 0.5):
            expected = None
        return Operation(client, "a", kind, "k", value, began_s, ended_s, 0, expected=expected)  # type: ignore[arg-type]

    def _happen(
        self,
        effects: list[tuple[float, int]],
        until_s: float,
        under: dict[int, tuple[Operation, bool]],
        out: list[Operation],
    ) -> None:
        effects.sort()
        while effects and effects[0][0] <= until_s:
            _, number = effects.pop(0)
            operation, lost = under.pop(number)
            status, value = self._performed(operation)
            out.append(operation if lost else _answered(operation, status, value))
            if not lost and status != 412:
                self.known.append(value)

    def _performed(self, o: Operation) -> tuple[int, str | None]:
        if o.kind == "get":
            return (404, None) if self.value is None else (200, self.value)
        conditional = o.kind == "put_if_match" or o.expected is not None
        if o.kind == "delete" and self.value is None:
            return 404, None
        if conditional and self.value != o.expected:
            return 412, o.value
        self.value = o.value
        return 204, o.value


def _answered(o: Operation, status: int, value: str | None) -> Operation:
    return Operation(o.client, o.az, o.kind, o.key, value, o.began_s, o.ended_s, status, o.group, o.expected)
