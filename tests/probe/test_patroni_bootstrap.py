"""A shard's very first bootstrap, killed on its way, is begun again: no shard stays without a leader for ever."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops import release
from ops.region import CACHE, REPO
from tests.probe import zookeeper
from tests.probe.machine import INSIDE, Process, folder, free_port, root, until, user_id

pytestmark = pytest.mark.probe

CONFIG = """
scope: shard-1
namespace: /patroni
log: {{traceback_level: DEBUG}}
name: peer
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
zookeeper: {{hosts: ["{zookeeper}"]}}
bootstrap:
  dcs: {{ttl: 6, loop_wait: 1, retry_timeout: 2}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  bin_dir: /usr/lib/postgresql/17/bin
  data_dir: {inside}/pg/data
  pgpass: {inside}/pg/pgpass
  authentication: {{superuser: {{username: postgres, password: x}}, replication: {{username: replicator, password: x}}}}
  parameters: {{unix_socket_directories: /tmp}}
  pg_hba: ["local all all trust", "host all all 127.0.0.0/8 trust"]
"""


class Peer:
    """Our launcher, in a folder of its own."""

    def __init__(self, at: Path, keeper: zookeeper.Server) -> None:
        self.data = at / "pg" / "data"
        self.keeper = keeper
        self._at, self._user, self._rest = at, user_id("postgres"), free_port()
        text = CONFIG.format(rest=self._rest, zookeeper=keeper.address, port=free_port(), inside=INSIDE)
        (at / "patroni.yml").write_text(text)
        self.data.parent.mkdir()
        os.chown(self.data.parent, self._user, self._user)
        libraries = release.libraries(CACHE, root(), lambda _: None)
        shutil.copytree(libraries, at / "lib")
        shutil.copytree(REPO / "src" / "mobula", at / "lib" / "mobula")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Its life; killed at its end."""
        path = {"PYTHONPATH": f"{INSIDE}/lib", "PATH": "/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        argv = ["/usr/bin/python3", "-m", "mobula.metadata.patroni_launcher", f"{INSIDE}/patroni.yml"]
        process = Process(self._at, self._user, argv, path)
        try:
            yield
        finally:
            process.kill()

    def cluster(self) -> None:
        """What it answers to nobody while there is no ZooKeeper: raises OSError then."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._rest}/cluster", timeout=30) as answer:
            json.load(answer)

    def said(self) -> str:
        """All that it has logged."""
        return (self._at / "log").read_text()

    def leads(self) -> bool:
        """Its own word for it."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._rest}/primary", timeout=1) as answer:
                return bool(json.load(answer)["role"] == "primary")
        except (OSError, ValueError):
            return False


@pytest.fixture
def peer() -> Iterator[Peer]:
    with folder() as keeper_folder, folder() as at:
        keeper = zookeeper.Server(keeper_folder)
        keeper.start()
        try:
            yield Peer(at, keeper)
        finally:
            keeper.stop()


@pytest.mark.parametrize(
    "reached",
    [
        pytest.param(lambda data: data.is_dir(), id="while initdb works"),
        pytest.param(lambda data: (data / "postmaster.pid").exists(), id="while roles are made"),
    ],
)
def test_a_first_bootstrap_that_was_killed_is_begun_again(peer: Peer, reached: Callable[[Path], bool]) -> None:
    with peer.running():
        until("the bootstrap to get so far", lambda: reached(peer.data))
    note = peer.data.with_name("data.bootstrap")
    assert note.exists()
    with peer.running():
        until("a leader", peer.leads)
        assert not note.exists()


def test_a_finished_bootstrap_keeps_its_data(peer: Peer) -> None:
    mark = peer.data / "mark"
    with peer.running():
        until("a leader", peer.leads)
        mark.touch()
    with peer.running():
        until("a leader again", peer.leads)
        assert mark.exists()


def test_a_request_that_needs_zookeeper_while_there_is_none_is_one_line_in_the_log(peer: Peer) -> None:
    with peer.running():
        until("a leader", peer.leads)
        peer.cluster()
        peer.keeper.stop()
        with pytest.raises((OSError, http.client.HTTPException)):
            peer.cluster()
        until("the line", lambda: "A request of 127.0.0.1 needs ZooKeeper, which does not answer" in peer.said())
        assert "Traceback" not in peer.said()
