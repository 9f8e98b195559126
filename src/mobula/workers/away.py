"""Who does not answer, and is left alone for a while. Pure, but for the clock."""

from __future__ import annotations

from dataclasses import dataclass

from mobula.core.clock import Clock

FIRST_S = 1.0
MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class _Silence:
    until_s: float
    pause_s: float
    why: str


class Away:
    """Each failure in a row doubles the time for which a server is not asked; one answer ends it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent: dict[str, _Silence] = {}

    def failed(self, who: str, why: str) -> None:
        """It did not do what it was asked. Of failures at the same time one counts."""
        now_s, before = self._clock.monotonic_s(), self._silent.get(who)
        if before is not None and now_s < before.until_s:
            return
        pause_s = min(before.pause_s * 2, MOST_S) if before else FIRST_S
        self._silent[who] = _Silence(now_s + pause_s, pause_s, why)

    def answered(self, who: str) -> None:
        self._silent.pop(who, None)

    def __contains__(self, who: object) -> bool:
        """It is not to be asked now."""
        silence = self._silent.get(who) if isinstance(who, str) else None
        return silence is not None and self._clock.monotonic_s() < silence.until_s

    @property
    def reasons(self) -> dict[str, str]:
        """Why, of each that has not answered since it failed."""
        return {who: silence.why for who, silence in sorted(self._silent.items())}
