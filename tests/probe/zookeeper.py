"""A lone ZooKeeper server of the base image, with the tick and sessions of a region."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probe.machine import INSIDE, Process, folder, free_port, until, user_id

CONFIG = """
tickTime=250
minSessionTimeout=1000
maxSessionTimeout=6000
dataDir={inside}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr,ruok
"""
JAVA = [
    "java", "-Xmx64m", "-XX:+UseSerialGC", "-Xss256k", "-XX:TieredStopAtLevel=1", "-Dzookeeper.cnxTimeout=500",
    "-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/*", "org.apache.zookeeper.server.quorum.QuorumPeerMain",
]  # fmt: skip


@pytest.fixture
def keeper() -> Iterator[Server]:
    """A running one, for tests that import this fixture."""
    with folder() as at:
        server = Server(at)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class Server:
    """One standalone server on 127.0.0.1; it keeps its data over `stop` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._user = user_id("nobody")
        self._process: Process | None = None
        os.chown(folder, self._user, self._user)
        (folder / "zoo.cfg").write_text(CONFIG.format(inside=INSIDE, port=self.port))

    @property
    def address(self) -> str:
        """``ip:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The root of its process tree; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = Process(self.folder, self._user, [*JAVA, f"{INSIDE}/zoo.cfg"])
        until("ZooKeeper to serve", self._serves)

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.3) as probe:
                probe.settimeout(1.0)
                probe.sendall(b"srvr")
                return b"Mode: " in probe.recv(4096)
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process = None
