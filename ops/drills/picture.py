"""A run as a picture: lanes over one time axis, as inline SVG. Pure.

Colours are the page's (`page.py`: CSS variables), so that one picture serves light, dark and print. All text has the size FONT in the
picture's units: a picture made for the width at which it is shown can be read there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from itertools import groupby

from ops.drills.record import Run, Sample, Second

FONT = 11
CHARACTER = 0.58 * FONT
"""a character's width, about"""
LEFT, RIGHT = 46, 48
LANE, ROW, TITLE, GAP = 84, 17, 18, 12
NO_ANSWER = "0"
CODES = {"503": "orange", NO_ANSWER: "red", "500": "purple", "502": "sky", "504": "green"}
COLOURS = ("sky", "orange", "green", "purple", "red", "blue")
LEASE = {True: ("held", "held"), False: ("lost", "not held"), None: ("unseen", "not seen")}
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def clean(text: str) -> str:
    """For HTML and XML: escaped, without what neither may hold."""
    return escape(
        "".join(c if c in "\t\n" or (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000) else "\ufffd" for c in text)
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """Time from left to right."""

    width: int
    ended_s: float

    @property
    def right(self) -> int:
        """Where the lanes end."""
        return self.width - RIGHT

    def x(self, at_s: float) -> float:
        """Where a time is."""
        share = min(1.0, max(0.0, at_s / self.ended_s))
        return LEFT + share * (self.right - LEFT)


def svg(run: Run, width: int) -> str:
    """The picture, `width` units wide."""
    last_s = max([run.took_s, 1.0, *(s.at_s + 1.0 for s in run.series[-1:])])
    axis = Axis(width, last_s)
    points = _thinned(run.series, max(1, math.ceil(len(run.series) / ((axis.right - LEFT) / 2))))
    labels, top = _fault_labels(run, axis)
    parts: list[str] = []
    y = float(top)
    for lane, height in (
        (_throughput(points, axis, y + TITLE), LANE + TITLE),
        *_errors(points, axis, y + TITLE + LANE + GAP + TITLE),
    ):
        parts += lane
        y += height + GAP
    parts += _latency(points, axis, y + TITLE)
    y += TITLE + LANE + GAP
    for shard, samples in groupby(sorted(run.samples, key=lambda s: (s.shard, s.at_s)), key=lambda s: s.shard):
        parts += _shard(shard, list(samples), axis, y + TITLE, _hosts(run.samples))
        y += TITLE + ROW + 12 + GAP
    bottom = y - GAP + 4
    shades = []
    for fault in run.faults:
        since_x, until_x = axis.x(fault.injected_s), axis.x(last_s if fault.healed_s is None else fault.healed_s)
        shades.append(_rect(since_x, top, (until_x - since_x, bottom - top), "fault"))
    about = f"Timeline of {run.drill}: operations, errors, latency and primaries over {last_s:.0f} seconds"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 22:.0f}" role="img" font-size="{FONT}">',
        f"<title>{clean(about)}</title>",
        *shades,
        *_grid(axis, top, bottom),
        *parts,
        *labels,
        "</svg>",
    ])  # fmt: skip


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> str:
    named = f' class="{css}"' if css else ""
    ends = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{ends}{named}>{clean(text)}</text>'


def _rect(x: float, y: float, size: tuple[float, float], css: str, said: str = "") -> str:
    title = f"<title>{clean(said)}</title>" if said else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, size[0]):.1f}" height="{size[1]:.1f}" class="{css}">{title}</rect>'


def _fits(text: str, width: float) -> str:
    """As much of a text as a width takes."""
    room = int(width / CHARACTER)
    return text if len(text) <= room else f"{text[: room - 1]}\u2026" if room > 3 else ""


def _fault_labels(run: Run, axis: Axis) -> tuple[list[str], int]:
    """A line for each fault, with its times; and where the lanes begin."""
    out = []
    for number, fault in enumerate(run.faults):
        y = 12 + number * 16
        x = axis.x(fault.injected_s)
        until = "never healed" if fault.healed_s is None else f"{fault.healed_s:.0f} s"
        label = f"{fault.name}  {fault.injected_s:.0f} s \u2013 {until}"
        wide = len(label) * CHARACTER
        if x + wide > axis.width - 2:
            x = max(2.0, axis.width - 2 - wide)
        out.append(_text(x, y, _fits(label, axis.width - x), css="fault-name"))
    return out, 4 + 16 * len(run.faults) + 4


def _grid(axis: Axis, top: float, bottom: float) -> Iterator[str]:
    """The time axis, and a thin line down at each of its marks."""
    most = max(2, int((axis.right - LEFT) / 62))
    step = next(
        (s for s in STEPS_S if axis.ended_s / s <= most), STEPS_S[-1] * math.ceil(axis.ended_s / STEPS_S[-1] / most)
    )
    at = 0
    while at <= axis.ended_s:
        x = axis.x(at)
        yield f'<path d="M{x:.1f} {top}V{bottom}" class="grid"/>'
        yield _text(x, bottom + 14, _clock(at, step), anchor="middle", css="soft")
        at += step


