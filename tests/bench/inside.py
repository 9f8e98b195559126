"""The run itself, in namespaces of its own (network, processes, mounts), of which it is the first process: whatever ends it ends all.

    python -m tests.bench.inside         a Task (JSON) on standard input; on standard output a line of JSON for each thing found

Lines: {"say": text}, {"system": {...}}, {"row": {...}}, {"listing": {...}}, {"limit": {...}}, {"grep": {...}}; at the end,
when it could not go on, {"failed": sentence}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import cast

import msgspec
import structlog

from ops.errors import OperatorError
from tests.bench import ceiling, compute, greps, limits, ours, seaweedfs, swift
from tests.bench.load import Order
from tests.bench.measure import idle_cores, listing_s, measure, send
from tests.bench.plan import KIB, MIB, PUT_BYTES_MAX, Plan, size_name
from tests.bench.system import BenchError, CpuTimes, System
from tests.probe.machine import ProbeError

IDLE_S = 3.0
WARM_S = 1.0
WARM_CONNECTIONS = 64
FILL_CONNECTIONS = 16
WARM_BYTES = 4 * PUT_BYTES_MAX
"""about what two copies of a measurement's objects take, twice"""


class Task(msgspec.Struct, frozen=True):
    """What the outer process hands over: the plan, and where things lie."""

    plan: Plan
    folder: str
    libraries: str
    swift_tree: str
    weed: str
    cores: int
    task_image: str = ""
    """its folder, when jobs are measured"""


