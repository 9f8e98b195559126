"""Copies on one storage host go wrong by themselves: bytes are other ones than were written.

When: after any change to the object server, to verification or mending, or to ZFS.
Proves: no client ever reads a wrong byte. `file`: bytes change in files, above ZFS: what clients read is put aside, another copy answers,
and brings it back within two minutes by itself; what nobody reads is found as files are verified, or by `mobula audit --read`, and brought
back when that is asked for, as healing does. `disk`: bytes change on a disk of each vdev, below ZFS, which finds them as it reads all,
and mends them from parity. Only copies of the drill's own objects are spoiled, found by what is in them.
You will see: nothing on the clients' side. `file`: copies that are put aside and come back. `disk`: the pool agent names a disk with
checksum errors.
"""

from __future__ import annotations

from ops.drills.fault import Fault
from ops.drills.model import Act, Drill, Scene, expect
from ops.drills.storage_faults import RotDisk, RotFiles


def act(scene: Scene, variant: str) -> Act:
    """On the first storage host."""
    host = scene.pool("storage")[0]
    one_each = tuple(vdev[0] for vdev in scene.vdevs(host))
    faults: dict[str, Fault] = {
        "file": RotFiles(host, scene.known, scene.cold), "disk": RotDisk(host, one_each, (*scene.known, *scene.cold)),
    }  # fmt: skip
    return Act((faults[variant],), expect(scene, hit=[]))


DRILL = Drill("rot", __doc__ or "", ("CL-47", "CL-67"), ("file", "disk"), act, cold=True)
