"""Patroni with four hard-wired latencies made small, its asynchronous peers chained behind the synchronous one, a shard's first
bootstrap made safe to repeat, and a line instead of a page said of a request that needs ZooKeeper while there is none; otherwise
Patroni as it is.

What is changed, and what each costs when a primary's host loses power (measured: 8.6 s -> 7.1 s until writes are back):

1. the lower bounds of `ttl` (20 s) and `retry_timeout` (3 s): Patroni still demands loop_wait + 2 x retry_timeout <= ttl;
2. the 2 s REST timeout towards a dead leader;
3. kazoo's read timeout of max(loop_wait - 2, 2) s, and the whole session timeout as timeout for connecting;
4. kazoo's back-off steps, which give up before the deadline when the *next* step would cross it.

The chain (`chain`): the tag `replicatefrom`, which Patroni reads from its file, is computed instead, ten times a second; what Patroni
does about it (slots, connection, timeline) is its own. A primary looks at its standbys as often, and does not sleep when they change.

The first bootstrap: whoever creates the key `initialize` makes the cluster, and every other peer waits for it. Patroni killed on the
way leaves that key empty and a half-made data directory: nobody goes on, for ever. So it is noted beside the data directory which key
was ours; whoever finds such a note at its start, and the key still empty, takes both back. No leader key was ever held until then,
so nobody can have been promised anything.

All of them are looked up in the modules of one Patroni version; another version is refused, because nobody has tried these there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import patroni.__main__
import patroni.api
import patroni.config
import patroni.dcs.zookeeper
import patroni.ha
import psycopg
import yaml
from kazoo.exceptions import NoNodeError
from patroni.exceptions import DCSError
from patroni.version import __version__

from mobula.metadata.chain import Chain, Keys
from mobula.wire.zookeeper import HOME_PERIOD_S, rehome

TESTED = "4.1.5"
FLOORS = {"ttl": 4, "retry_timeout": 1, "loop_wait": 1}
REST_TIMEOUT_S = 0.25
READ_TIMEOUT_MS = 1000.0
CONNECT_TIMEOUT_S = 0.3
BACKOFF_MAX_S = 0.15
LOOK_S = 0.1
POSITION = """SELECT pg_is_in_recovery(),
  CASE WHEN pg_is_in_recovery() THEN coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'), 0)::bigint END,
  (SELECT array_agg(pid ORDER BY pid) FROM pg_stat_replication WHERE state = 'streaming')"""


def lower_floors() -> None:
    """1: let ttl and retry_timeout be as small as `FLOORS`."""
    original = patroni.config.Config._Config__get_and_maybe_adjust_int_value

    def adjusted(self: Any, config: Any, name: str, floor: int) -> int:
        value: int = original(self, config, name, FLOORS.get(name, floor))
        return value

    patroni.config.Config._Config__get_and_maybe_adjust_int_value = adjusted


def fetch_node_status(self: Any, member: Any) -> Any:
    """2: ask a member for its state, without retries and with a short timeout."""
    try:
        response = self.patroni.request(member, timeout=REST_TIMEOUT_S, retries=0)
        return patroni.ha._MemberStatus.from_api_response(member, json.loads(response.data.decode()))
    except Exception as error:  # noqa: BLE001 (as Patroni's own: whatever it is, the member's state is unknown)
        patroni.ha.logger.warning("Request failed to %s: GET %s (%s)", member.name, member.api_url, error)
    return patroni.ha._MemberStatus.unknown(member)


def quicken_zookeeper() -> None:
    """3 and 4."""
    zookeeper = patroni.dcs.zookeeper
    original_init = zookeeper.ZooKeeper.__init__

    def kazoo_connect(self: Any, *args: Any) -> tuple[float, float]:
        return READ_TIMEOUT_MS, self._orig_kazoo_connect(*args)[1]

    def set_connect_timeout(self: Any, _timeout_s: float) -> None:
        self._connect_timeout = CONNECT_TIMEOUT_S

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        for retry in (
            self._client._retry if hasattr(self._client, "_retry") else self._client.retry,
            self._client._conn_retry,
        ):
            retry.max_delay, retry.backoff = BACKOFF_MAX_S, 1.3

    zookeeper.ZooKeeper._kazoo_connect = kazoo_connect
    zookeeper.PatroniSequentialThreadingHandler.set_connect_timeout = set_connect_timeout
    zookeeper.ZooKeeper.__init__ = init


class Follower:
    """The chain's edge in the Patroni process: a thread that looks, and wakes Patroni up when it should do something about it."""

    def __init__(self, ha: Any) -> None:
        self._ha = ha
        self._chain = Chain(ha.state_handler.name)
        self._connection: Any = None
        self._standbys: list[int] | None = None
        self.above: str | None = None

    def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                if self._ha.state_handler.is_running() and self._ha.cluster is not None:
                    self._look()
            except psycopg.Error:
                # The server is on its way up or down: begin again with the next look.
                self._connection = None
            except Exception:  # noqa: BLE001 (the outermost loop of a thread)
                patroni.ha.logger.exception("The chain's look failed")
            time.sleep(LOOK_S)

    def _look(self) -> None:
        if self._connection is None or self._connection.closed:
            where = f"host={self._socket_dir()} user=postgres dbname=postgres connect_timeout=1 application_name=chain"
            self._connection = psycopg.connect(where, autocommit=True)
        standby, received, standbys = self._connection.execute(POSITION).fetchone()
        above = None
        if standby:
            above = self._chain.above(self._keys(), received, time.monotonic(), self._leader_position)
        elif standbys != self._standbys:
            # Patroni chooses the synchronous one in its next loop: not a second later.
            self._ha.wakeup()
        self._standbys = standbys
        if above != self.above:
            patroni.ha.logger.info(
                "Streaming from %s, no longer from %s", above or "the leader", self.above or "the leader"
            )
            self.above = above
            self._ha.wakeup()

    def _socket_dir(self) -> str:
        directory: str = self._ha.patroni.config["postgresql"]["parameters"]["unix_socket_directories"]
        return directory

    def _keys(self) -> Keys:
        cluster = self._ha.cluster
        running = (m.name for m in cluster.members if m.data.get("state") in ("running", "streaming", None))
        leader = cluster.leader.name if cluster.leader else None
        return Keys(leader or None, cluster.sync.leader, frozenset(cluster.sync.voters), frozenset(running))

    def _leader_position(self) -> int | None:
        leader = self._ha.cluster.leader
        if not (leader and leader.name):
            return None
        status = fetch_node_status(self._ha, leader.member)
        if not status.reachable or status.in_recovery:
            return None
        wal = status.data.get("wal") or status.data.get("xlog") or {}
        position: int | None = wal.get("location")
        return position

    def come_home(self) -> None:
        """Leave a remote AZ's ZooKeeper when the own AZ's one serves again: kazoo would stay."""
        own = self._ha.patroni.config["restapi"]["connect_address"].rsplit(":", 1)[0]
        while True:
            time.sleep(HOME_PERIOD_S)
            was = rehome(self._ha.dcs._client, own)
            if was:
                patroni.ha.logger.info("ZooKeeper connection brought home from %s", was)


