"""What runs jobs is lost while a job runs.

When: after any change to jobs, supervisors or agents, and before you let jobs of days run.
Proves: a job comes to what it comes to without a fault, byte for byte, and each attempt that was lost is counted and made again.
`agents`: the agents of two storage hosts are killed; `storage`: a storage host loses power; `supervisors`: all supervisors are killed;
`az`: an AZ loses power; `isolate`: an AZ hears nobody.
You will see: nothing on the clients' side but what the fault itself does to them; `mjob get` shows retries.
"""

from __future__ import annotations

from ops.drills import az_loss, partition
from ops.drills.faults import Kill, Power
from ops.drills.model import Act, Drill, Scene, expect

AZ = "c"
AGENTS = 2


def act(scene: Scene, variant: str) -> Act:
    """The first hosts of their pools; one AZ."""
    storage, api = scene.pool("storage"), scene.pool("api")
    if variant == "az":
        return az_loss.act(scene, AZ)
    if variant == "isolate":
        return partition.act(scene, f"isolate-{AZ}")
    if variant == "storage":
        return Act((Power(storage[:1]),), expect(scene))
    fault = Kill(storage[:AGENTS], "agent") if variant == "agents" else Kill(api, "supervisor")
    return Act((fault,), expect(scene, hit=[]))


DRILL = Drill(
    "job-loss", __doc__ or "", ("CL-90", "CL-91", "CL-93", "CL-98"), ("agents", "storage", "supervisors", "az", "isolate"), act, jobs=True,
)  # fmt: skip
