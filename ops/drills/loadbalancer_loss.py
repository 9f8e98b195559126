"""A loadbalancer is gone.

When: after any change to HAProxy, the registrar or DNS.
Proves: it is out of public DNS within 15 s, and clients that try the next address of the name go on meanwhile. `power`: its machine loses
power; `freeze`: it stands still and its kernel answers; `stop`: HAProxy is stopped in order, and nobody notices at all.
You will see: slow requests of those clients that had connections to it, then none.
"""

from __future__ import annotations

from ops.drills.fault import Fault
from ops.drills.faults import Freeze, Power, Stop
from ops.drills.model import Act, Drill, Scene, expect


def act(scene: Scene, variant: str) -> Act:
    """The first one of the first AZ."""
    host = scene.pool("loadbalancer")[0]
    az = scene.az_of(host)
    faults: dict[str, Fault] = {"power": Power((host,)), "freeze": Freeze((host,)), "stop": Stop((host,), "haproxy")}
    # An AZ with one loadbalancer has none now: its own clients, who know no other, have nobody to ask.
    served = [c for c in scene.clients if c != az or len(scene.pool("loadbalancer", az)) > 1]
    return Act((faults[variant],), expect(scene, served=served))


DRILL = Drill("loadbalancer-loss", __doc__ or "", ("CL-27", "CL-28", "CL-31"), ("power", "freeze", "stop"), act)
