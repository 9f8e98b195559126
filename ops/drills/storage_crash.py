"""All storage hosts lose power right after they have said yes.

When: after any change to the object server, ZFS or the disks.
Proves: a PUT that was acknowledged is on the disks of all its copies: what only the pool's memory held is gone, and nothing that anybody
was promised. The lab's ZFS lives in a process that dies with the machine; its disks are files that keep what was synced.
You will see: 503 for everything that needs bytes until the machines are back, then every object as it was.
"""

from __future__ import annotations

from ops.drills.faults import Power
from ops.drills.model import NEVER, Act, Drill, Expect, Scene

HOLD_S = 20.0


def act(scene: Scene, _variant: str) -> Act:
    """All of them at once, in the middle of the clients' PUTs."""
    nothing = dict.fromkeys(scene.shards, NEVER)
    return Act((Power(scene.pool("storage")),), Expect(nothing, nothing, scene.clients, scene.clients))


DRILL = Drill("storage-crash", __doc__ or "", ("CL-02", "CL-45", "CL-51"), ("all",), act, hold_s=HOLD_S)
