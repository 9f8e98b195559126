"""One measurement: a load on one system, and what its servers, the load and everybody else used of the processors meanwhile."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import msgspec

from tests.bench.load import CONNECT_S, OVERTIME_S, Order, Told
from tests.bench.system import BenchError, CpuTimes, System

QUIET_CORES = 0.4
"""more than that used by others: a run was not quiet"""
PATIENCE_S = 3.0
"""how long a measurement waits for a quiet machine; then it is made all the same, and says how it was"""
LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    """What one measurement gave. `cpu_ms` is the servers' CPU time per request, `other_cores` what others used."""

    system: str
    method: str
    size_bytes: int
    connections: int
    repetition: int
    requests_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    load_cpu_ms: float
    load_cores: float
    other_cores: float
    asked: int
    failed: int
    answers: dict[str, int]

    @property
    def mb_s(self) -> float:
        """Megabytes (10^6) of objects per second."""
        return self.requests_s * self.size_bytes / 1e6


def send(order: Order) -> Told:
    """Run a load to its end.

    Raises:
        BenchError: it said nothing that can be used, or was not done in time.
    """
    argv = [sys.executable, "-m", "tests.bench.load"]
    bound_s = order.seconds + OVERTIME_S + CONNECT_S + 15
    try:
        done = subprocess.run(
            argv, input=json.dumps(asdict(order)), capture_output=True, text=True, check=False, timeout=bound_s
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"load by {order.method}: not done after {bound_s:.0f} s") from error
    if done.returncode:
        raise BenchError(f"load by {order.method} {order.prefix}: {done.stderr.strip()[-300:]}")
    return msgspec.json.decode(done.stdout, type=Told)


def wait_until_quiet(cpu: CpuTimes) -> None:
    """Return when nobody does much, or after `PATIENCE_S`."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        before = cpu.of_machine()
        time.sleep(LOOK_S)
        if cpu.of_machine() - before < QUIET_CORES * LOOK_S:
            return


def measure(system: System, order: Order, repetition: int, cpu: CpuTimes) -> Row:
    """Raises BenchError."""
    wait_until_quiet(cpu)
    began_s, machine, servers = time.monotonic(), cpu.of_machine(), cpu.of(system.roots)
    told = send(order)
    took_s = time.monotonic() - began_s
    servers, machine = cpu.of(system.roots) - servers, cpu.of_machine() - machine
    if not told.answered:
        raise BenchError(f"measure {order.method} on {system.name}: no answer was right: {told.answers}")
    return Row(
        system.name, order.method, order.size_bytes, order.connections, repetition,
        requests_s=told.answered / told.seconds, p50_ms=told.p50_ms, p99_ms=told.p99_ms,
        cpu_ms=servers / told.answered * 1e3, load_cpu_ms=told.cpu_s / told.answered * 1e3, load_cores=told.cpu_s / took_s,
        other_cores=max(0.0, (machine - servers - told.cpu_s) / took_s), asked=told.asked, failed=told.asked - told.answered,
        answers=told.answers,
    )  # fmt: skip


def idle_cores(system: System, cpu: CpuTimes, seconds: float) -> float:
    """What its servers use while nobody asks."""
    before = cpu.of(system.roots)
    time.sleep(seconds)
    return (cpu.of(system.roots) - before) / seconds


def listing_s(system: System, expected: int) -> float:
    """How long a client takes to list the whole directory, page after page.

    Raises:
        BenchError: it lists something else than is there.
    """
    connection = http.client.HTTPConnection("127.0.0.1", system.ports[0], timeout=120)
    try:
        connection.connect()
        began_s = time.perf_counter()
        found = system.pages(connection)
        took_s = time.perf_counter() - began_s
    finally:
        connection.close()
    if found != expected:
        raise BenchError(f"list on {system.name}: {found} entries, {expected} were put")
    return took_s


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number the lower of the two."""
    return sorted(values)[(len(values) - 1) // 2]
