"""`mobula.metadata.migrate` on a real primary and standby: applied once, replicated, bounded."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from mobula.metadata import migrate
from mobula.metadata.config import GuardConfig, Peer
from mobula.metadata.migrate import MigrationError
from tests.probe.machine import folder
from tests.probe.postgres import Server

pytestmark = pytest.mark.probe

SYNC = "synchronous_standby_names = 'b'\n"


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        a, b = (Server(stack.enter_context(folder()), fsync=False) for _ in "ab")
        for server in (a, b):
            stack.callback(server.stop, signal.SIGKILL)
        a.make()
        a.start()
        asyncio.run(a.ready())
        b.copy_of(a, "b")
        a.stop(signal.SIGINT)
        a.configure(SYNC)
        a.start()
        asyncio.run(a.ready())
        yield a, b


def config(server: Server) -> GuardConfig:
    peers = (Peer("a", "127.0.0.1"),)
    return GuardConfig(
        "test", "a", "a", "127.0.0.1", 1, peers, (), socket_dir=str(server.folder), postgres_port=server.port
    )


async def test_the_primary_waits_for_its_standby_and_the_standby_for_the_schema(pair: tuple[Server, Server]) -> None:
    a, b = pair
    with pytest.raises(MigrationError, match="no primary with a synchronous standby within 1 s"):
        await migrate.converge(config(a), bound_s=1)
    b.start()
    await b.ready()
    version = len(migrate.migrations())
    outcomes = await asyncio.gather(migrate.converge(config(b), bound_s=20), migrate.converge(config(a), bound_s=20))
    assert outcomes == [{"changed": False, "version": version}, {"changed": True, "version": version}]
    assert await migrate.converge(config(a), bound_s=20) == {"changed": False, "version": version}


async def test_a_standby_that_goes_away_meanwhile_ends_in_a_bounded_error_and_a_second_run_mends_it(
    pair: tuple[Server, Server],
) -> None:
    a, b = pair
    b.start()
    await b.ready()
    b.freeze(frozen=True)
    try:
        began_s = time.monotonic()
        with pytest.raises(MigrationError, match="not acknowledged within 1 s"):
            await migrate.migrate(str(a.folder), a.port, bound_s=1)
        assert time.monotonic() - began_s < 3
    finally:
        b.freeze(frozen=False)
    assert (await migrate.converge(config(a), bound_s=20))["version"] == len(migrate.migrations())


async def test_the_command_prints_what_it_did_and_refuses_a_changed_migration(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    a, b = pair
    b.start()
    await b.ready()
    path = tmp_path / "guard.json"
    path.write_text(
        json.dumps({
            "region": "test", "host": "a", "az": "a", "address": "127.0.0.1", "shard": 1, "peers": [], "zookeeper": [],
            "socket_dir": str(a.folder), "postgres_port": a.port,
        })
    )  # fmt: skip
    command = [sys.executable, "-m", "mobula.metadata.migrate", "--config", str(path)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
        )

    first, second = await asyncio.to_thread(run), await asyncio.to_thread(run)
    version = len(migrate.migrations())
    assert json.loads(first.stdout) == {"changed": True, "version": version}
    assert json.loads(second.stdout) == {"changed": False, "version": version}
    connection = await a.connect(database="mobula")
    await connection.execute(
        "UPDATE public.migration SET digest = 'x' WHERE version = 1; DELETE FROM public.migration WHERE version > 2"
    )
    await connection.close()
    third = await asyncio.to_thread(run)
    assert (third.returncode, third.stderr) == (
        1, "migrate: migration 1 was applied with other contents; restore its released file\n",
    )  # fmt: skip
    with pytest.raises(asyncpg.PostgresError):
        await a.connect(database="mobula", user="mobula_other")
