"""What the rows say: a value per cell and system, ratios, and whether the targets are reached. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.greps import BARE, CLIENTS, JOB, Grep
from tests.bench.limits import Limit
from tests.bench.measure import QUIET_CORES, Row, median
from tests.bench.plan import CEILING, KIB, METHODS, MIB, size_name

US = "mobula"
PEERS = ("swift", "seaweedfs")
RUNS_AT_LEAST = 3
"""where fewer runs were quiet, the quietest so many count"""
LOAD_CORES_MAX = 0.8
"""of its one core: beyond it the load itself may be what was measured"""

Place = tuple[str, int, int]
"""method, size in bytes, connections"""


@dataclass(frozen=True, slots=True)
class Listing:
    """One listing of a whole directory."""

    system: str
    entries: int
    repetition: int
    seconds: float


@dataclass(slots=True)
class Found:
    """All that a run found, in the order in which it came."""

    rows: list[Row] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    systems: list[Mapping[str, object]] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    greps: list[Grep] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cell:
    """Medians over the `runs` that count; `quiet`: others used little in all of these."""

    requests_s: float
    mb_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    load_cores: float
    other_cores: float
    runs: int
    quiet: bool
    failed: int


@dataclass(frozen=True, slots=True)
class Target:
    """What performance of the first release was promised: at least `least` times a peer, or CPU of at most `most_ms`."""

    what: str
    place: Place
    peer: str = ""
    least: float = 0.0
    most_ms: float = 0.0


TARGETS = (
    Target("PUT 1 KiB, against Swift", ("PUT", KIB, 16), "swift", 5.0),
    Target("PUT 1 KiB, against SeaweedFS with fsync", ("PUT", KIB, 16), "seaweedfs", 0.6),
    Target("GET 1 KiB, against Swift", ("GET", KIB, 16), "swift", 5.0),
    Target("GET 1 KiB, against SeaweedFS", ("GET", KIB, 16), "seaweedfs", 0.6),
    Target("PUT 1 MiB, against Swift", ("PUT", MIB, 16), "swift", 2.0),
    Target("PUT 64 MiB, against Swift", ("PUT", 64 * MIB, 4), "swift", 1.0),
    Target("GET 64 MiB, against Swift", ("GET", 64 * MIB, 4), "swift", 2.0),
    Target("servers' CPU of a PUT of 1 KiB, ms", ("PUT", KIB, 16), most_ms=2.2),
)


def cells(rows: Sequence[Row]) -> dict[tuple[Place, str], Cell]:
    """A cell for each place and system that was measured."""
    sorted_out: dict[tuple[Place, str], list[Row]] = {}
    for row in rows:
        sorted_out.setdefault(((row.method, row.size_bytes, row.connections), row.system), []).append(row)
    return {key: _cell(found) for key, found in sorted_out.items()}


def _cell(rows: Sequence[Row]) -> Cell:
    quiet = [row for row in rows if row.other_cores <= QUIET_CORES]
    counted = quiet or sorted(rows, key=lambda row: row.other_cores)[:RUNS_AT_LEAST]
    return Cell(
        median([r.requests_s for r in counted]), median([r.mb_s for r in counted]), median([r.p50_ms for r in counted]),
        median([r.p99_ms for r in counted]), median([r.cpu_ms for r in counted]), max(r.load_cores for r in counted),
        median([r.other_cores for r in counted]), len(counted), bool(quiet), sum(r.failed for r in rows),
    )  # fmt: skip


def ratio(rows: Sequence[Row], place: Place, peer: str) -> float | None:
    """How many times as many requests as a peer: the median over repetitions, as both were measured one after the other."""
    by_turn: dict[int, dict[str, float]] = {}
    for row in rows:
        if (row.method, row.size_bytes, row.connections) == place:
            by_turn.setdefault(row.repetition, {})[row.system] = row.requests_s
    pairs = [turn[US] / turn[peer] for turn in by_turn.values() if US in turn and turn.get(peer)]
    return median(pairs) if pairs else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was found; `value` None: not measured."""

    target: Target
    value: float | None

    @property
    def reached(self) -> bool:
        """As good as promised, or better."""
        if self.value is None:
            return False
        return self.value <= self.target.most_ms if self.target.most_ms else self.value >= self.target.least


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Of every target."""
    found, out = cells(rows), []
    for target in TARGETS:
        if target.most_ms:
            cell = found.get((target.place, US))
            out.append(Verdict(target, cell.cpu_ms if cell else None))
        else:
            out.append(Verdict(target, ratio(rows, target.place, target.peer)))
    return out


def places(rows: Sequence[Row]) -> list[Place]:
    """All that were measured on a store, in the order of the tables."""
    seen = {(row.method, row.size_bytes, row.connections) for row in rows if row.system != CEILING}
    return sorted(seen, key=lambda place: (METHODS.index(place[0]), place[1], place[2]))


def names(found: Found) -> list[str]:
    """Stores in the order of the tables."""
    measured = {row.system for row in found.rows}
    return [name for name in (US, *PEERS) if name in measured]


def text(found: Found) -> str:
    """The report in Markdown."""
    if found.limits:
        return (
            "\n".join(
                ["# Our own limits", "", "| | wanted | found | |", "|---|---|---|---|", *map(_limit_line, found.limits)]
            )
            + "\n"
        )
    if found.greps:
        return "\n".join(_jobs_lines(found.greps)) + "\n"
    systems = names(found)
    versions = {str(s["name"]): f"{s['name']} {s['version']}" for s in found.systems}
    idle = ", ".join(f"{s['name']} {s['idle_cores']:.3f}" for s in found.systems)
    lines = ["# Benchmark", "", "; ".join(versions.get(name, name) for name in systems) + ".", ""]
    lines += [f"Cores used by the servers while nobody asks: {idle}.", "", *_ceiling_lines(found.rows)]
    lines += [
        "",
        "## Targets",
        "",
        "| target | wanted | found | |",
        "|---|---|---|---|",
        *map(_verdict_line, verdicts(found.rows)),
    ]
    lines += ["", "## Everything", "", *_table(found, systems), *_listing_lines(found, systems)]
    return "\n".join(lines) + "\n"


def _limit_line(limit: Limit) -> str:
    return f"| {limit.what} | {limit.wanted} | {limit.found} | {'kept' if limit.kept else '**broken**'} |"


def _verdict_line(verdict: Verdict) -> str:
    target, value = verdict.target, verdict.value
    wanted = f"<= {target.most_ms:g} ms" if target.most_ms else f">= {target.least:g} x"
    found = "-" if value is None else f"{value:.2f}{' ms' if target.most_ms else ' x'}"
    word = "not measured" if value is None else "reached" if verdict.reached else "**missed**"
    return f"| {target.what} | {wanted} | {found} | {word} |"


def _ceiling_lines(rows: Sequence[Row]) -> Iterator[str]:
    own = [row for row in rows if row.system == CEILING]
    if own:
        told = ", ".join(f"{r.method} c={r.connections} {r.requests_s:.0f}/s" for r in own)
        yield f"The load's own ceiling, on a server that does nothing, 1 KiB: {told}."


def _table(found: Found, systems: Sequence[str]) -> Iterator[str]:
    """Per place: each system's figures, our ratios."""
    by_key = cells(found.rows)
    peers = [name for name in systems if name != US and US in systems]
    yield f"| | {' | '.join(systems)} | {''.join(f'x {p} | ' for p in peers)}runs | others, cores |"
    yield "|---" * (1 + len(systems) + len(peers) + 2) + "|"
    for place in places(found.rows):
        here = {name: by_key[place, name] for name in systems if (place, name) in by_key}
        method, size_bytes, connections = place
        ratios = [ratio(found.rows, place, peer) for peer in peers]
        shown = [_figures(here[name], size_bytes, method) if name in here else "-" for name in systems]
        shown += [f"{value:.2f}" if value is not None else "-" for value in ratios]
        runs = "/".join(f"{cell.runs}{'' if cell.quiet else '†'}" for cell in here.values())
        others = "/".join(f"{cell.other_cores:.1f}" for cell in here.values())
        yield f"| {method} {size_name(size_bytes)} c={connections} | {' | '.join(shown)} | {runs} | {others} |"
    yield ""
    yield "Requests (MB) a second (p50/p99 ms; servers' CPU ms a request), medians. † none of the runs was quiet, the quietest count;"
    yield f"quiet: others used at most {QUIET_CORES} cores. Ratios: medians over the repetitions. ‡ the load itself was near its limit."


