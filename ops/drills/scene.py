"""Who is what in a region now, and moving roles to one AZ."""

from __future__ import annotations

import json
import time

from ops.drills.model import Scene, Shard
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from ops.remote import RemoteError, SshRemote
from ops.status import Status

PATRONI = "http://{address}:8008"
ASK_ZOOKEEPER = """
import socket, sys
with socket.create_connection((sys.argv[1], 2181), 2) as s:
    s.sendall(b"srvr")
    said = b""
    while chunk := s.recv(4096):
        said += chunk
print("leader" if b"Mode: leader" in said else "follower" if b"Mode: follower" in said else "none")
"""
SWITCH = """
import base64, json, sys, urllib.request
url, leader, candidate = sys.argv[1:]
password = sys.stdin.read().strip()
body = json.dumps({"leader": leader, "candidate": candidate}).encode()
token = base64.b64encode(("patroni:" + password).encode()).decode()
head = {"Content-Type": "application/json", "Authorization": "Basic " + token}
print(urllib.request.urlopen(urllib.request.Request(url + "/switchover", body, head), timeout=30).read().decode())
"""
MOVES_MAX = 6
MOVED_S = 60.0


def scene_of(region: Region, status: Status) -> Scene:
    """From a look at the region.

    Raises:
        OperatorError: a shard has no leader, or ZooKeeper none.
    """
    roles: dict[int, dict[str, str]] = {}
    for host in status.hosts:
        if host.pool == "metadata":
            roles.setdefault(host.shard, {})[host.role] = host.name
    for shard, seen in roles.items():
        if not {"leader", "sync_standby", "replica"} <= set(seen):
            raise OperatorError(
                f"look at shard {shard}: it has {', '.join(sorted(seen))}; wait until it has all three peers"
            )
    shards = {n: Shard(r["leader"], r["sync_standby"], r["replica"]) for n, r in sorted(roles.items())}
    return Scene(region.hosts, region.zones, shards, zookeeper_leader(region))


def zookeeper_leader(region: Region) -> str:
    """The host whose ZooKeeper leads. Raises OperatorError: none does."""
    for host in region.pool("nameservice"):
        try:
            remote = SshRemote(region, host.address)
            said = remote.run(["python3", "-c", ASK_ZOOKEEPER, host.address], timeout_s=10, check=False).stdout
        except RemoteError:
            continue
        if said.strip() == "leader":
            return host.name
    raise OperatorError("look for ZooKeeper's leader: no nameservice host says that it is; ./mobula status says more")


def gather(region: Region, look: Status, progress: Progress) -> Scene:
    """The primaries of all shards in the AZ of ZooKeeper's leader, by planned switchovers.

    Raises:
        OperatorError: a shard could not be moved within the bound.
    """
    scene = scene_of(region, look)
    az = scene.az_of(scene.zookeeper_leader)
    for number in scene.shards:
        for _ in range(MOVES_MAX):
            shard = _shard(region, number)
            if scene.az_of(shard.primary) == az:
                break
            progress(f"shard {number}: switch over from {shard.primary} to {shard.sync}")
            _switch(region, shard)
            _wait_for_three(region, number, shard.sync)
        else:
            raise OperatorError(f"move shard {number} to AZ {az}: not there after {MOVES_MAX} switchovers")
    return Scene(scene.hosts, scene.zones, {n: _shard(region, n) for n in scene.shards}, scene.zookeeper_leader)


def _switch(region: Region, shard: Shard) -> None:
    remote = SshRemote(region, region.hosts[shard.primary].address)
    url = PATRONI.format(address=region.hosts[shard.primary].address)
    password = (region.secrets / "postgres.password").read_text()
    remote.run(["python3", "-c", SWITCH, url, shard.primary, shard.sync], stdin=password, timeout_s=40)


def _wait_for_three(region: Region, number: int, primary: str) -> None:
    end_s = time.monotonic() + MOVED_S
    while time.monotonic() < end_s:
        try:
            shard = _shard(region, number)
        except OperatorError:
            shard = Shard("", "", "")
        if shard.primary == primary and shard.sync and shard.asynchronous:
            return
        time.sleep(0.5)
    raise OperatorError(
        f"switch shard {number} over to {primary}: its three peers were not there again within {MOVED_S:.0f} s"
    )


def _shard(region: Region, number: int) -> Shard:
    """As Patroni has it. Raises OperatorError: no peer answers, or a role is not taken."""
    why = "it has no hosts"
    for host in (h for h in region.pool("metadata") if h.shard == number):
        url = PATRONI.format(address=host.address) + "/cluster"
        ask = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode())"
        try:
            said = json.loads(SshRemote(region, host.address).run(["python3", "-c", ask], timeout_s=10).stdout)
        except (RemoteError, ValueError) as error:
            why = str(error)
            continue
        roles = {m["role"]: m["name"] for m in said["members"] if m["state"] in ("running", "streaming")}
        return Shard(roles.get("leader", ""), roles.get("sync_standby", ""), roles.get("replica", ""))
    raise OperatorError(f"ask the peers of shard {number}: {why}")
