"""The script that `status` sends to a host: what it reads out of the tools' words."""

from __future__ import annotations

import pytest

from ops.facts.on_host import failed_disks

STATUS = """
  pool: tank
config:
        NAME             STATE     READ WRITE CKSUM
        tank             ONLINE       0     0     0
          raidz2-0       ONLINE       0     0     0
            /disks/d01   {first}
            /disks/d02   ONLINE       0     0     0
        spares
          /disks/d13     {spare}
errors: No known data errors
"""


@pytest.mark.parametrize(
    ("first", "spare", "disks"),
    [
        ("ONLINE       0     0     0", "AVAIL", []),
        ("ONLINE       0     0     3", "AVAIL", ["d01"]),
        ("ONLINE       1.2K  0     0", "INUSE     currently in use", ["d01"]),
        ("UNAVAIL      0     0     0  cannot open", "AVAIL", ["d01"]),
        ("ONLINE       0     0     0", "UNAVAIL", ["d13"]),
    ],
)
def test_disks_that_are_not_as_they_should_be(first: str, spare: str, disks: list[str]) -> None:
    assert failed_disks(STATUS.format(first=first, spare=spare)) == disks
