"""A healthy host leaves DNS: only its registrar is stopped.

When: after any change to the registrar, DNS or HAProxy, and before an upgrade that nobody is to notice: it begins like this.
Proves: the host is out of DNS within 15 s, whoever is just talking to it is answered, and nobody is away for longer than 3 s.
`loadbalancer`, `api`, `storage`: the first host of that pool.
You will see: nothing on the clients' side; `mobula status` names the registrar.
"""

from __future__ import annotations

from ops.drills.faults import Stop
from ops.drills.model import Act, Drill, Scene, expect


def act(scene: Scene, variant: str) -> Act:
    """The first host of the pool."""
    return Act((Stop((scene.pool(variant)[0],), "registrar"),), expect(scene, hit=[]))


DRILL = Drill("deregister", __doc__ or "", ("CL-28",), ("loadbalancer", "api", "storage"), act)
