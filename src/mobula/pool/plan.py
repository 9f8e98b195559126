"""What is to be done for a pool, decided from what was seen of it. Pure: the agent acts, this module never does.

The rules:

* Nothing is done to a pool that is not ours, nor to a vdev that has lost more disks than its parity: no command could bring it back,
  and so many disks at once are rather a cable, or a folder that is gone.
* A disk that has failed without ZFS noticing is taken offline first, so that nothing more is written to it. ZFS refuses that where the
  data would be out of reach without it.
* Then the first spare that works takes its place; two failed disks get both spares at once, and ZFS fills both.
* A blank disk in a failed one's place goes in instead (it never needed a spare), or as well: then the spare comes back when it is full.
* A spare comes back as soon as the disk it stands for works again: ZFS does so by itself, mostly; what it has left is detached.
* A disk that was taken offline by hand, and looks well, stays so.

An in-place replacement has lines ``replacing-N``, a spare at work ``spare-N``, and one can be within the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mobula.pool.disks import Look
from mobula.pool.zpool_status import Node, Pool

BAD_STATES = frozenset({"UNAVAIL", "FAULTED", "REMOVED", "DEGRADED"})
"""of a disk: ZFS itself has given it up; DEGRADED is OpenZFS's word for one with too many errors, which still helps to fill a spare"""
UNUSABLE_STATES = frozenset({"UNAVAIL", "FAULTED", "SUSPENDED"})
"""of a pool: no command would come back"""
UNSEEN = Look(silent=True)


@dataclass(frozen=True)
class Action:
    """A command of zpool and the sentence that says why it is run."""

    argv: tuple[str, ...]
    why: str

    @property
    def text(self) -> str:
        return " ".join(self.argv)


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    what: str
    do: str


@dataclass(frozen=True)
class Wanted:
    """What the pool is to be like. `io_errors_max`: so many read and write errors are a failed disk."""

    owner: str
    folder: str
    spares: int
    io_errors_max: int


