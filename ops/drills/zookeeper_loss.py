"""ZooKeeper loses its leader, or all of its servers.

When: after any change to ZooKeeper or to who uses it.
Proves: the data path doesn't need ZooKeeper while nothing else changes. `leader`: the leader's process is killed; `leader-power`: its
machine loses power, and the others have to elect one; `all`: all servers are stopped.
You will see: nothing on the clients' side. With `all`, names are answered from the last known set, and a failover would have to wait.
"""

from __future__ import annotations

from ops.drills.fault import Fault
from ops.drills.faults import Kill, Power, Stop
from ops.drills.model import Act, Drill, Scene, expect


def act(scene: Scene, variant: str) -> Act:
    """The leader, or everybody."""
    leader = (scene.zookeeper_leader,)
    faults: dict[str, Fault] = {
        "leader": Kill(leader, "zookeeper"), "leader-power": Power(leader), "all": Stop(scene.pool("nameservice"), "zookeeper"),
    }  # fmt: skip
    return Act((faults[variant],), expect(scene, hit=[]))


DRILL = Drill("zookeeper-loss", __doc__ or "", ("CL-25", "CL-29", "CL-74"), ("leader", "leader-power", "all"), act)
