"""Two of a shard's three peers are gone: what the last one may do, and may not.

When: after any change to PostgreSQL, Patroni or the guard.
Proves: reads need one peer, writes two, and nothing is answered that can't be known. Written down before the run, for shard 1:
`primary`: only the primary is left: reads go on, writes get 503. `sync`: only the sync standby: reads are back once it has fenced the
primary, writes get 503. `async`: only the async peer: reads and writes get 503, it can't prove that it has everything.
You will see: exactly that on shard 1, and nothing at all on the others.
"""

from __future__ import annotations

from ops.drills.faults import Power
from ops.drills.model import BACK_S, NEVER, UNTOUCHED_S, Act, Drill, Expect, Scene

SHARD = 1


def act(scene: Scene, variant: str) -> Act:
    """Power off the two others at once."""
    shard = scene.shards[SHARD]
    left = {"primary": shard.primary, "sync": shard.sync, "async": shard.asynchronous}[variant]
    gone = tuple(host for host in shard.peers() if host != left)
    others: dict[int, float | None] = {number: UNTOUCHED_S for number in scene.shards if number != SHARD}
    reads = {**others, SHARD: NEVER if variant == "async" else BACK_S}
    forbidden = ((SHARD, True), (SHARD, False)) if variant == "async" else ((SHARD, True),)
    return Act((Power(gone),), Expect(reads, {**others, SHARD: NEVER}, scene.clients, scene.clients, forbidden))


DRILL = Drill("shard-peers", __doc__ or "", ("CL-15", "CL-16", "CL-75", "CL-76"), ("primary", "sync", "async"), act)
