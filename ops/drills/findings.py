"""Verdicts of three values, and what they rest on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ops.drills.history import Operation


class Verdict(StrEnum):
    """Of a check, and of a drill."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNKNOWN = "unknown"
    """neither was shown"""


_WORST = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Fail before unknown before pass; of none: pass."""
    return min(verdicts, key=_WORST.index, default=Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as promised, or that could not be looked at (`verdict` unknown)."""

    check: str
    """the oracle, as "O1\""""
    verdict: Verdict
    what: str
    operations: tuple[Operation, ...] = ()
    """that show it, in the order of their beginning"""

    def lines(self, origin_s: float = 0.0) -> list[str]:
        """The operations, for people; times from `origin_s`."""
        return [operation.sentence(origin_s) for operation in self.operations]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check."""

    check: str
    verdict: Verdict
    findings: tuple[Finding, ...]


def check(name: str, look: Callable[[], Sequence[Finding]]) -> Checked:
    """Look, and say what it comes to. A look that breaks has shown nothing."""
    try:
        found = tuple(look())
    except Exception as e:  # noqa: BLE001 - whatever broke, the other checks count
        found = (Finding(name, Verdict.UNKNOWN, f"the check itself broke: {type(e).__name__}: {e}"),)
    return Checked(name, worst(f.verdict for f in found), found)


def check_all(looks: Mapping[str, Callable[[], Sequence[Finding]]]) -> list[Checked]:
    """Each by itself, in this order."""
    return [check(name, look) for name, look in looks.items()]


def verdict(checked: Iterable[Checked]) -> Verdict:
    """The worst of them; of none: unknown, as nothing was shown."""
    return worst([c.verdict for c in checked] or [Verdict.UNKNOWN])
