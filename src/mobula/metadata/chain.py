"""Whom an asynchronous peer streams from: the chain P -> S -> A. Pure decisions; `patroni_launcher` brings the facts and acts.

Streaming from the primary, the asynchronous peer may be ahead of the synchronous one when that is promoted, and then has to be rewound
before it can confirm a commit: writes came back 3 to 16 s after reads. Behind the synchronous one it never is (39 of 39 failovers).

The rule: whoever is neither leader nor synchronous streams from the one synchronous standby that `/sync` names. `/sync` of an older
leader says nothing. Should the standby give nothing for `STALL_S` while the primary is further on, the peer streams from the primary,
until `/sync` names another one or `hold_s` has passed: then it tries the standby again, each time twice as long after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STALL_S = 0.7
HOLD_S = 3.0
HOLD_MAX_S = 60.0
FORGIVE_S = 10.0
"""a standby that has given WAL for so long since it was tried again has no earlier stalls held against it"""


@dataclass(frozen=True, slots=True)
class Keys:
    """What ZooKeeper says of a shard: `leader` of the leader key, the rest of `/sync`; `running`: peers whose server runs."""

    leader: str | None
    sync_leader: str | None
    voters: frozenset[str]
    running: frozenset[str]


def standby_above(me: str, keys: Keys) -> str | None:
    """The synchronous standby that `me` streams from; None for the primary, or for whoever streams from it."""
    if me == keys.leader or me in keys.voters:
        return None
    if keys.leader and keys.sync_leader != keys.leader:
        return None
    others = keys.voters - {me, keys.leader}
    return next(iter(others)) if len(others) == 1 and others <= keys.running else None


class Chain:
    """One peer's place in the chain, as it is looked at again and again. Times are monotonic seconds, positions bytes of WAL."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._received: int | None = None
        self._moved_s = 0.0
        self._passed_over: str | None = None
        """the standby that gave nothing"""
        self._passed_over_s = -HOLD_MAX_S - FORGIVE_S
        self._hold_s = HOLD_S

    def above(self, keys: Keys, received: int, now_s: float, ask_leader: Callable[[], int | None]) -> str | None:
        """Whom a standby streams from now; None: the primary.

        `received` is what it has received; `ask_leader` asks the primary for its position (None: no answer, or no primary), and is
        called only when the standby above has given nothing for `STALL_S`.
        """
        standby = standby_above(self._me, keys)
        if received != self._received:
            self._received, self._moved_s = received, now_s
        if self._passed_over is not None:
            if standby == self._passed_over and now_s - self._passed_over_s <= self._hold_s:
                return None
            self._passed_over, self._moved_s = None, now_s
        if standby is None or now_s - self._moved_s <= STALL_S:
            return standby
        position = ask_leader()
        if position is None or position == received:
            return standby
        again = now_s - self._passed_over_s < self._hold_s + FORGIVE_S
        self._hold_s = min(HOLD_MAX_S, self._hold_s * 2) if again else HOLD_S
        self._passed_over, self._passed_over_s = standby, now_s
        return None
