"""One peer of a shard is killed, frozen, loses power or its network.

When: after any change to PostgreSQL, Patroni, ZooKeeper or the guard.
Proves: a shard survives any of its peers; the other shards don't notice. Variants: `primary-kill` (the postmaster), `-freeze`, `-power`,
`-cut` (its AZ is isolated), likewise `sync-...` and `async-...`; always of shard 1.
You will see: for the primary another one within seconds and the old one back as a standby; for the sync a short pause of writes until
the async peer has taken its place; for the async nothing.
"""

from __future__ import annotations

from mobula.lab.faults import alone
from ops.drills.fault import Fault
from ops.drills.faults import Cut, Freeze, Kill, Power
from ops.drills.model import Act, Drill, Scene, expect

SHARD = 1
ROLES = ("primary", "sync", "async")
FAULTS = ("kill", "freeze", "power", "cut")


def act(scene: Scene, variant: str) -> Act:
    """The fault, on the peer that has the role now."""
    role, kind = variant.split("-")
    shard = scene.shards[SHARD]
    host = {"primary": shard.primary, "sync": shard.sync, "async": shard.asynchronous}[role]
    az = scene.az_of(host)
    fault: Fault
    match kind:
        case "kill":
            fault = Kill((host,), "patroni", process="postgres")
        case "freeze":
            fault = Freeze((host,))
        case "power":
            fault = Power((host,))
        case _:
            others = [client for client in scene.clients if client != az]
            cut = Cut(tuple(sorted(alone(scene.zone(az)))), f"AZ {az}, with the {role} peer, is alone")
            return Act((cut,), expect(scene, served=others, reach=[*others, az]))
    return Act((fault,), expect(scene, hit=[SHARD]))


DRILL = Drill(
    "shard-matrix", __doc__ or "", ("CL-70", "CL-71", "CL-72", "CL-74", "CL-77", "CL-79"),
    tuple(f"{role}-{kind}" for role in ROLES for kind in FAULTS), act,
)  # fmt: skip
