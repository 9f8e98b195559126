"""How jobs spread over hosts: throughput grows with the hosts that have copies, and copies are used alike. MOBULA_BIG=1, six storage hosts.

The tasks of each host may use a fifth of a processor, so that the hosts of a lab are as many as they seem. `pytest -s` prints what was
measured; MOBULA_MANY: tasks on the object whose two copies are counted.
"""

# ruff: noqa: T201 (the figures are what it is run for)

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from ops.region import Region
from tests.region.conftest import Machines
from tests.region.signed import Client
from tests.region.test_jobs import Jobs

pytestmark = [
    pytest.mark.region,
    pytest.mark.skipif(not os.environ.get("MOBULA_BIG"), reason="minutes; set MOBULA_BIG=1"),
]
HOSTS = 6
CORES = 0.2
PERIOD_US = 100_000
QUOTA = "/sys/fs/cgroup/cpu/mobula-tasks/cpu.cfs_quota_us"
BUSY = "awk 'BEGIN { for (i = 0; i < 3000000; i++) s += i; print s }'"
"""about a quarter of a second of a processor"""
TASKS = 40
"""on each host"""
OBJECT_BYTES = 20_000
OBJECTS_MAX = 120
EFFICIENCY_MIN = 0.8
DOUBLES_MIN = 1.8
MANY = int(os.environ.get("MOBULA_MANY", "1000"))
FAIR_MIN = 0.4
"""of the tasks, to each of two copies"""


@pytest.fixture
def slow(region: Region, machines: Machines) -> Iterator[list[str]]:
    """Storage hosts, the tasks of each with a fifth of a processor."""
    hosts = [host.name for host in region.pool("storage")]
    if len(hosts) < HOSTS:
        pytest.skip(f"{len(hosts)} storage hosts")
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.callback(machines.run, host, ["sh", "-c", f"echo -1 > {QUOTA}"])
            machines.run(host, ["sh", "-c", f"echo {int(PERIOD_US * CORES)} > {QUOTA}"])
        yield hosts


def holders(machines: Machines, bodies: dict[str, bytes]) -> dict[str, list[str]]:
    """By name: the hosts that have copies."""
    by_md5 = {hashlib.md5(body, usedforsecurity=False).hexdigest(): name for name, body in bodies.items()}
    found = defaultdict(list)
    for host, files in machines.files().items():
        for file in files:
            if (name := by_md5.get(file.rpartition(".")[2])) is not None:
                found[name].append(host)
    return found


def timed(jobs: Jobs, script: str, inputs: list[str]) -> tuple[str, float]:
    """A job, and seconds from its creation to its end."""
    began_s = time.monotonic()
    base = jobs.create({"exec": script}, inputs=inputs)
    status = jobs.done(base, 300 + len(inputs) / 10)
    assert status["stats"]["errors"] == status["stats"]["retries"] == 0, jobs.errors(base)
    return base, time.monotonic() - began_s


def placed(machines: Machines, base: str) -> Counter[str]:
    """Tasks of a job by the host that ran them."""
    job = base.rpartition("/")[2]
    counts = f"SELECT split_part(agent, '/', 1), count(*) FROM jobs.task WHERE job = '{job}' AND done GROUP BY 1"  # noqa: S608
    rows = machines.sql(counts)
    return Counter({host: int(count) for host, count in rows})


def test_six_hosts_do_six_times_as_much(slow: list[str], demo: Client, machines: Machines, folder: str) -> None:
    bodies = {f"{folder}/{number}": os.urandom(OBJECT_BYTES) for number in range(OBJECTS_MAX)}
    for name, body in bodies.items():
        assert demo.put(name, body, durability_level="1").status == 204
    on: dict[str, list[str]] = {host: [] for host in slow}
    for name, (host,) in holders(machines, bodies).items():
        on[host].append(name)
    assert all(on.values()), {host: len(names) for host, names in on.items()}
    jobs = Jobs(demo)

    def inputs(hosts: list[str]) -> list[str]:
        return [on[host][number % len(on[host])] for number in range(TASKS) for host in hosts]

    timed(jobs, BUSY, inputs(slow)[:HOSTS])
    took_s = {}
    for count in (1, 2, 4, 6):
        base, took_s[count] = timed(jobs, BUSY, inputs(slow[:count]))
        assert placed(machines, base) == dict.fromkeys(slow[:count], TASKS)
        print(
            f"\n{count} hosts, {TASKS} tasks on each: {took_s[count]:.1f} s, efficiency {took_s[1] / took_s[count]:.2f}",
            end="",
        )
    print()
    assert took_s[1] / took_s[HOSTS] >= EFFICIENCY_MIN


def test_each_copy_makes_as_much_room_again(slow: list[str], demo: Client, machines: Machines, folder: str) -> None:
    del slow
    jobs, took_s = Jobs(demo), {}
    for copies in (1, 2, 3):
        name = f"{folder}/{copies}"
        assert demo.put(name, os.urandom(OBJECT_BYTES), durability_level=str(copies)).status == 204
        base, took_s[copies] = timed(jobs, BUSY, [name] * 3 * TASKS)
        print(
            f"\n{copies} copies: {took_s[copies]:.1f} s, {took_s[1] / took_s[copies]:.2f} x, {dict(placed(machines, base))}",
            end="",
        )
        assert len(placed(machines, base)) == copies
    print()
    assert took_s[1] / took_s[2] >= DOUBLES_MIN
    assert took_s[1] / took_s[3] >= DOUBLES_MIN * 1.5


def test_both_copies_are_used(slow: list[str], demo: Client, machines: Machines, folder: str) -> None:
    """Who has room takes the next task, not who is drawn by lot: a host that is slower for a while does less meanwhile. How near that comes
    to a lot is told by the chi-square of the counts (of one degree of freedom: the chance of a larger one is erfc(sqrt(x / 2))).
    """
    del slow
    assert demo.put(f"{folder}/o", os.urandom(OBJECT_BYTES)).status == 204
    base, took_s = timed(Jobs(demo), "true", [f"{folder}/o"] * MANY)
    found = placed(machines, base)
    chi_square = sum((count - MANY / 2) ** 2 / (MANY / 2) for count in found.values())
    chance = math.erfc(math.sqrt(chi_square / 2))
    print(f"\n{MANY} tasks in {took_s:.0f} s: {dict(found)}, chi-square {chi_square:.2f}, p {chance:.3f}")
    assert len(found) == 2
    assert min(found.values()) >= FAIR_MIN * MANY
