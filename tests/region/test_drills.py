"""The short set of drills, on the region under test: each harms it under load, heals it, and passes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mobula.lab import faults
from ops.drills.standing import Standing
from ops.region import Region
from tests.probe.machine import until
from tests.region.conftest import wait_until_well
from tests.stock_clients import Output, Shell

pytestmark = [pytest.mark.region, pytest.mark.harm]
RUN_S = 420
CUT_S = 120.0
Mobula = Callable[..., Output]


@pytest.mark.parametrize(
    ("name", "variant"), [("az-loss", "worst"), ("partition", "isolate-worst"), ("pool-loss", "b")]
)
def test_a_drill_passes(name: str, variant: str, mobula: Mobula, region: Region) -> None:
    said = mobula("drill", "run", name, "--variant", variant, "--json", timeout_s=RUN_S)
    assert said.returncode == 0, f"{said.stdout[:4000]}\n{said.stderr[-2000:]}"
    assert json.loads(said.stdout)["status"] == "completed"
    reports = sorted((region.state_dir / "drill").glob(f"*-{name}-{variant}"))
    assert {p.name for p in Path(reports[-1]).iterdir()} >= {"journal.json", "junit.xml", "report.html", "run.json"}


def test_a_drill_that_is_killed_in_mid_fault_is_healed_by_the_next_command(mobula: Shell, region: Region) -> None:
    wanted = faults.cuts(faults.alone(region.zones["a"]))
    drill = subprocess.Popen([*mobula.prefix, "drill", "run", "partition", "--variant", "isolate-a"])
    try:
        until("the AZ to be cut off", lambda: faults.standing_drops(region.name).keys() == wanted, CUT_S)
        children = _children(drill.pid)
    finally:
        drill.kill()
        drill.wait()
    assert Standing(region).faults()
    assert faults.standing_drops(region.name).keys() == wanted
    healed = mobula("drill", "heal")
    assert healed.returncode == 0, healed.stderr
    assert not faults.standing_drops(region.name)
    assert not Standing(region).faults()
    until("its clients to end with it", lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), CUT_S)
    wait_until_well(mobula)


def _children(pid: int) -> list[int]:
    """Of a process and of its children, as /proc has them; of one that ends meanwhile none."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        own = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return own + [below for child in own for below in _children(child)]


def test_drills_are_listed_with_what_they_prove(mobula: Mobula) -> None:
    listed = json.loads(mobula("drill", "list", "--json").stdout)
    assert {"az-loss", "partition", "pool-loss"} <= {drill["name"] for drill in listed}
    assert all(drill["claims"] and drill["variants"] for drill in listed)
