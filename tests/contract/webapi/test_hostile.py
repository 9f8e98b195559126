"""Hostile requests at the webapi itself. Section 1 of the HTTP contract, and whatever HTTP says."""

from __future__ import annotations

import pytest

from tests import hostile
from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client


@pytest.mark.parametrize("row", hostile.TABLE, ids=lambda row: row.name)
def test_s1_a_hostile_request_gets_its_answer_and_harms_nobody(
    row: hostile.Hostile, local: LocalRegion, ann: Client, stor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ann.put(f"{stor}/o", b"x").status == 204
    asked = len(local.asked)
    with ann.raw() as connection:
        found = hostile.answers(connection, hostile.filled(row, stor, ann.authorization()), hang_up=row.hang_up)
    assert row.allows(found, row.direct), found
    assert len(local.asked) - asked <= max(1, len(row.direct)), local.asked[asked:]
    assert ann.get(f"{stor}/o").body == b"x"
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert "request failed" not in said
