"""An availability zone loses power.

When: after an upgrade of anything, once a month, and before you tell anybody that you can lose a building.
Proves: reads and writes are back within 10 s for every client outside of the AZ, no acknowledged write is lost, nobody is told anything
stale, nothing has to be done by hand. `worst`: the AZ holds the primaries of all shards and ZooKeeper's leader.
You will see: errors for some seconds, two new primaries, then a region that works on without a third of its machines; after healing the old
primaries come back as standbys.
"""

from __future__ import annotations

from ops.drills.faults import Power
from ops.drills.model import Act, Drill, Scene, expect

WORST = "worst"


def act(scene: Scene, variant: str) -> Act:
    """Every machine of the AZ."""
    az = scene.az_of(scene.zookeeper_leader) if variant == WORST else variant
    hit = [
        number for number, shard in scene.shards.items() if az in {scene.az_of(host) for host in shard.peers() if host}
    ]
    left = [client for client in scene.clients if client != az]
    return Act((Power(scene.of_az(az)),), expect(scene, hit=hit, served=left))


DRILL = Drill(
    "az-loss", __doc__ or "", ("CL-01", "CL-04", "CL-49", "CL-72", "CL-77", "CL-79", "CL-100"), (WORST, "a", "b", "c"), act,
    worst=lambda variant: variant == WORST,
)  # fmt: skip
