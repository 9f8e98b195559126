"""Disks of one storage host fail: two, then, with both spares in, two more in each vdev, eight in all.

When: after any change to the pool agent or to ZFS, and to see how long a resilver takes.
Proves: a spare comes in by itself, one after the other; with eight failed disks every object still reads, and new disks bring the pool
back. `two`: only the first two.
You will see: `mobula status` names the disks within 10 s; nothing on the clients' side but slower answers of that host.
"""

from __future__ import annotations

from ops.drills.model import SPARES, Act, Drill, Scene, expect
from ops.drills.storage_faults import FailDisks, SparesIn


def act(scene: Scene, variant: str) -> Act:
    """The first storage host's."""
    host = scene.pool("storage")[0]
    vdevs = scene.vdevs(host)
    first = FailDisks(host, tuple(vdevs[0][:2]))
    if variant == "two":
        return Act((first, SparesIn(host, SPARES)), expect(scene))
    more = FailDisks(host, tuple(disk for vdev in vdevs for disk in vdev[-2:]))
    return Act((first, SparesIn(host, SPARES), more), expect(scene))


DRILL = Drill("disk-loss", __doc__ or "", ("CL-60", "CL-61", "CL-62", "CL-63", "CL-64"), ("eight", "two"), act)
