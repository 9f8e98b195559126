"""The short set of drills, on the region under test: each harms it under load, heals it, and passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.region import Region
from tests.stock_clients import Output

pytestmark = [pytest.mark.region, pytest.mark.harm]
RUN_S = 420
Mobula = Callable[..., Output]


@pytest.mark.parametrize(("name", "variant"), [("az-loss", "worst"), ("pool-loss", "b")])
def test_a_drill_passes(name: str, variant: str, mobula: Mobula, region: Region) -> None:
    said = mobula("drill", "run", name, "--variant", variant, "--json", timeout_s=RUN_S)
    assert said.returncode == 0, f"{said.stdout[-4000:]}\n{said.stderr[-2000:]}"
    assert json.loads(said.stdout)["status"] == "completed"
    reports = sorted((region.state_dir / "drill").glob(f"*-{name}-{variant}"))
    assert {p.name for p in Path(reports[-1]).iterdir()} >= {"journal.json", "junit.xml", "report.html", "run.json"}


def test_drills_are_listed_with_what_they_prove(mobula: Mobula) -> None:
    listed = json.loads(mobula("drill", "list", "--json").stdout)
    assert {"az-loss", "partition", "pool-loss"} <= {drill["name"] for drill in listed}
    assert all(drill["claims"] and drill["variants"] for drill in listed)
