"""What maggr does, without any input or output: which operations on which columns, a group's numbers, and how they are written.

A line at a time: what is kept is a few numbers for each group and column. Pure. Source: the compute contract, section "Tools inside the
sandbox".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Number = int | float
_NUMBER = re.compile(rb"\s*[-+]?(?:\d{1,300}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?\s*", re.ASCII)
_INTEGER = re.compile(rb"\s*[-+]?\d{1,300}\s*", re.ASCII)
_FORMAT = re.compile(r"(?:[^%]|%%)*%[-+ 0#]*\d{0,3}(?:\.\d{1,2})?([diouxXeEfFgGs])(?:[^%]|%%)*")
KEY, NOP, COUNT = "key", "nop", "count"


class BadPlan(ValueError):
    """Operations or formats that can't be; the message says why."""


class BadLine(ValueError):
    """A line that can't be counted; the message says why."""


class Numbers:
    """Of one column in one group. The variance is kept by Welford's method: sums of squares lose all digits when the mean is large."""

    __slots__ = ("_mean", "_squares", "count", "least", "most", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum: Number = 0
        self.least: Number = math.inf
        self.most: Number = -math.inf
        self._mean = self._squares = 0.0

    def add(self, value: Number) -> None:
        self.count += 1
        self.sum += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        off = value - self._mean
        self._mean += off / self.count
        self._squares += off * (value - self._mean)

    @property
    def variance(self) -> float:
        """Of a sample: divided by one less than there are; of a single value, 0."""
        return self._squares / (self.count - 1) if self.count > 1 else 0.0


OPERATIONS: Mapping[str, Callable[[Numbers], Number]] = {
    "max": lambda of: of.most,
    "mean": lambda of: of.sum / of.count,
    "min": lambda of: of.least,
    "range": lambda of: of.most - of.least,
    "sum": lambda of: of.sum,
    "ovariance": lambda of: of.variance,
    "variance": lambda of: of.variance,
    "stddev": lambda of: math.sqrt(of.variance),
}
"""on a column's numbers; `ovariance` is `variance`, which is computed on line here anyway"""
NAMES = (KEY, NOP, COUNT, *OPERATIONS)


class Column(NamedTuple):
    """What is done with a column (`place`: from 0), and how each result is written; an empty format is the usual way."""

    place: int
    operations: tuple[str, ...]
    formats: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        return any(name in OPERATIONS for name in self.operations)


class Plan(NamedTuple):
    """What is done with each line. `delimiter` is between its columns; None: tabs if it has any, else blanks.

    `between` is between columns of the output, `inner` between results of one column.
    """

    columns: tuple[Column, ...]
    delimiter: bytes | None
    between: bytes
    inner: bytes


def plan_of(
    by_column: Sequence[str], by_position: str | None, *, formats: Sequence[str] = (), usual_format: str = "",
    delimiter: bytes | None = None, between: bytes = b"\t", inner: bytes = b",",
) -> Plan:  # fmt: skip
    """The plan that options stand for: `by_column` is ``2=min,max``, `by_position` is ``key,sum``, `formats` are ``2=%d,%.1f``.

    Raises:
        BadPlan: it is none.
    """
    wanted = {number: tuple(text.split(",")) for number, text in map(_numbered, by_column)}
    for number, name in enumerate(by_position.split(",") if by_position else [], 1):
        wanted.setdefault(number, (name,))
    unknown = [name for names in wanted.values() for name in names if name not in NAMES]
    if unknown:
        raise BadPlan(f"there is no operation {unknown[0]!r}; there are {' '.join(NAMES)}")
    if not wanted:
        raise BadPlan("say what to compute, as in `maggr key,sum` or `maggr -c1=key -c3=min,max`")
    if delimiter == b"":
        raise BadPlan("columns can't be parted by nothing (-d)")
    own_formats = {number: text.split(",") for number, text in map(_numbered, formats)}
    columns = []
    for number, names in sorted(wanted.items()):
        given = own_formats.get(number, [])
        shown = [name for name in names if name != NOP]
        chosen = tuple((given[i] if i < len(given) else _usual(name, usual_format)) for i, name in enumerate(shown))
        for name, text in zip(shown, chosen, strict=True):
            _check_format(name, text)
        columns.append(Column(number - 1, tuple(shown), chosen))
    return Plan(tuple(columns), delimiter, between, inner)


def _numbered(text: str) -> tuple[int, str]:
    number, sign, rest = text.partition("=")
    if not sign or not (number.isascii() and number.isdigit() and 0 < int(number) < 1_000_000) or not rest:
        raise BadPlan(f"{text!r} is not of the form COLUMN=LIST, as in 2=min,max; the first column is 1")
    return int(number), rest


def _usual(name: str, usual_format: str) -> str:
    """The format of all results is one of numbers: keys have none."""
    return "" if name == KEY else usual_format


def _check_format(name: str, text: str) -> None:
    found = _FORMAT.fullmatch(text)
    if text and found is None:
        raise BadPlan(f"{text!r} is no format for one result, as %d, %.2f and %s are")
    if found is not None and name == KEY and found[1] != "s":
        raise BadPlan(f"{text!r} is a format of numbers, and a key is a text; use %s")


class Aggregation:
    """Groups in the order in which they were first seen."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._deepest = max(column.place for column in plan.columns)
        self._keys = [column.place for column in plan.columns if KEY in column.operations]
        self._numeric = [column.place for column in plan.columns if column.numeric]
        self._groups: dict[tuple[bytes, ...], list[Numbers]] = {}
        self._counts: dict[tuple[bytes, ...], int] = {}

    def add(self, line: bytes) -> None:
        """Count a line, without its end. Raises BadLine: nothing of it was counted."""
        found = split(line, self._plan.delimiter)
        try:
            key = tuple([found[place] for place in self._keys])
            values = [number_of(found[place]) for place in self._numeric]
        except IndexError:
            raise BadLine(f"it has {len(found)} columns, {self._deepest + 1} are needed") from None
        except BadLine as error:
            raise BadLine(f"no number: {error}") from None
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = [Numbers() for _ in self._numeric]
        for numbers, value in zip(group, values, strict=True):
            numbers.add(value)
        self._counts[key] = self._counts.get(key, 0) + 1

    def results(self) -> list[bytes]:
        """A line for each group, without its end."""
        return [self._line(key) for key in self._groups]

    def _line(self, key: tuple[bytes, ...]) -> bytes:
        keys = dict(zip(self._keys, key, strict=True))
        numbers = dict(zip(self._numeric, self._groups[key], strict=True))
        shown = []
        for column in self._plan.columns:
            parts = []
            for name, text in zip(column.operations, column.formats, strict=True):
                if name == KEY:
                    found = keys[column.place]
                    parts.append((text.encode() % found) if text else found)
                else:
                    value = self._counts[key] if name == COUNT else OPERATIONS[name](numbers[column.place])
                    parts.append(written(value, text).encode())
            if parts:
                shown.append(self._plan.inner.join(parts))
        return self._plan.between.join(shown)


def split(line: bytes, delimiter: bytes | None) -> list[bytes]:
    """The columns of a line."""
    if delimiter is not None:
        return line.split(delimiter)
    return line.split(b"\t") if b"\t" in line else line.split() or [b""]


def number_of(text: bytes) -> Number:
    """A number in decimal; whole ones are exact, however long. Raises BadLine."""
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if math.isinf(value):
        raise BadLine(repr(text[:40].decode(errors="replace")))
    return value


def written(value: Number, text: str) -> str:
    """A result in its format; without one, a whole number has no point."""
    if text:
        try:
            return text % (str(value) if _conversion(text) == "s" else value)
        except (ValueError, OverflowError, TypeError):
            pass  # %d of what is infinite, %x of what is not whole
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _conversion(text: str) -> str:
    found = _FORMAT.fullmatch(text)
    return found[1] if found is not None else ""