def tell(kind: str, value: object) -> None:
    """One line for the outer process."""
    sys.stdout.buffer.write(msgspec.json.encode({kind: value}) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """What is happening now."""
    tell("say", text)


@contextmanager
def _started(name: str, task: Task) -> Iterator[System]:
    folder = Path(task.folder) / name
    folder.mkdir()
    starts: dict[str, Callable[[], contextlib.AbstractContextManager[System]]] = {
        "mobula": lambda: ours.running(folder, Path(task.libraries), task.cores),
        "swift": lambda: swift.running(folder, Path(task.swift_tree), task.cores),
        "seaweedfs": lambda: seaweedfs.running(folder, Path(task.weed)),
    }
    say(f"starting {name}")
    with starts[name]() as system:
        yield system


def warm_memory(size_bytes: int) -> None:
    """Touch so much free memory, so that nobody pays for its first use. A virtual machine gives free memory back to its host, and the
    first to fill the page cache again waits for the host (8 us a page were seen, as long as copying 8 pages takes).
    """
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
        pass


def order(system: System, method: str, cell: tuple[int, int], seconds: float, key: str) -> Order:
    """The load of one measurement, of a cell (size, connections), on the objects called `key` and a number."""
    size_bytes, connections = cell
    most = max(2 * connections, PUT_BYTES_MAX // size_bytes) if method == "PUT" else 1 << 31
    return Order(system.ports, method, f"{system.prefix}{key}", size_bytes, connections, seconds, most, system.heads())


def _cell(system: System, cell: tuple[int, int], repetition: int, plan: Plan, cpu: CpuTimes) -> None:
    """PUT objects, then read and remove these."""
    size_bytes, connections = cell
    key = f"{size_bytes}-{connections}-{repetition}-"
    put = 0
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        if method not in plan.methods and method != "PUT":
            continue
        wanted = order(system, method, cell, plan.seconds, key)
        if method == "DELETE":
            wanted = dataclasses.replace(wanted, requests_max=put)
        elif method != "PUT":
            wanted = dataclasses.replace(wanted, pick_from=put)
        row = measure(system, wanted, repetition, cpu)
        put = row.asked if method == "PUT" else put
        tell("row", row)
        say(
            f"{repetition + 1}/{plan.repetitions} {method:6} {size_name(size_bytes):>6} c={connections:<2} {system.name:9} "
            f"{row.requests_s:8.1f}/s  p50 {row.p50_ms:.1f} p99 {row.p99_ms:.1f} ms  CPU {row.cpu_ms:.2f} ms"
            f"{f'  {row.mb_s:.0f} MB/s' if size_bytes > KIB else ''}  others {row.other_cores:.2f} cores"
            f"{f'  {row.failed} FAILED {row.answers}' if row.failed else ''}"
        )
    system.clear()


def _listings(systems: dict[str, System], plan: Plan) -> None:
    for system in systems.values():
        say(f"putting {plan.entries} entries into a directory of {system.name}")
        fill = Order(system.ports, "PUT", system.list_prefix, 16, FILL_CONNECTIONS, 600, plan.entries, system.heads())
        told = send(fill)
        if told.answered < plan.entries:
            raise BenchError(f"fill a directory of {system.name}: {told.answers}")
    for repetition in range(plan.repetitions):
        for name in plan.turn(repetition):
            took_s = listing_s(systems[name], plan.entries)
            say(f"{repetition + 1}/{plan.repetitions} list {plan.entries} entries of {name}: {took_s * 1e3:.0f} ms")
            tell("listing", {"system": name, "entries": plan.entries, "repetition": repetition, "seconds": took_s})


def _jobs(task: Task) -> None:
    with ExitStack() as stack:
        systems = {name: stack.enter_context(_started(name, task)) for name in task.plan.systems}
        say("starting a supervisor and an agent")
        stack.enter_context(compute.running(cast(ours.Ours, systems["mobula"]), Path(task.task_image)))
        for system in systems.values():
            tell("system", {"name": system.name, "version": system.version, "idle_cores": 0.0})
        for found in chain(greps.bare(Path(task.folder), task.plan, say), greps.run(systems, task.plan, say)):
            tell("grep", found)
        say("stopping everything")


def run(task: Task) -> None:
    """Start everything, measure, end. Raises BenchError, ProbeError, OperatorError, OSError."""
    plan, cpu = task.plan, CpuTimes()
    if plan.limits:
        with _started("mobula", task) as system:
            for limit in limits.run(cast(ours.Ours, system), say):
                tell("limit", limit)
        return
    if plan.jobs:
        _jobs(task)
        return
    with ceiling.running(KIB) as nothing:
        for connections in plan.connections:
            for method in ("PUT", "GET"):
                # Both answers carry the bytes; a PUT sends as many besides.
                wanted = order(nothing, method, (KIB, connections), plan.seconds, "x")
                row = measure(nothing, dataclasses.replace(wanted, requests_max=1 << 31), 0, cpu)
                tell("row", row)
                say(f"the load alone: {method} 1 KiB c={connections}: {row.requests_s:.0f}/s")
    with ExitStack() as stack:
        systems = {name: stack.enter_context(_started(name, task)) for name in plan.systems}
        for system in systems.values():
            warm = order(system, "PUT", (KIB, WARM_CONNECTIONS), WARM_S, "warm-")
            told = send(warm)
            send(dataclasses.replace(warm, method="GET", requests_max=1 << 31, pick_from=told.asked))
        for system in systems.values():
            idle = idle_cores(system, cpu, IDLE_S)
            tell("system", {"name": system.name, "version": system.version, "idle_cores": idle})
            say(f"{system.name} {system.version}: up, idle it uses {idle:.3f} cores")
        for repetition in range(plan.repetitions):
            for cell in plan.cells():
                if cell[0] >= MIB:
                    warm_memory(WARM_BYTES)
                for name in plan.turn(repetition):
                    _cell(systems[name], cell, repetition, plan, cpu)
        if plan.entries:
            _listings(systems, plan)
        say("stopping everything")


def main() -> int:
    """0: all was measured. 1: not, and why."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Standard output is the outer process's.
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        run(task)
    except (BenchError, ProbeError, OperatorError, OSError, subprocess.SubprocessError) as error:
        tell("failed", str(error))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    # The first process of the namespace ends all others with it; there is nothing to tidy.
    sys.stdout.flush()
    os._exit(code)
