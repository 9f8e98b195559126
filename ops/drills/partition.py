"""AZs can't hear each other.

When: as `az-loss`; and after any change of the network between the AZs.
Proves: whoever still answers tells the truth. `link-xy`: one link carries nothing; `xy-one-way`: from x to y only. `isolate-x`: an AZ
hears neither the others nor the internet, its own clients get 503 (or what is true), everybody else is served within 10 s.
`isolate-worst`: the AZ with all primaries and ZooKeeper's leader. `all`: every AZ for itself: reads and writes end within the lease, and
come back by themselves.
You will see: a new primary on the majority's side and none that flaps; in the isolated AZ 503 after the lease has run out (1 s).
"""

from __future__ import annotations

import itertools

from mobula.lab.faults import alone, both_ways
from ops.drills.faults import Cut
from ops.drills.model import NEVER, Act, Drill, Expect, Scene, expect

LETTERS = "abc"
LINKS = tuple(f"link-{x}{y}" for x, y in itertools.combinations(LETTERS, 2))
ONE_WAY = tuple(f"{x}{y}-one-way" for x, y in itertools.permutations(LETTERS, 2))
ISOLATED = tuple(f"isolate-{x}" for x in LETTERS)
WORST, ALL = "isolate-worst", "all"


def act(scene: Scene, variant: str) -> Act:
    """The cuts that the variant's name says."""
    if variant == ALL:
        deaf = frozenset[tuple[int, int]]().union(*(alone(zone) for zone in scene.zones.values()))
        nothing = dict.fromkeys(scene.shards, NEVER)
        azs = tuple(sorted(scene.zones))
        forbidden = tuple((shard, True) for shard in scene.shards)
        return Act((Cut(tuple(sorted(deaf)), "every AZ is alone"),), Expect(nothing, nothing, azs, azs, forbidden))
    if variant.startswith("isolate-"):
        az = scene.az_of(scene.zookeeper_leader) if variant == WORST else variant[-1]
        fault = Cut(tuple(sorted(alone(scene.zone(az)))), f"AZ {az} is alone")
        others = [client for client in scene.clients if client != az]
        return Act((fault,), expect(scene, hit=_with_peer_in(scene, az), served=others, reach=[*others, az]))
    if variant in ONE_WAY:
        x, y = variant[0], variant[1]
        pairs, said = frozenset({(scene.zone(x), scene.zone(y))}), f"AZ {y} can't hear AZ {x}"
    else:
        x, y = variant[-2], variant[-1]
        pairs, said = both_ways((scene.zone(x), scene.zone(y))), f"AZs {x} and {y} can't hear each other"
    return Act((Cut(tuple(sorted(pairs)), said),), expect(scene))


def _with_peer_in(scene: Scene, az: str) -> list[int]:
    return [number for number, shard in scene.shards.items() if az in {scene.az_of(h) for h in shard.peers() if h}]


DRILL = Drill(
    "partition", __doc__ or "", ("CL-03", "CL-07", "CL-10", "CL-12", "CL-16", "CL-48", "CL-50", "CL-72", "CL-74"),
    (WORST, *ISOLATED, *LINKS, *ONE_WAY, ALL), act, worst=lambda variant: variant == WORST,
)  # fmt: skip