def _figures(cell: Cell, size_bytes: int, method: str) -> str:
    moved = method in ("PUT", "GET") and size_bytes >= MIB
    rate = f"{cell.mb_s:.0f} MB" if moved else f"{cell.requests_s:.0f}"
    failed = f" **{cell.failed} failed**" if cell.failed else ""
    limit = "‡" if cell.load_cores > LOAD_CORES_MAX else ""
    return f"{rate}{limit} ({cell.p50_ms:.1f}/{cell.p99_ms:.1f}; {cell.cpu_ms:.2f}){failed}"


def _listing_lines(found: Found, systems: Sequence[str]) -> Iterator[str]:
    if found.listings:
        told = []
        for name in systems:
            took = [listing.seconds for listing in found.listings if listing.system == name]
            if took:
                told.append(f"{name} {median(took) * 1e3:.0f} ms (n={len(took)})")
        yield ""
        yield f"List {found.listings[0].entries} entries, all pages, one client: {', '.join(told)}."


@dataclass(frozen=True, slots=True)
class JobTarget:
    """How many times as fast as clients that do its work on a store a map has to be."""

    size_bytes: int
    store: str
    least: float


JOB_TARGETS = (JobTarget(4 * KIB, "swift", 3.0), JobTarget(4 * KIB, US, 1.0), JobTarget(4 * MIB, "swift", 4.0))


