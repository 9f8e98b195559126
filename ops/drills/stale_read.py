"""The primary of shard 1 is cut off while its Patroni sleeps, and clients beside it go on reading.

When: after any change to the guard, the lease, or how a webapi asks a shard.
Proves: the lease. Nobody deposes the old primary: its Patroni is stopped by a signal and hears nothing. The others elect a new one, and
what is overwritten there must not be read as it was in the old AZ. Without the lease's check this drill fails.
You will see: in the isolated AZ 503 a second after the cut, on the other side a new primary; no answer that is older than one before it.
"""

from __future__ import annotations

from mobula.lab.faults import alone
from ops.drills.faults import Cut, Pause
from ops.drills.model import Act, Drill, Scene, expect

SHARD = 1


def act(scene: Scene, _variant: str) -> Act:
    """Patroni first, the network a second later."""
    host = scene.shards[SHARD].primary
    az = scene.az_of(host)
    cut = Cut(tuple(sorted(alone(scene.zone(az)))), f"AZ {az}, with the primary, is alone")
    others = [client for client in scene.clients if client != az]
    return Act((Pause((host,), "patroni"), cut), expect(scene, served=others, reach=[*others, az]), pauses_s=(1.0,))


DRILL = Drill("stale-read", __doc__ or "", ("CL-12", "CL-13", "CL-14", "CL-74"), ("primary",), act)
