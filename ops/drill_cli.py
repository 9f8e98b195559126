"""`mobula drill`: rehearsed disasters, with clients, a checker and a report. Lab regions only."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path

import click

from ops.errors import BadInput, OperatorError
from ops.options import json_option
from ops.progress import Progress
from ops.region import Region, load, lock

HOLD_MAX_S = 86_400.0


def _region() -> Region:
    return load(click.get_current_context().obj.region)


def show(as_json: bool, value: object, text: str) -> None:
    """`value` as JSON, or `text`; commands in it name this region."""
    click.get_current_context().obj.show(value, text, as_json=as_json)


@click.group()
def drill() -> None:
    """Disasters as rehearsals: list them, run one, heal what one left behind.

    \b
    Exit codes of `run`: 0 pass, 1 fail, 2 unknown (it could not be shown either way).
    Example: ./mobula drill run az-loss
    """


@drill.command("list")
@json_option
def list_drills(as_json: bool) -> None:
    """All drills: what each rehearses, its variants, the claims that it covers.

    \b
    Example: ./mobula drill list
    """
    from ops.drills.catalog import DRILLS  # noqa: PLC0415

    values = [
        {"name": d.name, "runbook": d.runbook, "claims": d.claims, "variants": d.variants, "hold_s": d.hold_s}
        for d in DRILLS.values()
    ]
    lines = []
    for d in DRILLS.values():
        lines += [
            f"{d.name}: {d.runbook.strip()}",
            f"Variants: {', '.join(d.variants)}",
            f"Claims: {', '.join(d.claims)}",
            "",
        ]
    show(as_json, values, "\n".join(lines).rstrip())


@drill.command("run")
@click.argument("name")
@click.option("--variant", help="Which of the drill's variants; the first one if not said.")
@click.option("--az", help="Short for the variant that names an AZ: --az a.")
@click.option("--seed", type=int, help="Of the clients' choices, to repeat a run.")
@click.option("--hold", "hold_s", type=click.FloatRange(min=1), help="Seconds to hold the fault.")
@click.option("--into", type=click.Path(path_type=Path), help="A folder for the report; the region's own if not said.")
@json_option
def run(
    name: str,
    *,
    variant: str | None,
    az: str | None,
    seed: int | None,
    hold_s: float | None,
    into: Path | None,
    as_json: bool,
) -> None:
    """Run drill NAME on the region: harm it under load, heal it, judge what the clients were told.

    \b
    Example: ./mobula drill run az-loss --az b
    """
    import dataclasses  # noqa: PLC0415

    from ops.drills import engine, keep, report  # noqa: PLC0415
    from ops.drills.catalog import drill_of  # noqa: PLC0415
    from ops.drills.judge import judge  # noqa: PLC0415
    from ops.drills.said import EXIT_CODES, text  # noqa: PLC0415

    region, wanted = _region(), drill_of(name)
    chosen = wanted.variant(variant or az)
    if variant and az:
        raise BadInput(f"run drill {name!r}: --variant {variant} and --az {az} both say which; give one of them")
    if hold_s is not None and not hold_s <= HOLD_MAX_S:
        raise BadInput(f"run drill {name!r}: hold it for {hold_s:g} s; {HOLD_MAX_S:g} s are the most")
    if hold_s:
        wanted = dataclasses.replace(wanted, hold_s=hold_s)
    folder = region.state_dir / "drill" / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{chosen}"
    progress = Progress()
    with lock(region, "drill run"):
        record = engine.run(
            region,
            wanted,
            chosen,
            folder=folder,
            seed=secrets.randbelow(10**6) if seed is None else seed,
            progress=progress,
        )
    with progress.step(f"judge {len(record.history):,} operations"):
        judged = judge(record)
    kept = keep.run_of(record, judged, region.name, region.profile or "")
    keep.write(kept, into or folder)
    show(as_json, report.journal(kept), f"{text(record, judged)}\n\nreport: {(into or folder) / keep.PAGE}")
    sys.exit(EXIT_CODES[judged.verdict])


@drill.command()
@click.option(
    "--times", type=click.IntRange(min=1), default=3, show_default=True, help="How often the great losses are run."
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME[/VARIANT]",
    help="Only this drill, in all its variants or in this one; repeatable.",
)
@click.option("--into", type=click.Path(path_type=Path), required=True, help="A folder for all reports and the table.")
@json_option
def matrix(times: int, only: tuple[str, ...], into: Path, *, as_json: bool) -> None:
    """Run every drill in every variant, one after the other (2.5 hours on two cores), and print a table.

    \b
    Example: ./mobula drill matrix --only shard-matrix --only az-loss/worst --into /tmp/reports
    """
    from ops.drills import matrix as drills  # noqa: PLC0415
    from ops.drills.said import EXIT_CODES  # noqa: PLC0415

    outcomes = drills.run_all(_region().name, drills.rounds(times, only), into, Progress())
    show(as_json, drills.as_json(outcomes), drills.text(outcomes))
    sys.exit(EXIT_CODES[drills.verdict(outcomes)])


@drill.command()
def heal() -> None:
    """Find and remove the faults that a drill left behind, because it was killed.

    \b
    Example: ./mobula drill heal
    """
    from ops.drills import engine  # noqa: PLC0415

    region = _region()
    with lock(region, "drill heal"):
        troubles = engine.heal(region, Progress())
    if troubles:
        raise OperatorError(troubles[0])
    click.echo("nothing of a drill stands")
