"""python -m tests.bench: set up what is compared, run it in namespaces of its own, report. `make bench`; docs/bench.md."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from ops import image, task_image
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import CACHE, REPO
from tests.bench import ours, plot, report, seaweedfs, swift
from tests.bench.greps import Grep
from tests.bench.inside import Task
from tests.bench.limits import Limit
from tests.bench.measure import Row
from tests.bench.plan import KIB, METHODS, MIB, QUICK, SYSTEMS, Plan
from tests.cgroup2.vm import lines_of

SILENCE_BOUND_S = 300.0
"""longest time without a line: one start, or one load with its overtime"""
JOB_SYSTEMS = ("mobula", "swift")
UNITS = {"": 1, "k": KIB, "m": MIB}
# Removes the run's folder when the bench has ended, however that was: the pipe ends with its last writer.
JANITOR = 'cat >/dev/null; n=0; until rm -rf "$1" 2>/dev/null || [ $((n += 1)) -gt 50 ]; do sleep 0.2; done'


def sizes(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Sizes as people write them, 1k 64k 1m, in bytes."""
    found = []
    for text in values:
        digits, unit = text.lower().rstrip("kmib"), text.lower().lstrip("0123456789")[:1]
        if not digits.isdigit() or unit not in UNITS or not 0 < int(digits) * UNITS[unit] <= 1024 * MIB:
            raise click.BadParameter(f"{text!r} found; write a size from 1 to 1024m as 4096, 64k or 1m")
        found.append(int(digits) * UNITS[unit])
    return tuple(found)


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for the servers' data on the cache's disk. It goes, whatever ends us.

    Raises:
        OperatorError: another bench is running.
    """
    above = CACHE / "bench"
    above.mkdir(parents=True, exist_ok=True)
    with (above / "running.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OperatorError("run the bench: another one is running on this machine; wait for its end") from error
        for left in above.glob("run-*"):  # of a machine that went down
            shutil.rmtree(left, ignore_errors=True)
        folder = above / f"run-{os.getpid()}"
        janitor = subprocess.Popen(
            ["sh", "-c", JANITOR, "sh", str(folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        assert janitor.stdin is not None
        try:
            folder.mkdir()
            folder.chmod(0o755)
            yield folder
        finally:
            janitor.stdin.close()
            janitor.wait(60)


def file_system(folder: Path) -> str:
    """Its kind, as the kernel calls it."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, kind, *_ = line.split()
        if (str(folder) + "/").startswith(at.rstrip("/") + "/") and len(at) >= len(best[0]):
            best = (at, kind)
    return best[1]


