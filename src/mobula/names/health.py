"""When an instance is in DNS: a pure state machine per service. `fall` failures in a row take it out, `rise` successes bring it in."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Health:
    """State of one service's check: registered or not, and how many results in a row speak against that."""

    registered: bool = False
    against: int = 0

    def after(self, passed: bool, *, fall: int, rise: int) -> Health:
        """The state after one more result."""
        if passed == self.registered:
            return replace(self, against=0)
        against = self.against + 1
        if against >= (rise if passed else fall):
            return Health(registered=passed)
        return replace(self, against=against)

    def sentence(self, name: str, why: str) -> str:
        """The state in words; `why` is the last check's."""
        if self.registered:
            return f"{name} is registered" + (f", {self.against} failed in a row: {why}" if self.against else "")
        return f"{name} is not registered: {why or 'not checked long enough yet'}"
