"""All drills, by name."""

from __future__ import annotations

from ops.drills import (
    authcache_loss,
    az_loss,
    degrade,
    deregister,
    disk_loss,
    full,
    job_loss,
    loadbalancer_loss,
    partition,
    pool_loss,
    rot,
    server_loss,
    shard_matrix,
    shard_peers,
    stale_read,
    storage_crash,
    zookeeper_loss,
)
from ops.drills.model import Drill
from ops.errors import BadInput

_MODULES = (
    az_loss, partition, pool_loss, disk_loss, server_loss, shard_matrix, shard_peers, stale_read, storage_crash, zookeeper_loss,
    authcache_loss, loadbalancer_loss, degrade, rot, full, deregister, job_loss,
)  # fmt: skip
DRILLS: dict[str, Drill] = {module.DRILL.name: module.DRILL for module in _MODULES}


def drill_of(name: str) -> Drill:
    """The drill of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in DRILLS:
        raise BadInput(f"run drill {name!r}: there are {', '.join(DRILLS)}")
    return DRILLS[name]
