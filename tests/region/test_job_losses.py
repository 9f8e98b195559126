"""What jobs come to while agents, a supervisor and a storage host are lost: the same as without, with every lost attempt counted."""

# ruff: noqa: T201 (`pytest -s` prints how often attempts were thrown away)

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import pytest

from ops.region import Region
from tests.region.conftest import Machines, wait_until_well
from tests.region.signed import Client
from tests.region.test_jobs import Jobs
from tests.stock_clients import Output

pytestmark = [pytest.mark.region, pytest.mark.harm]

TASKS = int(os.environ.get("MOBULA_JOB_TASKS", "90"))
ROUNDS = int(os.environ.get("MOBULA_JOB_ROUNDS", "1"))
REDUCERS = 4
DONE_S = 180.0
WORDS = [f"word-{number:04}" for number in range(400)]
MAP = f"sleep 0.5; msplit -n {REDUCERS}"
REDUCE = "LC_ALL=C sort | uniq -c"
Mobula = Callable[..., Output]


class Losses:
    """Something is lost every few seconds, whatever the seed says, until `end`; a host without power has it again at the end."""

    def __init__(self, region: Region, machines: Machines, mobula: Mobula, seed: int) -> None:
        self._machines = machines
        self._mobula = mobula
        self._random = random.Random(seed)  # noqa: S311
        self._storages = [host.name for host in region.pool("storage")]
        self._apis = [host.name for host in region.pool("api")]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done: list[str] = []

    def __enter__(self) -> Losses:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        off, *others = self._random.sample(self._storages, 3)
        losses = [
            (others[0], "mobula-agent"), (self._random.choice(self._apis), "mobula-supervisor"), (others[1], "mobula-agent"),
        ]  # fmt: skip
        self._random.shuffle(losses)
        try:
            for number, (host, unit) in enumerate(losses):
                if self._ended.wait(2.0):
                    return
                self._machines.run(host, ["systemctl", "kill", "-s", "KILL", unit])
                self.done.append(f"{unit} of {host}")
                if not number:
                    assert self._mobula("lab", "power-off", off).returncode == 0
                    self.done.append(f"power of {off}")
        finally:
            assert self._mobula("lab", "power-on", off).returncode == 0


@pytest.fixture(params=range(ROUNDS))
def losses(request: pytest.FixtureRequest, region: Region, machines: Machines, mobula: Mobula) -> Losses:
    wait_until_well(mobula)
    return Losses(region, machines, mobula, request.param)


def test_outputs_are_those_of_a_calm_run(losses: Losses, mobula: Mobula, demo: Client, folder: str) -> None:
    jobs = Jobs(demo)
    assert demo.put(f"{folder}/words", "\n".join([*WORDS, ""]).encode()).status == 204
    base = jobs.create(
        {"exec": MAP}, {"type": "reduce", "count": REDUCERS, "exec": REDUCE}, inputs=[f"{folder}/words"] * TASKS
    )
    with losses:
        status = jobs.done(base, DONE_S)
    assert status["stats"]["errors"] == 0, (losses.done, jobs.errors(base))
    names = demo.request("GET", f"{base}/live/out").body.decode().split()
    counts = [line.split() for name in names for line in demo.request("GET", name).body.decode().splitlines()]
    assert sorted(counts, key=lambda pair: pair[1]) == [[str(TASKS), word] for word in WORDS]
    assert len(names) == REDUCERS
    stats = status["stats"]
    assert stats["tasks"] == TASKS + REDUCERS + stats["retries"], (stats, losses.done)
    print(f"\n{TASKS} tasks, {losses.done}: {stats['retries']} retries, {REDUCERS} outputs as in a calm run", end="")
    assert stats["retries"] > 0, losses.done
    wait_until_well(mobula)