@dataclass
class Plan:
    """`actions` go in order. One that ZFS refuses does not keep the others back: ZFS would refuse those, too, if they were wrong now."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def plan(pool: Pool, owner: str, looks: Mapping[str, Look], wanted: Wanted) -> Plan:
    """`owner` is what the pool says of itself; `looks` are by path."""
    if owner != wanted.owner:
        finding = Finding(
            f"the pool {pool.name} belongs to {owner or 'nobody by name'}, not to {wanted.owner}: it is left alone",
            f"zfs get mobula:owner {pool.name}; if it is this host's, ./mobula up says what is in the way",
        )
        return Plan(findings=[finding])
    return _Planner(pool, looks, wanted).plan()


class _Planner:
    """One look at one pool. `_free`: spares that can still take a place."""

    def __init__(self, pool: Pool, looks: Mapping[str, Look], wanted: Wanted) -> None:
        self._pool = pool
        self._looks = looks
        self._wanted = wanted
        self._spares = {self._path(node) for node in pool.spares}
        free = [n for n in pool.spares if n.state == "AVAIL" and not self._failure(n) and not self._look(n).silent]
        in_use = sum(node.state == "INUSE" for node in pool.spares)
        self._free = free[: max(0, wanted.spares - in_use)]
        self._made = Plan()

    def plan(self) -> Plan:
        self._pool_findings()
        if self._pool.state not in UNUSABLE_STATES:
            for vdev in self._pool.vdevs:
                self._plan_vdev(vdev)
            for spare in self._pool.spares:
                self._plan_spare(spare)
        if self._pool.state != "ONLINE" and not self._made.findings and not self._made.actions:
            self._find(f"the pool {self._pool.name} is {self._pool.state}", f"zpool status {self._pool.name} says why")
        return self._made

    def _pool_findings(self) -> None:
        pool = self._pool
        if pool.state in UNUSABLE_STATES:
            self._find(
                f"the pool {pool.name} is {pool.state}: its objects can't be reached",
                f"put its disks back if they were taken out, then zpool clear {pool.name}; else ./mobula audit says what has lost a copy",
            )
        if pool.data_errors:
            self._find(
                f"the pool {pool.name} has data errors: {pool.data_errors}",
                f"zpool status -v {pool.name} names the files; ./mobula audit --read names their good copies",
            )
        if len(pool.spares) != self._wanted.spares:
            self._find(
                f"the pool {pool.name} has {len(pool.spares)} hot spares, wanted are {self._wanted.spares}",
                f"zpool status {pool.name}; zpool add {pool.name} spare <disk> for one that is missing",
            )

    def _plan_vdev(self, vdev: Node) -> None:
        places = vdev.children or (vdev,)
        lost = [leaf for place in places if not self._works(place) for leaf in place.leaves()]
        lost_places = sum(not self._works(place) for place in places)
        if lost_places > vdev.parity:
            self._find(
                f"{lost_places} disks of {vdev.name} in the pool {self._pool.name} have failed, it can do without {vdev.parity}: "
                f"{self._named(lost)}",
                "look for a cause that they share (cable, power, folder); nothing is done to them. What is really lost, "
                "./mobula audit names",
            )
            return
        for place in places:
            self._plan_place(place)

    def _plan_place(self, place: Node) -> None:
        leaves = list(place.leaves())
        mine = [leaf for leaf in leaves if self._path(leaf) not in self._spares]
        spares = [leaf for leaf in leaves if self._path(leaf) in self._spares]
        if len(mine) == 1 and not spares:
            self._plan_disk(mine[0])
        elif len(mine) == 1 and len(spares) == 1:
            self._plan_spared(mine[0], spares[0])
        elif mine:
            self._plan_replacing(mine)
        else:
            # Somebody made a spare a member for good, or ZFS is at something that we never begin.
            self._report(leaves)

    def _plan_disk(self, disk: Node) -> None:
        """A disk that no spare stands for."""
        why = self._failure(disk)
        if not why:
            self._report([disk])
            return
        failed = f"disk {disk.name} {why}"
        steps = self._offline(disk, failed)
        if self._fits(disk):
            steps.append(self._take_in(disk))
            self._find(f"{failed}; the new disk in its place is being taken in", "wait until it is resilvered")
        elif self._free:
            spare = self._free.pop(0)
            steps.append(self._action("replace", disk, spare, why=f"{failed}: spare {spare.name} takes its place"))
            self._find(f"{failed}; spare {spare.name} takes its place", "put a new disk in the place of the failed one")
        else:
            self._find(
                f"{failed} and no spare is left: the pool {self._pool.name} has less parity than it should",
                "put a new disk in the place of the failed one at once",
            )
        self._made.actions += steps

    def _plan_spared(self, disk: Node, spare: Node) -> None:
        """A disk with a spare beside it, which is at work or being filled."""
        if trouble := self._failure(spare):
            failed = f"spare {spare.name}, which stands for {disk.name}, {trouble}"
            steps = self._offline(spare, failed)
            steps.append(self._action("detach", spare, why=f"{failed}: it goes back to the spares"))
            self._made.actions += steps
            self._find(failed, "put new disks in the places of the failed ones")
            return
        why = self._failure(disk)
        if why and self._fits(disk):
            self._made.actions += [*self._offline(disk, f"disk {disk.name} {why}"), self._take_in(disk)]
            self._find(
                f"disk {disk.name} {why}; the new disk in its place is being taken in",
                f"wait until it is resilvered; then {spare.name} is a spare again",
            )
        elif why:
            self._made.actions += self._offline(disk, f"disk {disk.name} {why}")
            self._find(
                f"disk {disk.name} {why}; spare {spare.name} stands for it",
                "put a new disk in the place of the failed one",
            )
        elif disk.state == "ONLINE" and not self._resilvering(disk) and not self._look(disk).silent:
            back = self._action("detach", spare, why=f"disk {disk.name} works again: {spare.name} is a spare again")
            self._made.actions.append(back)
        else:
            self._report([disk])

    def _plan_replacing(self, mine: list[Node]) -> None:
        """A new disk is being filled. If it has failed as well, it is given up: the next look finds what is there then."""
        new = mine[-1]
        why = self._failure(new)
        if why:
            failed = f"disk {new.name}, which was being filled, {why}"
            self._made.actions += [
                *self._offline(new, failed),
                self._action("detach", new, why=f"{failed}: it is given up"),
            ]
            self._find(failed, "put another new disk in its place")
        else:
            self._find(f"disk {new.name} is being filled", "wait until it is resilvered")

    def _plan_spare(self, spare: Node) -> None:
        """A line below ``spares``; one in use is judged where it stands."""
        why = self._failure(spare)
        if spare.state == "INUSE" or not why:
            return
        if self._look(spare).blank:
            new = f"a blank disk lies in the place of spare {spare.name}: it becomes the spare"
            self._made.actions += [
                self._action("remove", spare, why=new),
                Action(("zpool", "add", self._pool.name, "spare", self._path(spare)), new),
            ]
        else:
            self._find(f"spare {spare.name} {why}", "put a new disk in its place")

    def _report(self, disks: Iterable[Node]) -> None:
        """Of disks that nothing is done to: what is nevertheless not as it should be."""
        for disk in disks:
            counts = {"read": disk.read_errors, "write": disk.write_errors, "checksum": disk.checksum_errors}
            errors = ", ".join(f"{count} {kind} errors" for kind, count in counts.items() if count)
            if disk.state not in {"ONLINE", ""}:
                self._find(
                    f"disk {disk.name} is {disk.state}, though it looks well",
                    f"zpool online {self._pool.name} {disk.name} if it was taken offline by hand",
                )
            elif errors:
                self._find(
                    f"disk {disk.name} had {errors}",
                    f"zpool clear {self._pool.name} {disk.name} if it is to stay; a new disk in its place if they come again",
                )
            elif self._look(disk).silent:
                self._find(
                    f"disk {disk.name} does not answer", "look at its cable and controller; see the kernel's log"
                )

    def _works(self, place: Node) -> bool:
        """One of the disks there has the data, as far as one can see. One that is being filled does not count against the vdev."""
        return any(leaf.state in {"ONLINE", "DEGRADED"} and not self._look_failure(leaf) for leaf in place.leaves())

    def _failure(self, disk: Node) -> str:
        """Why the disk has failed, in words that follow its name; empty if it has not."""
        if failure := self._look_failure(disk):
            return failure
        if disk.state in BAD_STATES:
            return f"is {disk.state}" + (f" ({disk.note})" if disk.note else "")
        errors = disk.read_errors + disk.write_errors
        return f"had {errors} read and write errors" if errors >= self._wanted.io_errors_max else ""

    def _look_failure(self, disk: Node) -> str:
        if disk.name.endswith("/old"):
            return "was replaced"  # another disk lies at its path now
        return self._look(disk).failure

    def _offline(self, disk: Node, failed: str) -> list[Action]:
        """Only what can't be read at all: one that merely errs may still help to fill the spare."""
        if disk.state not in {"ONLINE", "DEGRADED"} or not self._look_failure(disk):
            return []
        return [self._action("offline", disk, why=f"{failed}: nothing more is written to it")]

    def _take_in(self, disk: Node) -> Action:
        """A new disk lies where the failed one lay, which ZFS may know only by its number."""
        where = (self._path(disk),) if disk.name.isdigit() else ()
        why = f"a blank disk lies in the place of {disk.name}, which has failed"
        return Action(("zpool", "replace", self._pool.name, disk.name, *where), why)

    def _fits(self, disk: Node) -> bool:
        """A new disk lies there, as large as the smallest of the others."""
        look = self._look(disk)
        others = [
            seen.size_bytes for path, seen in self._looks.items() if not seen.failure and path != self._path(disk)
        ]
        return look.blank and look.size_bytes >= min((n for n in others if n), default=0)

    def _action(self, verb: str, *disks: Node, why: str) -> Action:
        return Action(("zpool", verb, self._pool.name, *(disk.name for disk in disks)), why)

    def _find(self, what: str, do: str) -> None:
        self._made.findings.append(Finding(what, do))

    def _path(self, disk: Node) -> str:
        return disk.path(self._wanted.folder)

    def _look(self, disk: Node) -> Look:
        return self._looks.get(self._path(disk), UNSEEN)

    def _resilvering(self, disk: Node) -> bool:
        """OpenZFS says ``(awaiting resilver)`` of a disk whose turn comes after the running one."""
        return (self._pool.scan.running and self._pool.scan.kind == "resilver") or disk.note.startswith("(")

    @staticmethod
    def _named(disks: Iterable[Node]) -> str:
        return ", ".join(disk.name for disk in disks)


def paths(pool: Pool, folder: str) -> Iterator[str]:
    """Of every disk of the pool, spares too, each once."""
    yield from dict.fromkeys(leaf.path(folder) for node in (*pool.vdevs, *pool.spares) for leaf in node.leaves())


def scrub_due(pool: Pool, made: Plan, last_s: float, now_s: float, every_s: float) -> bool:
    """Nothing else is going on or to be done, and the last scrub began long enough ago."""
    return (
        not made.actions and not pool.scan.running and pool.state not in UNUSABLE_STATES and now_s - last_s >= every_s
    )
