"""Many drills, one after the other, and a table of what came of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.drills import keep
from ops.drills.catalog import DRILLS, drill_of
from ops.drills.findings import Verdict
from ops.drills.record import BadRecord, Run, decode
from ops.drills.report import summary
from ops.progress import Progress
from ops.region import REPO

OFTEN = frozenset({
    ("az-loss", "worst"), ("partition", "isolate-worst"), ("partition", "all"), ("pool-loss", "b"),
    ("shard-matrix", "primary-kill"), ("shard-matrix", "primary-freeze"), ("shard-matrix", "primary-power"),
    ("shard-matrix", "primary-cut"),
})  # fmt: skip
"""what is run more than once: the losses that every promise rests on"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a run: what was kept, or why nothing was."""

    name: str
    variant: str
    run: Run | None
    why: str = ""


def rounds(times: int, only: Sequence[str]) -> list[tuple[str, str]]:
    """Drills and variants in the order in which they are run: everything once, `OFTEN` so many times.

    `only` these, each a drill's name (all its variants) or NAME/VARIANT.

    Raises:
        BadInput: there is no such drill, or it has no such variant.
    """
    wanted = {one for asked in only for one in _named(asked)}
    once = [(d.name, variant) for d in DRILLS.values() for variant in d.variants]
    return [one for one in once if not only or one in wanted for _ in range(times if one in OFTEN else 1)]


def _named(asked: str) -> list[tuple[str, str]]:
    name, slash, variant = asked.partition("/")
    drill = drill_of(name)
    return [(name, v) for v in ([drill.variant(variant)] if slash else drill.variants)]


def run_all(region: str, todo: Iterable[tuple[str, str]], into: Path, progress: Progress) -> list[Outcome]:
    """Run each in a process of its own; whatever becomes of one, the next follows. Reports go to `into`."""
    into.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, (name, variant) in enumerate(todo, 1):
        folder = into / f"{number:02}-{name}-{variant}"
        argv = [str(REPO / "mobula"), "-R", region, "drill", "run", name, "--variant", variant, "--into", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        (into / f"{folder.name}.log").write_text(done.stdout + done.stderr)
        outcomes.append(_outcome(name, variant, folder, done))
        last = outcomes[-1]
        progress(f"{name} ({variant}): {last.run.verdict if last.run else 'not run: ' + last.why}")
    (into / "summary.md").write_text(text(outcomes))
    return outcomes


def _outcome(name: str, variant: str, folder: Path, done: subprocess.CompletedProcess[str]) -> Outcome:
    try:
        return Outcome(name, variant, decode((folder / keep.RECORD).read_bytes()))
    except (OSError, BadRecord):
        said = done.stderr.strip().splitlines()
        return Outcome(name, variant, None, said[-1] if said else f"exit {done.returncode}")


def verdict(outcomes: Iterable[Outcome]) -> Verdict:
    """The worst; what could not be run is unknown."""
    seen = {outcome.run.verdict if outcome.run else Verdict.UNKNOWN for outcome in outcomes}
    return next((v for v in (Verdict.FAIL, Verdict.UNKNOWN) if v in seen), Verdict.PASS)


def text(outcomes: Sequence[Outcome]) -> str:
    """The table, and what could not be run."""
    table = summary(outcome.run for outcome in outcomes if outcome.run)
    return table + "".join(f"\n* {o.name} ({o.variant}) was not run: {o.why}" for o in outcomes if o.run is None) + "\n"


def as_json(outcomes: Iterable[Outcome]) -> object:
    """What `--json` prints."""
    return [
        {"drill": o.name, "variant": o.variant, "verdict": str(o.run.verdict) if o.run else "unknown", "why": o.why,
         "rto_reads_s": o.run.rto_s(writes=False) if o.run else None, "rto_writes_s": o.run.rto_s(writes=True) if o.run else None}
        for o in outcomes
    ]  # fmt: skip