def prepare(plan: Plan, folder: Path, progress: Progress) -> Task:
    """Have everything that the run starts. Raises OperatorError."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < plan.disk_bytes:
        raise OperatorError(
            f"run the bench in {str(folder.parent)!r}: {free_bytes >> 30} GiB are free, {plan.disk_bytes >> 30} GiB may be needed; "
            "free some room, name another folder in MOBULA_CACHE, or measure less (--size, --repetitions, --quick)"
        )
    with progress.step("what is compared: base image, release, Swift, SeaweedFS"):
        image.ensure(CACHE, progress)
        libraries = ours.ensure_libraries(progress) if "mobula" in plan.systems else Path()
        tree = swift.ensure_tree(progress) if "swift" in plan.systems else Path()
        weed = seaweedfs.ensure_program(progress) if "seaweedfs" in plan.systems else Path()
        tasks = str(task_image.ensure(CACHE, progress).root.parent) if plan.jobs else ""
    cores = len(os.sched_getaffinity(0))
    return Task(plan, str(folder), str(libraries), str(tree), str(weed), cores, tasks)


def run(task: Task, found: report.Found, progress: Progress) -> None:
    """The run, in namespaces that end with us; what it finds goes to `found` at once.

    Raises:
        OperatorError: it could not go on, or took too long.
    """
    argv = [
        "setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
        sys.executable, "-m", "tests.bench.inside",
    ]  # fmt: skip
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=REPO
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(task).decode())
            process.stdin.close()
            for line in lines_of(process, task.plan.bound_s, SILENCE_BOUND_S, "the bench"):
                take(line, found, progress)
        finally:
            process.kill()
    if process.returncode:
        raise OperatorError("run the bench: it ended early")


def take(line: str, found: report.Found, progress: Progress) -> None:
    """One line of the run. Raises OperatorError when it says that it failed."""
    ((kind, value),) = json.loads(line).items()
    if kind == "say":
        progress(value)
    elif kind == "row":
        found.rows.append(msgspec.convert(value, Row))
    elif kind == "listing":
        found.listings.append(msgspec.convert(value, report.Listing))
    elif kind == "limit":
        found.limits.append(msgspec.convert(value, Limit))
    elif kind == "grep":
        found.greps.append(msgspec.convert(value, Grep))
    elif kind == "system":
        found.systems.append(value)
    else:
        raise OperatorError(value)


def write(found: report.Found, out: Path, as_json: bool, machine: dict[str, object]) -> None:
    """The report on standard output; the same, the rows and a picture in the folder `out`."""
    by_key = report.cells(found.rows)
    values = {
        "machine": machine,
        "systems": found.systems,
        "targets": [
            {"target": msgspec.to_builtins(v.target), "value": v.value, "reached": v.reached}
            for v in report.verdicts(found.rows)
        ],
        "cells": [
            {"method": p[0], "size_bytes": p[1], "connections": p[2], "system": name, **msgspec.to_builtins(cell)}
            for (p, name), cell in by_key.items()
        ],
        "rows": msgspec.to_builtins(found.rows),
        "listings": msgspec.to_builtins(found.listings),
        "limits": msgspec.to_builtins(found.limits),
        "jobs": msgspec.to_builtins(found.greps),
    }
    out.mkdir(parents=True, exist_ok=True)
    text, picture = report.text(found), plot.svg(found)
    (out / "results.json").write_text(json.dumps(values, indent=1) + "\n")
    (out / "report.md").write_text(text)
    (out / "results.svg").write_text(picture)
    click.echo(json.dumps(values, indent=1) if as_json else text)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="1 KiB and 1 MiB, 16 connections, once, 2 s each: some minutes.")
@click.option(
    "--limits", is_flag=True, help="Instead: our own limits, a directory of 980,000 entries and 64 slow uploads: 3 min."
)
@click.option(
    "--jobs",
    is_flag=True,
    help="Instead: a map with its outputs stored, against 8 clients that download, grep and upload: 10 min.",
)
@click.option("--system", "systems", multiple=True, type=click.Choice(SYSTEMS), help="Only these; may be given again.")
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), help="Only these (PUT always is).")
@click.option("--size", "sizes_bytes", multiple=True, callback=sizes, help="Objects of this size: 1k, 64k, 1m, 64m.")
@click.option(
    "--connections", multiple=True, type=click.IntRange(1, 1000), help="So many requests at a time, for every size."
)
@click.option("--repetitions", type=click.IntRange(1, 100), help="How often everything is measured (3).")
@click.option("--seconds", type=click.FloatRange(0.2, 600), help="Length of one measurement (3).")
@click.option("--entries", type=click.IntRange(0, 100_000), help="Of the directory that is listed; 0: none (10,000).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=REPO / "build" / "bench",
    help="Folder of the results (build/bench).",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on standard output, in place of the report.")
def main(
    quick: bool,
    limits: bool,
    jobs: bool,
    systems: tuple[str, ...],
    *,
    connections: tuple[int, ...],
    out: Path,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure this clone beside OpenStack Swift and SeaweedFS.

    \b
    Example: python -m tests.bench --system mobula --size 1k --connections 16 --repetitions 1
    """
    plan = dataclasses.replace(QUICK if quick else Plan(), **{k: v for k, v in given.items() if v not in (None, ())})
    if limits:
        plan = dataclasses.replace(plan, limits=True, systems=("mobula",))
    elif jobs:
        stores = tuple(name for name in JOB_SYSTEMS if not systems or name in systems or name == report.US)
        plan = dataclasses.replace(plan, jobs=True, systems=stores)
    elif systems:
        plan = dataclasses.replace(plan, systems=tuple(name for name in SYSTEMS if name in systems))
    if connections:
        plan = dataclasses.replace(plan, connections=connections, large_connections=connections)
    # Termination unwinds as Ctrl-C does: namespaces and folder go. Also where a shell in the background has Ctrl-C ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    sys.exit(bench(plan, out, as_json=as_json))


def bench(plan: Plan, out: Path, *, as_json: bool) -> int:
    """0: all was measured. 1: it could not be. 130: interrupted; what was measured until then is reported all the same."""
    progress, found, code = Progress(), report.Found(), 0
    try:
        with run_folder() as folder:
            machine = {
                "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0], "file_system": file_system(folder),
                "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": os.uname().release,
            }  # fmt: skip
            task = prepare(plan, folder, progress)
            progress(f"data on {machine['file_system']}; loads will take about {plan.load_s / 60:.0f} min")
            run(task, found, progress)
    except OperatorError as error:
        progress(f"error: {error}")
        code = 1
    except KeyboardInterrupt:
        progress("interrupted; servers and data are gone")
        code = 130
    if found.limits or found.greps or any(row.system != "ceiling" for row in found.rows):
        write(found, out, as_json, machine)
        progress(f"the report, every row and a picture are in {str(out)!r}")
    return code


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
