"""Patroni with four hard-wired latencies made small; otherwise Patroni as it is.

What is changed, and what each costs when a primary's host loses power (measured: 8.6 s -> 7.1 s until writes are back):

1. the lower bounds of `ttl` (20 s) and `retry_timeout` (3 s): Patroni still demands loop_wait + 2 x retry_timeout <= ttl;
2. the 2 s REST timeout towards a dead leader;
3. kazoo's read timeout of max(loop_wait - 2, 2) s, and the whole session timeout as timeout for connecting;
4. kazoo's back-off steps, which give up before the deadline when the *next* step would cross it.

All of them are looked up in the modules of one Patroni version; another version is refused, because nobody has tried these there.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import patroni.config
import patroni.dcs.zookeeper
import patroni.ha
from patroni.version import __version__

TESTED = "4.1.5"
FLOORS = {"ttl": 4, "retry_timeout": 1, "loop_wait": 1}
REST_TIMEOUT_S = 0.25
READ_TIMEOUT_MS = 1000.0
CONNECT_TIMEOUT_S = 0.3
BACKOFF_MAX_S = 0.15


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


if __version__ != TESTED:
    sys.exit(
        f"start Patroni: found version {__version__}, the settings that make failover quick were tried on {TESTED} only; install that"
    )
# At import, not under __main__: Patroni starts the postmaster by multiprocessing's `spawn`, which imports this file again.
lower_floors()
patroni.ha.Ha.fetch_node_status = fetch_node_status
quicken_zookeeper()

if __name__ == "__main__":
    from patroni.__main__ import main

    main()
