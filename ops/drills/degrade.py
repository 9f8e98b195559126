"""The links between the AZs are bad: some packets get lost, or only so many fit.

When: after any change to who waits how long for whom, or to leases; before AZs move further apart.
Proves: bad links make a region slow, and nothing else: the truth or 503, nobody away for longer than 10 s, no primary that goes from
peer to peer. `loss`: 2 % of all packets between AZs, at random. `narrow`: 10 Mbit/s from each AZ to each other one, and a bulk transfer
on each that takes what is left. `both`.
You will see: slow writes, some 503, the same primaries as before or one other; the report says how many packets were dropped.
"""

from __future__ import annotations

from mobula.lab.faults import both_ways
from ops.drills.faults import Degrade
from ops.drills.model import Act, Drill, Scene, expect

LOSS_PERCENT = 2
KBIT_PER_S = 10_000
TAKEOVERS_MAX = 1


def act(scene: Scene, variant: str) -> Act:
    """On all links between AZs, both ways."""
    zones = sorted(scene.zones.values())
    ways = tuple(sorted(both_ways(*((a, b) for a in zones for b in zones if a < b))))
    loss, narrow = variant != "narrow", variant != "loss"
    fault = Degrade(ways, LOSS_PERCENT if loss else 0, KBIT_PER_S if narrow else 0)
    # Without somebody else a drill's requests would fit, and nothing would be shown.
    return Act((fault,), expect(scene, takeovers_max=TAKEOVERS_MAX), bulk=ways if narrow else ())


DRILL = Drill("degrade", __doc__ or "", ("CL-06",), ("loss", "narrow", "both"), act)