def _clock(at_s: int, step_s: int) -> str:
    if step_s >= 3600:
        return f"{at_s / 3600:g} h"
    if step_s >= 60 or (at_s and at_s % 60 == 0 and step_s >= 30):
        return f"{at_s / 60:g} min"
    return f"{at_s} s"


def _thinned(series: Sequence[Second], several: int) -> list[Second]:
    """Every `several` seconds as one: rates are means, errors sums, the latency is that of the worst second."""
    out = []
    for start in range(0, len(series), several):
        some = series[start : start + several]
        errors: dict[str, int] = {}
        for second in some:
            for code, n in second.errors.items():
                errors[code] = errors.get(code, 0) + n
        p50 = [s.p50_s for s in some if s.p50_s is not None]
        p99 = [s.p99_s for s in some if s.p99_s is not None]
        reads, writes = sum(s.reads for s in some) // len(some), sum(s.writes for s in some) // len(some)
        out.append(Second(some[0].at_s, reads, writes, errors, max(p50, default=None), max(p99, default=None)))
    return out


def _line(dots: Sequence[tuple[float, float] | None], colour: str) -> str:
    """A line with gaps where there is nothing; a lonely dot is a short dash."""
    path, up = [], True
    for dot in dots:
        if dot is None:
            up = True
            continue
        path.append(f"{'M' if up else 'L'}{dot[0]:.1f} {dot[1]:.1f}{'h1' if up else ''}")
        up = False
    return f'<path d="{"".join(path)}" class="line s-{colour}"/>'


def _at_the_end(ends: Iterable[tuple[float, str, str]], axis: Axis, top: float, bottom: float) -> Iterator[str]:
    """Names beside the ends of lines, moved apart."""
    free = top + 8.0
    waiting = sorted(ends)
    for number, (y, name, colour) in enumerate(waiting):
        still = (len(waiting) - number - 1) * (FONT + 1)
        at = min(max(y + 4, free), bottom + 2 - still)
        free = at + FONT + 1
        yield f'<text x="{axis.right + 5}" y="{at:.1f}" class="{colour}-ink">{clean(name)}</text>'


def _throughput(points: Sequence[Second], axis: Axis, top: float) -> list[str]:
    most = _round_up(max((max(p.reads, p.writes) for p in points), default=1) or 1)
    bottom = top + LANE

    def dots(values: Iterable[int]) -> list[tuple[float, float] | None]:
        return [(axis.x(p.at_s + 0.5), bottom - LANE * v / most) for p, v in zip(points, values, strict=True)]

    reads, writes = dots(p.reads for p in points), dots(p.writes for p in points)
    ends = [
        (line[-1][1], name, colour)
        for line, name, colour in ((reads, "reads", "blue"), (writes, "writes", "orange"))
        if line and line[-1]
    ]
    return [
        _text(LEFT, top - 6, "Operations a second", css="lane"),
        *_scale(axis, top, [(bottom, "0"), (bottom - LANE / 2, f"{most / 2:g}"), (top, f"{most:g}")]),
        _line(reads, "blue"),
        _line(writes, "orange"),
        *_at_the_end(ends, axis, top, bottom),
    ]