def chain_standbys() -> None:
    """Compute `replicatefrom`, in a thread that begins with Patroni's own loop."""
    original_init, original_tags = patroni.ha.Ha.__init__, patroni.__main__.Patroni.tags.fget
    followers: list[Follower] = []

    def init(self: Any, daemon: Any) -> None:
        original_init(self, daemon)
        follower = Follower(self)
        followers.append(follower)
        threading.Thread(target=follower.run, daemon=True, name="chain").start()
        threading.Thread(target=follower.come_home, daemon=True, name="home").start()

    def tags(self: Any) -> dict[str, Any]:
        above = followers[0].above if followers else None
        return {**original_tags(self), "replicatefrom": above} if above else original_tags(self)

    patroni.ha.Ha.__init__ = init
    patroni.__main__.Patroni.tags = property(tags)


def repeat_bootstrap(data_dir: Path) -> None:
    """Note a bootstrap that begins; undo one that died on its way."""
    zookeeper = patroni.dcs.zookeeper.ZooKeeper
    original_init, original_initialize = zookeeper.__init__, zookeeper.initialize
    note = data_dir.with_name(data_dir.name + ".bootstrap")

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        if note.exists():
            undo_bootstrap(self, note, data_dir)

    def initialize(self: Any, create_new: bool = True, sysid: str = "") -> bool:
        done: bool = original_initialize(self, create_new, sysid)
        if create_new and not sysid and done:
            with note.open("w") as out:
                out.write(str(self._client.get(self.initialize_path)[1].czxid))
                out.flush()
                os.fsync(out.fileno())
        elif sysid:
            note.unlink(missing_ok=True)
        return done

    zookeeper.__init__, zookeeper.initialize = init, initialize


def undo_bootstrap(dcs: Any, note: Path, data_dir: Path) -> None:
    """Take back the key and the data directory of the bootstrap in `note`, unless it was finished."""
    try:
        value, stat = dcs._client.get(dcs.initialize_path)
        ours = str(stat.czxid) == note.read_text()
    except NoNodeError:
        value, ours = b"", False
    if not (ours and value):
        patroni.ha.logger.warning("An earlier bootstrap of %s died on its way: beginning again", data_dir)
        if ours:
            dcs._client.delete(dcs.initialize_path)
        shutil.rmtree(data_dir, ignore_errors=True)
    note.unlink()


def shorten_errors() -> None:
    """A request of the REST API that fails without ZooKeeper ends its connection, as ever, but no traceback tells of it."""
    original = patroni.api.RestApiServer.handle_error

    def handle_error(self: Any, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, DCSError):
            patroni.api.logger.warning(
                "A request of %s needs ZooKeeper, which does not answer: %s", client_address[0], error
            )
        else:
            original(self, request, client_address)

    patroni.api.RestApiServer.handle_error = handle_error


if __version__ != TESTED:
    sys.exit(
        f"start Patroni: found version {__version__}, the settings that make failover quick were tried on {TESTED} only; install that"
    )
# At import, not under __main__: Patroni starts the postmaster by multiprocessing's `spawn`, which imports this file again.
lower_floors()
patroni.ha.Ha.fetch_node_status = fetch_node_status
quicken_zookeeper()
chain_standbys()
shorten_errors()

if __name__ == "__main__":
    if len(sys.argv) == 2:
        repeat_bootstrap(Path(yaml.safe_load(Path(sys.argv[1]).read_text())["postgresql"]["data_dir"]))
    patroni.__main__.main()
