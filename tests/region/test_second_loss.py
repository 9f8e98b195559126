"""Two pools are lost before anything was repaired: exactly the objects whose copies all lay there are lost, and named. MOBULA_BIG=1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.probe.machine import until
from tests.region.conftest import Machines, wait_until_well
from tests.region.signed import Client
from tests.stock_clients import Output

pytestmark = [
    pytest.mark.region,
    pytest.mark.harm,
    pytest.mark.skipif(not os.environ.get("MOBULA_BIG"), reason="it loses objects for good; set MOBULA_BIG=1"),
]
REPAIR_S = 400
OBJECTS = 60
WITH_NO_COPY_ELSEWHERE = """
SELECT e.directory || '/' || e.name, e.object_id FROM metadata.entry e JOIN metadata.placement_group g ON g.id = e.group_id
WHERE e.copies > 0 AND NOT EXISTS (
  SELECT FROM jsonb_array_elements(g.servers) WITH ORDINALITY s(server, number)
  WHERE s.number <= e.copies AND s.server->>'id' NOT IN ('{}', '{}'))"""
TWO_OF_A_GROUP = """
SELECT g.servers->0->>'id', g.servers->1->>'id' FROM metadata.entry e JOIN metadata.placement_group g ON g.id = e.group_id
WHERE e.directory LIKE '%{}' AND e.copies = 2 ORDER BY e.name LIMIT 1"""
Mobula = Callable[..., Output]


def test_a_second_loss_before_the_repair_names_exactly_what_is_lost(
    mobula: Mobula, machines: Machines, demo: Client, folder: str
) -> None:
    bodies = {f"{folder}/o{number}": f"object {number}".encode() for number in range(OBJECTS)}
    for path, body in bodies.items():
        assert demo.put(path, body).status == 204
    first, second = machines.sql(TWO_OF_A_GROUP.format(folder.removeprefix("/demo")))[0]
    rows = machines.sql(WITH_NO_COPY_ELSEWHERE.format(first, second))
    doomed = {object_id for _, object_id in rows}
    # The metadata tier has the account's number where clients have its name.
    doomed_here = {path for path in bodies for stored, _ in rows if stored.endswith(path.removeprefix("/demo"))}
    assert 0 < len(doomed_here) < OBJECTS
    try:
        for host in (first, second):
            assert mobula("lab", "wipe", host).returncode == 0
    finally:
        assert mobula("up", "--quiet", timeout_s=REPAIR_S).returncode == 0

    def repair(host: str) -> dict[str, object] | None:
        """Each waits for the other one's pool: not done before both are declared lost. Two can't be declared at the same moment."""
        said = mobula("repair", "--pool", host, "--json", "--quiet", timeout_s=REPAIR_S)
        report: dict[str, object] = json.loads(said.stdout or "{}")
        return report if report.get("done") else None

    def repaired(host: str) -> dict[str, object]:
        return until(f"the repair of {host}", lambda: repair(host), REPAIR_S)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(repaired, (first, second)))
    named = []
    """each by the repair that found it lost: to the other one it refers no more"""
    for report in reports:
        assert report["objects"] == sum(int(str(report[word])) for word in ("copied", "present", "changed", "lost"))
        assert report["ok"] is (not report["lost_objects"])
        lost = report["lost_objects"]
        assert isinstance(lost, list)
        named += [(found["object_id"], found["path"]) for found in lost]
    assert sorted(object_id for object_id, _ in named) == sorted(doomed)
    assert {path for _, path in named} & set(bodies) == doomed_here
    for path, body in bodies.items():
        answer = demo.get(path)
        if path in doomed_here:
            assert (answer.status, answer.json()["code"]) == (410, "ObjectLost")
        else:
            assert answer.body == body
    revived = min(doomed_here)
    assert demo.put(revived, b"written again").status == 204
    assert demo.get(revived).body == b"written again"
    wait_until_well(mobula)
