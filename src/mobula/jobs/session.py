"""A terminal's session: its two ends, who of them is there, and what is said to whom. Pure.

Source: the compute contract, section "mlogin / medusa".

nobody -> one of them -> both, from when on each gets what the other sends -> over, whatever ends it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from mobula.core.medusa import IDLE_S, REFLECTOR, WAIT_S, write


class Side(StrEnum):
    MASTER = "master"
    """whoever sits at the terminal"""
    SLAVE = "slave"
    """the agent in the job's task"""

    @property
    def other(self) -> Side:
        return Side.SLAVE if self is Side.MASTER else Side.MASTER


class Taken(Exception):
    """The job has that end already: it has one session at a time."""


Said = Sequence[tuple[Side, str]]
"""texts, and to whom"""


class Session:
    """Of one job. Times are in seconds, of a clock that does not go back."""

    def __init__(self) -> None:
        self._joined_s: dict[Side, float] = {}
        self._heard_s: dict[Side, float] = {}
        self._wait_at_s = 0.0
        self.over = ""
        """why, when it is"""

    @property
    def linked(self) -> bool:
        return len(self._joined_s) == len(Side) and not self.over

    def join(self, side: Side, now_s: float) -> Said:
        """An end is there. Raises Taken."""
        if side in self._joined_s or self.over:
            raise Taken(f"the job has a {side} already; there is one session of a job at a time")
        self._joined_s[side] = self._heard_s[side] = now_s
        if self.linked:
            return [
                (each, write(REFLECTOR, "linkup")) for each in (Side.SLAVE, Side.MASTER)
            ]  # who speaks first hears last
        self._wait_at_s = now_s
        return self.due(now_s)

    def heard(self, side: Side, now_s: float) -> None:
        """Something came from an end, if only a ping."""
        self._heard_s[side] = now_s

    def unread(self, side: Side) -> None:
        """Until something is heard of it again, nobody reads what an end sends, as its peer takes nothing: it is not silent."""
        self._heard_s[side] = math.inf

    def due(self, now_s: float) -> Said:
        """What is to be said by now. Ends the session of which an end is silent, or for whose agent nobody comes."""
        for side, heard_s in self._heard_s.items():
            if now_s - heard_s >= IDLE_S:
                self.end(f"nothing came from its {side} for {IDLE_S:.0f} s")
        alone = None if self.linked or self.over else next(iter(self._joined_s))
        if alone is Side.SLAVE and now_s - self._joined_s[alone] >= IDLE_S:
            self.end("nobody wants the agent that waits")
        if alone is not Side.MASTER or now_s < self._wait_at_s:
            return []
        self._wait_at_s = now_s + WAIT_S
        return [(alone, write(REFLECTOR, "wait"))]

    def end(self, why: str) -> None:
        """It is over; the first reason counts."""
        self.over = self.over or why
