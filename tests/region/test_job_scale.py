"""Jobs at their size: a thousand tasks alive at once, many tasks in flat memory, a reducer that reads far more than its disk. MOBULA_BIG=1.

`pytest -s` prints what was measured. MOBULA_MANY names how many tasks the flat one has.
"""

# ruff: noqa: T201 (the figures are what it is run for)

from __future__ import annotations

import hashlib
import os
import time

import pytest

from tests.region.conftest import Machines
from tests.region.signed import Client
from tests.region.test_jobs import Jobs

pytestmark = [
    pytest.mark.region,
    pytest.mark.skipif(not os.environ.get("MOBULA_BIG"), reason="minutes; set MOBULA_BIG=1"),
]
SLEEPERS = 1000
SLEEP_S = 30
SPREAD = 48
"""objects, so that every storage host has copies of some"""
MANY = int(os.environ.get("MOBULA_MANY", "5000"))
MIB = 1 << 20
TIMES = 40
GROWN_MIB_MAX = 24.0
"""what a process may grow by while a job goes from a tenth of its tasks to all"""

ALIVE = "cat /sys/fs/cgroup/memory/mobula-tasks/*/[0-9]*/memory.usage_in_bytes 2>/dev/null | awk '{n++; s+=$1} END {print n+0, s+0}'"
RESIDENT = "awk '/^VmRSS/ {{print $2}}' /proc/$(systemctl show --value -p MainPID {unit})/status"


def spread(demo: Client, folder: str, count: int) -> list[str]:
    """Names of so many inputs, which are few objects named often."""
    names = [f"{folder}/small-{number}" for number in range(SPREAD)]
    for name in names:
        assert demo.put(name, b"a line\n" * 585).status == 204
    return [names[number % SPREAD] for number in range(count)]


def alive(machines: Machines) -> tuple[int, int]:
    """Sandboxes on all hosts, and the bytes of memory that the kernel counts for them."""
    found = [machines.run(host.name, ["sh", "-c", ALIVE]).split() for host in machines.region.pool("storage")]
    return sum(int(count) for count, _ in found), sum(int(used) for _, used in found)


def resident_mib(machines: Machines) -> dict[str, float]:
    """Memory of every supervisor and agent."""
    pools = (("api", "mobula-supervisor"), ("storage", "mobula-agent"))
    return {
        f"{unit} of {host.name}": int(machines.run(host.name, ["sh", "-c", RESIDENT.format(unit=unit)])) / 1024
        for pool, unit in pools
        for host in machines.region.pool(pool)
    }


def test_a_thousand_tasks_sleep_at_once(demo: Client, machines: Machines, folder: str) -> None:
    """At the default of 1,024 MB each, which is more than the machine has: a cap, not a reservation."""
    jobs, inputs = Jobs(demo), spread(demo, folder, SLEEPERS)
    began_s = time.monotonic()
    base = jobs.create({"exec": f"sleep {SLEEP_S}"}, inputs=inputs)
    most, bytes_each, full_s = 0, 0.0, 0.0
    while (status := jobs.status(base))["state"] != "done":
        count, used = alive(machines)
        print(f"\n{time.monotonic() - began_s:.0f} s: {count} alive, {status['stats']['tasksDone']} done", end="")
        if count > most:
            most, bytes_each, full_s = count, used / count, time.monotonic() - began_s
        assert time.monotonic() - began_s < 300, status
    took_s = time.monotonic() - began_s
    print(f"\n{most} alive after {full_s:.1f} s, {bytes_each / 1024:.0f} KiB each; all done after {took_s:.1f} s")
    assert status["stats"]["errors"] == 0, jobs.errors(base)
    assert status["stats"]["outputs"] == SLEEPERS
    assert most >= SLEEPERS


def test_memory_is_flat_however_many_tasks_there_are(demo: Client, machines: Machines, folder: str) -> None:
    jobs, inputs = Jobs(demo), spread(demo, folder, MANY)
    began_s = time.monotonic()
    base = jobs.create({"exec": "wc -l"}, {"type": "reduce", "exec": "awk '{s += $1} END {print s}'"}, inputs=inputs)
    early: dict[str, float] = {}
    while (status := jobs.status(base))["state"] != "done":
        if not early and status["stats"]["tasksDone"] * 10 >= MANY:
            early = resident_mib(machines)
        assert time.monotonic() - began_s < 60 + MANY / 10, status
        time.sleep(0.5)
    took_s, late = time.monotonic() - began_s, resident_mib(machines)
    for name in sorted(late):
        print(f"\n{name}: {early[name]:.0f} MiB at a tenth, {late[name]:.0f} at the end", end="")
    print(f"\n{MANY} tasks in {took_s:.0f} s, {MANY / took_s:.0f} a second")
    assert status["stats"]["errors"] == 0, jobs.errors(base)
    assert jobs.output(base).strip() == str(585 * MANY)
    assert {name for name in late if late[name] > early[name] + GROWN_MIB_MAX} == set()


def test_a_reducer_reads_twenty_times_its_disk(demo: Client, folder: str) -> None:
    """One object of 1 GiB, named 40 times, through a reducer that may write 2 GiB."""
    jobs, block = Jobs(demo), os.urandom(MIB)
    name = f"{folder}/big"
    assert demo.put(name, block * 1024).status == 204
    began_s = time.monotonic()
    base = jobs.create({"type": "reduce", "disk": 2, "exec": "md5sum"}, inputs=[name] * TIMES)
    status = jobs.done(base, 1500)
    took_s = time.monotonic() - began_s
    print(f"\n{TIMES} GiB in {took_s:.0f} s, {TIMES * 1024 / took_s:.0f} MiB a second")
    assert status["stats"]["errors"] == 0, jobs.errors(base)
    wanted = hashlib.md5(usedforsecurity=False)
    for _ in range(TIMES * 1024):
        wanted.update(block)
    assert jobs.output(base).split()[0] == wanted.hexdigest()