def _round_up(value: float) -> float:
    """To a number that is easily read."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 4, 6, 8, 10) if n * power >= value)


def _scale(axis: Axis, top: float, marks: Iterable[tuple[float, str]]) -> Iterator[str]:
    for y, name in marks:
        yield f'<path d="M{LEFT} {y:.1f}H{axis.right}" class="grid"/>'
        yield _text(LEFT - 4, max(y + 4, top + 3), name, anchor="end", css="soft")


def _errors(points: Sequence[Second], axis: Axis, top: float) -> Iterator[tuple[list[str], float]]:
    """A row for each status, bars of one scale."""
    found: dict[str, int] = {}
    for point in points:
        for code, n in point.errors.items():
            found[code] = found.get(code, 0) + n
    title = "Errors, by status" if found else "Errors: none"
    parts = [_text(LEFT, top - 6, title, css="lane")]
    wide = max(1.2, (axis.right - LEFT) / max(1, len(points)) * 0.9 * _covered(points, axis))
    most = max((n for p in points for n in p.errors.values()), default=1)
    y = top
    for code, n in sorted(found.items(), key=lambda item: -item[1]):
        colour = CODES.get(code, "blue")
        y += ROW + FONT + 6
        parts.append(f'<path d="M{LEFT} {y:.1f}H{axis.right}" class="grid"/>')
        bars = "".join(
            f"M{axis.x(p.at_s):.1f} {y:.1f}v-{max(1.5, ROW * p.errors[code] / most):.1f}h{wide:.1f}V{y:.1f}z"
            for p in points
            if code in p.errors
        )
        parts.append(f'<path d="{bars}" class="f-{colour}"/>')
        parts.append(f'<rect x="{LEFT}" y="{y - ROW - FONT + 2}" width="9" height="9" class="f-{colour}"/>')
        parts.append(_text(LEFT + 13, y - ROW - 1, f"{_status(code)}: {n}"))
    yield parts, TITLE + max(0, y - top)


def _status(code: str) -> str:
    """For people."""
    known = {int(status): status.phrase for status in HTTPStatus}
    return "no answer" if code == NO_ANSWER else f"{code} {known.get(int(code), '') if code.isdigit() else ''}".strip()


def _covered(points: Sequence[Second], axis: Axis) -> float:
    """Which share of the axis the points cover."""
    return (points[-1].at_s + 1 - points[0].at_s) / axis.ended_s if points else 1.0


def _latency(points: Sequence[Second], axis: Axis, top: float) -> list[str]:
    values = [v for p in points for v in (p.p50_s, p.p99_s) if v is not None]
    low = math.floor(math.log10(max(1e-5, min(values, default=0.001))))
    high = max(low + 1, math.ceil(math.log10(max(1e-4, *values, 0.01))))
    bottom = top + LANE

    def dots(values: Iterable[float | None]) -> list[tuple[float, float] | None]:
        return [
            None
            if v is None
            else (axis.x(p.at_s + 0.5), bottom - LANE * (math.log10(max(v, 10.0**low)) - low) / (high - low))
            for p, v in zip(points, values, strict=True)
        ]

    p50, p99 = dots(p.p50_s for p in points), dots(p.p99_s for p in points)
    ends = []
    for line, name, colour in ((p50, "p50", "blue"), (p99, "p99", "red")):
        there = [dot for dot in line if dot is not None]
        ends += [(there[-1][1], name, colour)] if there else []
    marks = [(bottom - LANE * (n - low) / (high - low), _unit(10.0**n)) for n in range(low, high + 1)]
    return [
        _text(LEFT, top - 6, "Time to the answer, logarithmic", css="lane"),
        *_scale(axis, top, marks),
        _line(p50, "blue"),
        _line(p99, "red"),
        *_at_the_end(ends, axis, top, bottom),
    ]


def _unit(value_s: float) -> str:
    if value_s >= 0.9:
        return f"{value_s:.0f} s"
    return f"{value_s * 1e3:.0f} ms" if value_s >= 0.0009 else f"{value_s * 1e6:.0f} \u00b5s"


def _hosts(samples: Iterable[Sample]) -> Mapping[str, str]:
    """A colour for each host that was a primary."""
    names = sorted({s.primary for s in samples if s.primary is not None})
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _shard(shard: str, samples: Sequence[Sample], axis: Axis, top: float, colours: Mapping[str, str]) -> list[str]:
    """A band of who was primary; under it, whether the lease was held."""
    parts = [_text(LEFT, top - 6, f"{shard}: primary, and below it the lease", css="lane")]
    for host, since_s, until_s in _stretches([(s.at_s, s.primary) for s in samples], axis.ended_s):
        x, wide = axis.x(since_s), axis.x(until_s) - axis.x(since_s)
        css = "nobody" if host is None else f"f-{colours[host]}"
        parts.append(_rect(x, top, (wide, ROW), css, f"{host or 'no primary'}, {since_s:.0f} s to {until_s:.0f} s"))
        label = _short_host(host or "no primary", wide - 8)
        if label:
            parts.append(_text(x + 4, top + ROW - 5, label, css="" if host is None else "on-band"))
    for held, since_s, until_s in _stretches([(s.at_s, s.lease) for s in samples], axis.ended_s):
        x, wide = axis.x(since_s), axis.x(until_s) - axis.x(since_s)
        css, word = LEASE[held]
        parts.append(_rect(x, top + ROW + 3, (wide, 7), css, f"lease {word}, {since_s:.0f} s to {until_s:.0f} s"))
    parts.append(_text(axis.right + 5, top + ROW + 10, LEASE[samples[-1].lease][1], css="soft"))
    return parts


def _short_host(host: str, width: float) -> str:
    """A host's name, or its end: names of a region begin alike."""
    if len(host) * CHARACTER <= width:
        return host
    words = host.split("-")
    shorter = "-".join(words[1:]) or host
    return (
        shorter
        if len(shorter) * CHARACTER <= width
        else words[1]
        if len(words) > 1 and width >= 10
        else _fits(host, width)
    )


def _stretches[T](samples: Sequence[tuple[float, T]], ended_s: float) -> Iterator[tuple[T, float, float]]:
    """Where the same was seen, from its first sample to the first of another."""
    runs = [(value, next(same)[0]) for value, same in groupby(samples, key=lambda s: s[1])]
    for number, (value, since_s) in enumerate(runs):
        yield value, since_s, runs[number + 1][1] if number + 1 < len(runs) else ended_s
