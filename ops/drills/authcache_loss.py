"""All authcaches stop.

When: after any change to the authcache or to how webapis ask it.
Proves: who was known a while ago is still known; nobody is told 401 or 403 because a cache is away.
You will see: nothing, for as long as the webapis remember (300 s); after that 503.
"""

from __future__ import annotations

from ops.drills.faults import Stop
from ops.drills.model import Act, Drill, Scene, expect


def act(scene: Scene, _variant: str) -> Act:
    """On every api host."""
    return Act((Stop(scene.pool("api"), "authcache"),), expect(scene, hit=[]))


DRILL = Drill("authcache-loss", __doc__ or "", ("CL-17", "CL-25", "CL-30"), ("all",), act)
