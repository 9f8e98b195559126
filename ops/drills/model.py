"""What a drill is: a value. What it does is in `faults`, what came of it in `findings` and the checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mobula.lab.faults import PUB
from ops.drills.fault import Fault
from ops.errors import BadInput
from ops.region import Host

HOLD_S = 30.0
BACK_S = 10.0
"""the longest that reads and writes may be away, after the loss of anything"""
UNTOUCHED_S = 3.0
"""the longest pause on a shard that was not hit: a request's time, and a loadbalancer that is gone"""
NEVER = None
"""no service is expected before the fault is healed"""
PUB_CLIENTS = "pub"


@dataclass(frozen=True, slots=True)
class Shard:
    """Who is what on a shard; empty: nobody."""

    primary: str
    sync: str
    asynchronous: str

    def peers(self) -> tuple[str, str, str]:
        return (self.primary, self.sync, self.asynchronous)


VDEVS, SPARES = 3, 2
"""of a storage host's pool"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A region as a drill finds it."""

    hosts: Mapping[str, Host]
    zones: Mapping[str, int]
    shards: Mapping[int, Shard]
    zookeeper_leader: str
    known: tuple[str, ...] = ()
    """paths of the drill's own objects that stay as they are: whoever spoils copies spoils theirs, and nobody else's"""
    cold: tuple[str, ...] = ()
    """likewise, and nobody reads them before the end"""

    def az_of(self, host: str) -> str:
        return self.hosts[host].az

    def of_az(self, az: str) -> tuple[str, ...]:
        """All hosts of an AZ."""
        return tuple(sorted(name for name, host in self.hosts.items() if host.az == az))

    def pool(self, pool: str, az: str | None = None) -> tuple[str, ...]:
        """The hosts of a pool, or those of them in one AZ."""
        return tuple(sorted(n for n, h in self.hosts.items() if h.pool == pool and az in (None, h.az)))

    def vdevs(self, host: str) -> list[list[str]]:
        """The disks of a storage host's pool, by vdev; its last ones are spares."""
        names = [f"d{number:02}" for number in range(1, self.hosts[host].disks + 1)]
        width = (len(names) - SPARES) // VDEVS
        return [names[n * width : (n + 1) * width] for n in range(VDEVS)]

    def zone(self, az: str) -> int:
        """An AZ's number, `PUB` for the internet."""
        return PUB if az == PUB_CLIENTS else self.zones[az]

    @property
    def clients(self) -> tuple[str, ...]:
        """Where clients are: the AZs, and the internet."""
        return (*sorted(self.zones), PUB_CLIENTS)


@dataclass(frozen=True, slots=True)
class Expect:
    """Said before the run. Seconds: the longest pause of reads, of writes, by shard; `NEVER`: only after healing.

    `served`: clients for whom these hold. `reach`: clients that reach anything at all (a loadbalancer), and so have to be asked.
    """

    reads: Mapping[int, float | None]
    writes: Mapping[int, float | None]
    served: tuple[str, ...]
    reach: tuple[str, ...]
    forbidden: tuple[tuple[int, bool], ...] = ()
    """(shard, whether writes): what must not succeed while the fault holds, as nobody could vouch for it"""
    takeovers_max: int | None = None
    """how often another peer may become primary of a shard while the fault holds; None: nothing is said of it"""


def expect(
    scene: Scene,
    *,
    hit: Sequence[int] | None = None,
    served: Sequence[str] | None = None,
    reach: Sequence[str] | None = None,
    takeovers_max: int | None = None,
) -> Expect:
    """Service is back within `BACK_S` on the shards that were hit (None: all), and never away on the others."""
    bounds = {shard: BACK_S if hit is None or shard in hit else UNTOUCHED_S for shard in scene.shards}
    served = tuple(served if served is not None else scene.clients)
    return Expect(bounds, bounds, served, tuple(reach if reach is not None else served), takeovers_max=takeovers_max)


@dataclass(frozen=True, slots=True)
class Act:
    """One run of a drill: its faults, done in this order, and what is expected."""

    faults: tuple[Fault, ...]
    expect: Expect
    pauses_s: tuple[float, ...] = ()
    """seconds to wait before each fault after the first; none: at once"""
    bulk: tuple[tuple[int, int], ...] = ()
    """(from, to) of AZs: bulk transfers while the faults hold, that take what the links have left"""


@dataclass(frozen=True, slots=True)
class Drill:
    """A rehearsal. `runbook`: when to run it, what it proves, what one sees. `variants`: what `--variant` takes, the first by default.

    `worst`: move the primaries of all shards, and ZooKeeper's leader, to one AZ before.
    """

    name: str
    runbook: str
    claims: tuple[str, ...]
    variants: tuple[str, ...]
    act: Callable[[Scene, str], Act]
    hold_s: float = HOLD_S
    worst: Callable[[str], bool] = field(default=lambda _variant: False)
    repairs: Callable[[Scene, str], tuple[str, ...]] = field(default=lambda _scene, _variant: ())
    """storage hosts whose pools are lost, and have to be declared so after healing"""
    cold: bool = False
    """it needs objects that nobody reads before the end; one that repairs has them anyway"""
    jobs: bool = False
    """a job runs meanwhile (O7)"""

    def variant(self, wanted: str | None) -> str:
        """The variant of that name.

        Raises:
            BadInput: there is none.
        """
        if wanted is None:
            return self.variants[0]
        if wanted not in self.variants:
            raise BadInput(f"run drill {self.name!r} as {wanted!r}: it has the variants {', '.join(self.variants)}")
        return wanted
