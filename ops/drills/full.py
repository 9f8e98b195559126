"""Storage hosts have no room left.

When: after any change to placement, and before you let pools become as full as they may.
Proves: copies go to other groups within seconds, in two AZs all the same, what is there reads on without a pause, and who has room again
is chosen again. `pool`: one storage host; `az`: all of its AZ.
You will see: the filled hosts take nothing; some slow PUTs in the first seconds; `mobula status` says ok, as a full pool is well.
"""

from __future__ import annotations

from ops.drills.model import BACK_S, UNTOUCHED_S, Act, Drill, Expect, Scene
from ops.drills.storage_faults import Full


def act(scene: Scene, variant: str) -> Act:
    """The first storage host, or all of its AZ."""
    host = scene.pool("storage")[0]
    hosts = (host,) if variant == "pool" else scene.pool("storage", scene.az_of(host))
    reads, writes = dict.fromkeys(scene.shards, UNTOUCHED_S), dict.fromkeys(scene.shards, BACK_S)
    return Act((Full(hosts),), Expect(reads, writes, scene.clients, scene.clients))


DRILL = Drill("full", __doc__ or "", ("CL-44", "CL-53"), ("pool", "az"), act)