def times_as_fast(greps: Sequence[Grep], size_bytes: int, store: str) -> float | None:
    """How many times as fast as clients on a store a job did the work: the median over repetitions; None: not measured."""
    took = {(grep.way, grep.system, grep.repetition): grep.seconds for grep in greps if grep.size_bytes == size_bytes}
    jobs = {turn: seconds for (way, _, turn), seconds in took.items() if way == JOB}
    ratios = [took[CLIENTS, store, turn] / seconds for turn, seconds in jobs.items() if (CLIENTS, store, turn) in took]
    return median(ratios) if ratios else None


def _jobs_lines(greps: Sequence[Grep]) -> Iterator[str]:
    yield from (
        "# Jobs",
        "",
        "A map with its outputs stored (two copies), against 8 clients that download, grep and upload the result.",
        "",
    )
    yield from ("| target | wanted | found | |", "|---|---|---|---|")
    for target in JOB_TARGETS:
        value = times_as_fast(greps, target.size_bytes, target.store)
        word = "not measured" if value is None else "reached" if value >= target.least else "**missed**"
        found = "-" if value is None else f"{value:.2f} x"
        yield f"| map over {size_name(target.size_bytes)} against clients on {target.store} | >= {target.least:g} x | {found} | {word} |"
    yield from ("", "| | objects | s | ms an object | CPU ms an object | others, cores |", "|---|---|---|---|---|---|")
    kinds = dict.fromkeys((grep.size_bytes, grep.way, grep.system) for grep in greps)
    for size_bytes, way, system in sorted(kinds, key=lambda kind: (kind[0], kind[1] == BARE)):
        same = [grep for grep in greps if (grep.size_bytes, grep.way, grep.system) == (size_bytes, way, system)]
        took_s, cpu_s = median([grep.seconds for grep in same]), median([grep.cpu_s for grep in same])
        count, others = same[0].count, "/".join(f"{grep.other_cores:.1f}" for grep in same)
        what = f"{way} on {system}" if system else f"{way}, nothing stored"
        yield (
            f"| {what} | {count} x {size_name(size_bytes)} | {took_s:.2f} | {_ms(took_s, count)} | {_ms(cpu_s, count)} | {others} |"
        )
    yield from (
        "",
        f"Medians. CPU: of servers, clients and tasks. Take no figure for good where others used more than {QUIET_CORES} cores.",
    )


def _ms(seconds: float, count: int) -> str:
    return f"{seconds / count * 1e3:.1f}"
