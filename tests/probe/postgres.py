"""PostgreSQL of the base image, as the release configures it as far as the lease and the store see it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import asyncpg

from tests.probe.machine import BOUND_S, INSIDE, POLL_S, ProbeError, Process, free_port, user_id

BIN = "/usr/lib/postgresql/17/bin"
CONFIG = """
listen_addresses = '{address}'
port = {port}
unix_socket_directories = '{inside}'
max_connections = 100
shared_buffers = '32MB'
wal_level = replica
wal_log_hints = on
hot_standby = on
max_wal_senders = 10
wal_sender_timeout = 1500ms
wal_receiver_timeout = 1500ms
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 500ms
restart_after_crash = off
jit = off
fsync = {fsync}
synchronous_standby_names = ''
"""


class Server:
    """One PostgreSQL server; sockets, data and log lie in `folder`."""

    def __init__(self, folder: Path, *, address: str = "127.0.0.1", port: int = 0, fsync: bool = True) -> None:
        self.folder = folder
        self.address = address
        self.port = port or free_port()
        self._user = user_id("postgres")
        self._fsync = fsync
        self._process: Process | None = None
        os.chown(folder, self._user, self._user)

    def _run(self, *argv: str) -> None:
        process = Process(self.folder, self._user, argv)
        try:
            code = process.wait()
        finally:
            process.kill()
        if code:
            raise ProbeError(f"run {argv[0]}: exit code {code}; {(self.folder / 'log').read_text()[-500:]}")

    def make(self, *, hba: str = "") -> None:
        """Make the data folder of a new cluster; `hba` are lines before those of the local socket."""
        self._run(
            f"{BIN}/initdb", "-D", f"{INSIDE}/data", "-A", "trust", "-U", "postgres", "-k", "--locale=C", "-E", "UTF8"
        )
        lines = f"{hba}\nlocal all all trust\nlocal replication all trust\nhost replication all 127.0.0.0/8 trust\n"
        (self.folder / "data/pg_hba.conf").write_text(lines)
        self.configure("")

    def configure(self, extra: str) -> None:
        """Settings of this server, and `extra` lines; they count from the next start (or reload) on."""
        text = CONFIG.format(address=self.address, port=self.port, inside=INSIDE, fsync="on" if self._fsync else "off")
        (self.folder / "data/postgresql.conf").write_text(text + extra)

    def copy_of(self, primary: Server, name: str) -> None:
        """Make this server a standby of `primary`, known to it as `name`."""
        source = f"host={primary.address} port={primary.port} user=postgres application_name={name}"
        self._run(f"{BIN}/pg_basebackup", "-d", source, "-D", f"{INSIDE}/data", "-X", "stream", "-c", "fast")
        (self.folder / "data/standby.signal").touch()
        self.configure(f"primary_conninfo = '{source}'\n")

    @property
    def pid(self) -> int:
        """The root of its process tree; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def processes(self) -> list[int]:
        """The postmaster and all its children, as this machine numbers them; none while it does not run."""
        return self._process.processes() if self._process else []

    def start(self) -> None:
        """Start the postmaster, without waiting for it."""
        self._process = Process(self.folder, self._user, [f"{BIN}/postgres", "-D", f"{INSIDE}/data"])

    async def ready(self) -> None:
        """Wait until it answers."""
        end = asyncio.get_running_loop().time() + BOUND_S
        while True:
            try:
                connection = await self.connect()
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                if asyncio.get_running_loop().time() > end:
                    raise ProbeError(
                        f"start PostgreSQL: {error}; {(self.folder / 'log').read_text()[-500:]}"
                    ) from error
                await asyncio.sleep(POLL_S)
                continue
            await connection.close()
            return

    async def connect(self, **settings: Any) -> asyncpg.Connection:
        """A connection of the superuser over the local socket."""
        where = {"host": str(self.folder), "port": self.port, "user": "postgres", "database": "postgres", "timeout": 5}
        return await asyncpg.connect(**(where | settings))

    def stop(self, how: signal.Signals) -> None:
        """End it: SIGINT a fast shutdown, SIGQUIT an immediate one, SIGKILL the loss of the host."""
        process = self._process
        if process is None:
            return
        try:
            if how != signal.SIGKILL:
                process.signal(how)
                process.wait()
        except (subprocess.TimeoutExpired, OSError) as error:
            raise ProbeError(f"stop PostgreSQL by {how.name}: {error}") from error
        finally:
            process.kill()
            self._process = None

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every process of the server."""
        if self._process is not None:
            self._process.freeze(frozen=frozen)

    def remove(self) -> None:
        """End it and drop its data."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
