"""The replicated lease: what a guard may grant and when. Pure decisions; `guard` brings the facts and acts.

Synchronous replication alone is not linearizable: a deposed primary goes on answering reads. So a server answers only under a lease,
and a promoted server waits until every lease that the old primary may still have has run out. A lease is granted for `lease_s` from a
START taken before the evidence was gathered:

G1  a synchronous commit, begun after START, was flushed by the synchronous standby: the only electable peer had not been promoted.
G2  (no G1 within `G1_WAIT_S`) a ZooKeeper write of ours, begun after START, and on the same session a read that still shows our leader
    key. Only if the server is *clean*: one G1 since its start, or seen in recovery in the same start, or /sync names nobody else.
    Otherwise a restarted primary could publish commits that were never acknowledged.

Source of the rules and of the measurements behind them: docs/metadata.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

G1_WAIT_S = 0.3
"""how long a cycle waits for G1 before it asks ZooKeeper"""
CLOCK_STEP_S = 0.05
"""a wall clock that falls back by more than this against the monotonic one has been stepped"""


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks. Leases are compared with the wall clock, by PostgreSQL; the monotonic one can't be stepped."""

    wall_s: float
    mono_s: float

    def lease_until(self, lease_s: float, now: Instant) -> float:
        """Wall clock time at which a lease that began here ends, as seen now.

        The earlier one of two answers: the wall clock may have been stepped back since (then the first is too late), the monotonic
        one may have stood still with the machine (then the second is).
        """
        return min(self.wall_s + lease_s, now.wall_s + lease_s - (now.mono_s - self.mono_s))


@dataclass(frozen=True, slots=True)
class Beat:
    """Answer of a G1 attempt; `start` was taken before it."""

    start: Instant
    boot: str
    generation: int
    replicated: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """What ZooKeeper showed after our own write; `start` was taken before that."""

    start: Instant
    leader: str | None
    sync_leader: str | None
    sync_standby: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`until_s`: wall clock time until which a lease may be granted, None for none. `why`: the kind of evidence, or what is missing."""

    until_s: float | None
    why: str


def sync_of(data: bytes) -> tuple[str | None, str | None]:
    """(leader, standby) of Patroni's /sync key; (None, None) when it says nothing readable."""
    try:
        value = json.loads(data)
    except ValueError:
        return None, None
    if not isinstance(value, dict):
        return None, None
    return value.get("leader") or None, value.get("sync_standby") or None


@dataclass(slots=True)
class Reign:
    """One run of a server as primary: whether it is clean, when its wait ends, how long it has granted.

    `name` is our member name, `boot` the postmaster's start. `wait_until_s` is monotonic, `granted_until_s` wall clock.
    """

    name: str
    boot: str
    generation: int
    clean: bool
    wait_until_s: float
    lease_s: float
    granted_until_s: float = 0.0

    def by_beat(self, beat: Beat, now: Instant) -> Verdict:
        """G1. May make the server clean."""
        if beat.boot != self.boot or beat.generation != self.generation:
            return Verdict(None, "the beat came from another start of the server")
        if not beat.replicated:
            return Verdict(None, "no synchronous standby has flushed the beat")
        self.clean = True
        return self._grant(beat.start, now, "G1")

    def by_keys(self, keys: Keys, now: Instant) -> Verdict:
        """G2. May make the server clean."""
        if keys.leader != self.name:
            return Verdict(None, f"the leader key names {keys.leader!r}")
        if keys.sync_leader == self.name and keys.sync_standby is None:
            self.clean = True
        if not self.clean:
            return Verdict(None, "not clean: restarted, and no beat has been replicated since")
        return self._grant(keys.start, now, "G2")

    def _grant(self, start: Instant, now: Instant, kind: str) -> Verdict:
        if now.mono_s < self.wait_until_s:
            left_s = self.wait_until_s - now.mono_s
            return Verdict(None, f"waiting {left_s:.2f} s for the leases of the old primary to run out")
        until_s = start.lease_until(self.lease_s, now)
        if until_s <= now.wall_s:
            return Verdict(None, f"{kind} took longer than the lease is long")
        if until_s <= self.granted_until_s:
            # Safe, but it would cut a newer lease short.
            return Verdict(None, "a newer lease is granted already")
        return Verdict(until_s, kind)


@dataclass(slots=True)
class Signs:
    """On a standby: when (monotonic) the old primary's grants last showed a sign of life.

    Every grant of the old primary that can still be alive began before the newest sign was seen here.
    """

    beat: int | None = None
    beat_seen_s: float = 0.0
    grants: tuple[int, ...] | None = None
    grants_seen_s: float = 0.0

    def saw_beat(self, beat: int, now_s: float) -> None:
        """The replicated heartbeat's number, as just read."""
        if beat != self.beat:
            self.beat, self.beat_seen_s = beat, now_s

    def saw_grants(self, grants: tuple[int, ...], now_s: float) -> None:
        """The change numbers of the other guards' G2 nodes, as just read."""
        if grants != self.grants:
            self.grants, self.grants_seen_s = grants, now_s

    @property
    def complete(self) -> bool:
        """Both kinds of signs have been watched."""
        return self.beat is not None and self.grants is not None

    def newest_s(self) -> float:
        """When the newest sign was seen."""
        return max(self.beat_seen_s, self.grants_seen_s)


def wait_end(now_s: float, lease_s: float, margin_s: float, signs_s: float | None) -> float:
    """When (monotonic) a promoted server may grant first: a lease and a margin after the promotion was seen, or, with early wait,
    after the last sign of the old primary's grants (`signs_s`), whichever comes first.
    """
    latest = now_s + lease_s + margin_s
    return latest if signs_s is None else min(latest, signs_s + lease_s + margin_s)


def stepped_back(before: Instant, now: Instant) -> bool:
    """The wall clock fell back against the monotonic one: leases granted before last longer than they say."""
    return (now.wall_s - now.mono_s) < (before.wall_s - before.mono_s) - CLOCK_STEP_S
