"""One server is gone: an api, a storage or a nameservice host.

When: after any change to the services on it, and before you take a server away for repair.
Proves: any one server can go without anybody's help. `api`, `storage`, `nameservice`: without power; `api-freeze`, `storage-freeze`: it
stands still, and its kernel takes connections.
You will see: a pause as long as a request's time-out for those who were just talking to it; PUTs go to other groups of storage servers.
"""

from __future__ import annotations

from ops.drills.fault import Fault
from ops.drills.faults import Freeze, Power
from ops.drills.model import Act, Drill, Scene, expect


def act(scene: Scene, variant: str) -> Act:
    """The first host of the pool."""
    pool, _, kind = variant.partition("-")
    host = scene.pool(pool)[0]
    fault: Fault = Freeze((host,)) if kind == "freeze" else Power((host,))
    # An AZ with one api host has none now, but its loadbalancers know the others.
    return Act((fault,), expect(scene))


DRILL = Drill(
    "server-loss", __doc__ or "", ("CL-01", "CL-22", "CL-23", "CL-27", "CL-45", "CL-46", "CL-47", "CL-100"),
    ("storage", "storage-freeze", "api", "api-freeze", "nameservice"), act,
)  # fmt: skip
