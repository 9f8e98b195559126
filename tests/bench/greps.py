"""A job against clients that do its work: a map with its outputs stored, and "download, grep, upload the result", 8 at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.bench import compute
from tests.bench.fetchers import GREP, Errand, send, text
from tests.bench.measure import wait_until_quiet
from tests.bench.ours import Ours
from tests.bench.plan import Plan, size_name
from tests.bench.system import BenchError, CpuTimes, System

AT_ONCE = 8
JOB, CLIENTS, BARE = "job", "clients", "bubblewrap"
WARM_COUNT = 16


@dataclass(frozen=True, slots=True)
class Grep:
    """One measurement: `count` objects were worked on. `cpu_s`: of clients, servers and tasks; `other_cores`: what others used."""

    way: str
    system: str
    count: int
    size_bytes: int
    repetition: int
    seconds: float
    cpu_s: float
    other_cores: float


def run(systems: Mapping[str, System], plan: Plan, say: Callable[[str], None]) -> Iterator[Grep]:
    """Each way in its turn. Raises BenchError."""
    cpu, ours, script = CpuTimes(), systems["mobula"], " ".join(GREP)
    assert isinstance(ours, Ours)
    for count, size_bytes in plan.job_cells:
        errands = {name: _filled(system, count, size_bytes, say) for name, system in systems.items()}
        names = [errands["mobula"].name(number) for number in range(count)]
        compute.run_job(ours, script, names[:WARM_COUNT])
        for turn in range(plan.repetitions):
            ways: dict[tuple[str, str], Callable[[], float]] = {
                (JOB, ours.name): partial(compute.run_job, ours, script, names)
            }
            ways |= {(CLIENTS, name): partial(_fetch, systems[name], errands[name], turn) for name in plan.turn(turn)}
            for (way, name), work in ways.items():
                wait_until_quiet(cpu)
                found = Grep(way, name, count, size_bytes, turn, *_timed(cpu, work))
                say(
                    f"{turn + 1}/{plan.repetitions} {way} on {name}, {count} x {size_name(size_bytes)}: {found.seconds:.2f} s, "
                    f"others {found.other_cores:.2f} cores"
                )
                yield found


def _timed(cpu: CpuTimes, work: Callable[[], float]) -> tuple[float, float, float]:
    """Its seconds, the processors', and the cores that others used. We are the namespace's first process: the bench is below us."""
    began_s, machine_s, ours_s = time.monotonic(), cpu.of_machine(), cpu.of([os.getpid()])
    took_s = work()
    ours_s, machine_s = cpu.of([os.getpid()]) - ours_s, cpu.of_machine() - machine_s
    return took_s, ours_s, max(0.0, machine_s - ours_s) / (time.monotonic() - began_s)


def _fetch(system: System, errand: Errand, turn: int) -> float:
    return send(replace(errand, fills=False, head=system.heads()[0], turn=turn))


def _filled(system: System, count: int, size_bytes: int, say: Callable[[str], None]) -> Errand:
    say(f"putting {count} objects of {size_bytes} bytes into {system.name}")
    errand = Errand(system.ports, system.prefix, system.heads()[0], count, size_bytes, AT_ONCE, fills=True)
    send(errand)
    return errand


def bare(folder: Path, plan: Plan, say: Callable[[str], None]) -> Iterator[Grep]:
    """A fresh sandbox of bubblewrap for each object, nothing fetched and nothing stored. Nothing, if it is not installed."""
    if shutil.which("bwrap") is None:
        say("bubblewrap is not installed: its bare figure is left out")
        return
    count, size_bytes = plan.job_cells[0]
    path = folder / "bare"
    path.write_bytes(text(size_bytes))
    argv = [
        "bwrap",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--unshare-all",
        "bash",
        "-c",
        " ".join([*GREP, str(path)]),
    ]

    def work() -> float:
        began_s = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = pool.map(lambda _: subprocess.run(argv, capture_output=True, check=False).returncode, range(count))
        if codes := set(runs) - {0}:
            raise BenchError(f"run grep in bubblewrap: it ended with {codes}")
        return time.monotonic() - began_s

    yield Grep(BARE, "", count, size_bytes, 0, *_timed(CpuTimes(), work))
