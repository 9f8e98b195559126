"""Copies on one storage host go wrong by themselves: bytes are other ones than were written.

When: after any change to the object server, to verification or mending, or to ZFS.
Proves: no client ever reads a wrong byte, and nobody has to do anything. `file`: bytes change in files, above ZFS: what clients read is
put aside, and another copy answers; what nobody reads is found by verification; every copy comes back from another AZ. `disk`: bytes
change on a disk, below ZFS, which finds them when it reads the pool, and mends them from parity. Only copies of the drill's own objects
are spoiled, found by what is in them.
You will see: nothing on the clients' side. `file`: copies are put aside and come back within minutes, for which healing waits. `disk`:
the pool agent names a disk with checksum errors.
"""

from __future__ import annotations

from ops.drills.faults import Fault, RotDisk, RotFiles
from ops.drills.model import Act, Drill, Scene, expect

DISK = "d01"


def act(scene: Scene, variant: str) -> Act:
    """On the first storage host."""
    host = scene.pool("storage")[0]
    faults: dict[str, Fault] = {
        "file": RotFiles(host, scene.objects), "disk": RotDisk(host, DISK, scene.objects),
    }  # fmt: skip
    return Act((faults[variant],), expect(scene, hit=[]))


DRILL = Drill("rot", __doc__ or "", ("CL-47", "CL-67"), ("file", "disk"), act, cold=True)
