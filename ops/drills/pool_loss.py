"""A storage host is lost with all its disks.

When: before you trust a region with data, and after any change to placement, the object server or repair.
Proves: every object with two copies reads on without a pause, nothing copies by itself, and `mobula repair --pool` brings every copy back
on another pool, verified, with the proof that no reference was forgotten.
You will see: a second of slower reads; PUTs go elsewhere; after the repair an audit without a finding, and the sum of the proof.
Objects of a single copy that lay there are lost, as they would be in earnest, and are named.
"""

from __future__ import annotations

from ops.drills.model import Act, Drill, Scene, expect
from ops.drills.storage_faults import LosePool


def _host(scene: Scene, variant: str) -> str:
    return scene.pool("storage", variant)[-1]


def act(scene: Scene, variant: str) -> Act:
    """The last storage host of the AZ."""
    return Act((LosePool(_host(scene, variant)),), expect(scene))


DRILL = Drill(
    "pool-loss", __doc__ or "", ("CL-66", "CL-100", "CL-101", "CL-103", "CL-104", "CL-105"), ("b", "a", "c"), act,
    repairs=lambda scene, variant: (_host(scene, variant),),
)  # fmt: skip
