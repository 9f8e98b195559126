"""The drills are able to fail: with what they prove taken away, they say so. MOBULA_BIG=1: minutes, and not in CI."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.region.conftest import Machines
from tests.stock_clients import Output

pytestmark = [
    pytest.mark.region,
    pytest.mark.harm,
    pytest.mark.skipif(not os.environ.get("MOBULA_BIG"), reason="minutes; set MOBULA_BIG=1"),
]
RUN_S = 420
Mobula = Callable[..., Output]
UNLEASED = """CREATE OR REPLACE FUNCTION fence.leased() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = fence, pg_temp AS 'SELECT fence.timeline()'"""
FORGETFUL = "import os; os.fsync = os.fdatasync = lambda _fd: None"
SERVER = "/usr/bin/python3 -m mobula.storage --config /etc/mobula/storage.json"
STARTED_BY = f"/usr/bin/env PYTHONPATH=/run/forgetful:/opt/mobula/current/lib {SERVER}"
"""not by the release's own `python`, which lets nobody in before its libraries"""
DROP_IN = "/run/systemd/system/mobula-storage.service.d"


@contextmanager
def without_the_lease(machines: Machines) -> Iterator[None]:
    """The database answers whoever asks, whether it has a lease or not."""
    kept = {
        host: "\n".join(machines.psql(host, "SELECT pg_get_functiondef('fence.leased()'::regprocedure)"))
        for host in machines.primaries()
    }
    try:
        for host in kept:
            machines.psql(host, UNLEASED)
        yield
    finally:
        definition = next(iter(kept.values()))
        for host in machines.primaries():
            machines.psql(host, definition)


@contextmanager
def without_syncs(machines: Machines) -> Iterator[None]:
    """Object servers that believe what they wrote to be on the disk."""
    hosts = [host.name for host in machines.region.pool("storage")]
    plant = (
        f"mkdir -p {DROP_IN} /run/forgetful && echo '{FORGETFUL}' >/run/forgetful/sitecustomize.py && "
        f"printf '[Service]\\nExecStart=\\nExecStart={STARTED_BY}\\n' >{DROP_IN}/forgetful.conf && "
        "systemctl daemon-reload && systemctl restart mobula-storage"
    )
    try:
        for host in hosts:
            machines.run(host, ["sh", "-c", plant])
        yield
    finally:
        # After the power cut /run is empty: there is nothing left to remove.
        for host in hosts:
            machines.run(
                host,
                [
                    "sh",
                    "-c",
                    f"rm -rf {DROP_IN} /run/forgetful; systemctl daemon-reload; systemctl restart mobula-storage",
                ],
            )


def broken(said: Output) -> set[str]:
    """The checks of a run that failed."""
    assert said.returncode == 1, f"{said.stdout[-3000:]}\n{said.stderr[-2000:]}"
    kept = json.loads(said.stdout)
    assert kept["status"] == "failed"
    return {checked["check"] for checked in kept["mobula"]["checked"] if checked["verdict"] == "fail"}


def test_without_the_lease_the_old_primary_is_caught(mobula: Mobula, machines: Machines) -> None:
    with without_the_lease(machines):
        said = mobula("drill", "run", "stale-read", "--json", timeout_s=RUN_S)
    assert broken(said) & {"O1", "O3"}


def test_without_fsync_what_was_acknowledged_is_missed(mobula: Mobula, machines: Machines) -> None:
    with without_syncs(machines):
        said = mobula("drill", "run", "storage-crash", "--json", timeout_s=RUN_S)
    assert broken(said) & {"O2", "O4"}
