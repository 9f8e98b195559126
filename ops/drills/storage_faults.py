"""Faults of disks, pools and copies on storage hosts (F9 to F12)."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import ClassVar

import msgspec

from mobula.lab import faults, machines
from mobula.lab.network import LabError, NotThere, wait_until
from mobula.pool.zpool_status import NotUnderstood, Pool, parse_status
from ops.accounts import Administration
from ops.drills.client import known_body
from ops.drills.fault import SSH_S, Fault, each, existing, remote_of
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region

SPARES_IN_S = 120.0
POOL, DATASET, DATA_DIR, DISKS = "tank", "tank/objects", "/tank/objects", "/disks"
ON_STORAGE_S = 60.0
UNAIDED_S = 120.0
"""until a copy that clients read was read, told by its server (15 s) and copied anew"""
ON_DISK_S = 60.0
"""until what was acknowledged is in its place on the disks"""
MENDED_S = 180.0
ANY_GROUP = 0
LOOK_AGAIN_S = 3.0
FILLED_PERCENT_MIN = 92
"""from here on an object server takes nothing"""
ROT, FILL = ((Path(__file__).parent / f"{name}_on_host.py").read_text() for name in ("rot", "fill"))


class FailDisks(Fault, frozen=True, tag="fail-disks"):
    """Disks of a storage host that read and write no more (F9). Healed: new, blank ones are in their places."""

    host: str
    disks: tuple[str, ...]

    def text(self) -> str:
        return f"failed: {', '.join(self.disks)} of {self.host}"

    def inject(self, region: Region) -> None:
        for disk in self.disks:
            faults.fail_disk(region.state_dir, self.host, disk)

    def heal(self, region: Region) -> None:
        each(existing(region, (self.host,)), lambda host: machines.ensure(machines.load(region.state_dir, host)))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        folder = machines.load(region.state_dir, self.host).folder / "disks"
        dead = [disk for disk in self.disks if not (folder / disk).stat().st_size]
        return [(f"{len(dead)} of {len(self.disks)} disks held nothing at the end", len(dead) == len(self.disks))]


class LosePool(Fault, frozen=True, tag="lose-pool"):
    """A storage host burns down, with all its disks (F10). Healed by `up`: a new machine with an empty pool."""

    host: str

    def text(self) -> str:
        return f"gone with its pool: {self.host}"

    def inject(self, region: Region) -> None:
        with contextlib.suppress(NotThere):
            machines.remove(machines.load(region.state_dir, self.host))

    def heal(self, region: Region) -> None:
        from ops import provision  # noqa: PLC0415 (Ansible and Terraform: for this fault only)

        provision.up(region, None, Progress(quiet=True))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        return [(f"{self.host} and its disks did not exist", not (region.state_dir / "machines" / self.host).exists())]


class _Copies(msgspec.Struct, frozen=True):
    """What `rot_on_host.py` says."""

    right: int
    wrong: tuple[str, ...]
    aside: int
    missing: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Every one is right, or was never there."""
        return not self.wrong and not self.missing


class _Room(msgspec.Struct, frozen=True):
    """What `fill_on_host.py` says."""

    filled_percent: int
    younger: int = 0


# Made here, by one thread: msgspec crashes when several are the first to decode a type.
_READ_COPIES, _READ_ROOM = msgspec.json.Decoder(_Copies), msgspec.json.Decoder(_Room)


class RotFiles(Fault, frozen=True, tag="rot-files"):
    """Wrong bytes in copies on a storage host, above ZFS (F11): of the drill's own objects, known by their bodies' MD5, and of no others.

    What clients read (`known`) is put aside, and comes back from another copy, by itself. What nobody reads (`cold`) is found when the
    object server verifies its files, of which a round may take hours: healing has it mended, as an operator does after an audit that
    reads. What was put aside is removed then: a server would take it for missing once the objects are gone.
    """

    mends: ClassVar[str] = "what clients read is right again"

    host: str
    known: tuple[str, ...]
    cold: tuple[str, ...] = ()

    def text(self) -> str:
        return f"wrong bytes in the files that {self.host} has of {len(self.known) + len(self.cold)} objects"

    def inject(self, region: Region) -> None:
        found = self._do(region, "spoil")
        if not (found.wrong or found.aside):
            raise OperatorError(f"spoil copies on {self.host}: it has none of the drill's objects")

    def heal(self, region: Region) -> None:
        if not existing(region, (self.host,)):
            return
        try:
            found = self._do(region, "look")
            if copies := [(self.host, copy, ANY_GROUP) for copy in (*found.wrong, *found.missing)]:
                Administration(region).call("mend", {"copies": copies})
            what = f"wait until {len(copies)} copies on {self.host} are mended"
            wait_until(lambda: self._do(region, "look").whole, MENDED_S, what, every_s=LOOK_AGAIN_S)
        finally:
            self._do(region, "sweep")

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        found = self._do(region, "look")
        said = f"{found.aside} copies had wrong bytes and were put aside, {len(found.wrong)} have them still"
        return [(said, found.aside + len(found.wrong) > 0)]

    def unaided(self, region: Region) -> list[str]:
        what = f"the copies on {self.host} that clients read did not become right by themselves"
        try:
            wait_until(lambda: self._do(region, "look", self.known).whole, UNAIDED_S, what, every_s=LOOK_AGAIN_S)
        except LabError as error:
            return [str(error)]
        return []

    def _do(self, region: Region, verb: str, objects: tuple[str, ...] = ()) -> _Copies:
        bodies = [known_body(path) for path in objects or (*self.known, *self.cold)]
        names = [f"{len(body)}.{hashlib.md5(body, usedforsecurity=False).hexdigest()}" for body in bodies]
        said = _on_storage(region, self.host, ROT, verb, DATA_DIR, stdin="\n".join(names))
        return _READ_COPIES.decode(said)


class RotDisk(Fault, frozen=True, tag="rot-disk"):
    """Wrong bytes on some disks of a storage host, below ZFS (F11): in sectors that hold the drill's own objects, and in no others.

    One disk of each vdev: ZFS writes some MiB to one before it goes on with the next, so all of the drill's objects may be in one.

    Then ZFS reads the whole pool, as its agent has it do every week, and mends from parity what it finds. Healed: that is over, and what
    ZFS has counted is cleared, as an operator does who has read it.
    """

    host: str
    disks: tuple[str, ...]
    objects: tuple[str, ...]

    def text(self) -> str:
        return f"wrong bytes on {self._named} of {self.host} where some of {len(self.objects)} objects lie"

    def inject(self, region: Region) -> None:
        what = f"spoil {self._named} of {self.host}, where none of the drill's {len(self.objects)} objects lies"
        try:
            wait_until(lambda: self._spoil(region) > 0, ON_DISK_S, what, every_s=LOOK_AGAIN_S)
        except LabError as error:
            raise OperatorError(str(error)) from error
        remote_of(region, self.host).run(["zpool", "scrub", POOL], timeout_s=SSH_S, check=False)  # or one runs already

    def heal(self, region: Region) -> None:
        if not existing(region, (self.host,)):
            return
        _wait_for_scan(region, self.host)
        if self._wrong(region):  # killed before the scrub, or another one was running
            remote_of(region, self.host).run(["zpool", "scrub", POOL], timeout_s=SSH_S)
            _wait_for_scan(region, self.host)
        for disk in self.disks:
            remote_of(region, self.host).run(["zpool", "clear", POOL, f"{DISKS}/{disk}"], timeout_s=SSH_S)

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        wrong = self._wrong(region)
        leaves = [leaf for vdev in _pool(region, self.host).vdevs for leaf in vdev.leaves()]
        spoiled = {f"{DISKS}/{disk}" for disk in self.disks}
        found = sum(leaf.checksum_errors for leaf in leaves if leaf.path(DISKS) in spoiled)
        said = f"ZFS found wrong bytes {found} times on {self._named}, {wrong} sectors have them still"
        return [(said, found + wrong > 0)]

    def left(self, region: Region) -> list[str]:
        wrong = self._wrong(region)
        return [f"{wrong} sectors of {self._named} of {self.host} are wrong after ZFS has read all"] if wrong else []

    def _spoil(self, region: Region) -> int:
        # What was acknowledged lately may be in a log only, the object server's or ZFS', for half a minute. Who changes a property, if only
        # to what it is, has ZFS write what it has by then.
        remote_of(region, self.host).run(["zfs", "inherit", "mobula:drill", DATASET], timeout_s=SSH_S)
        sectors = self._sectors()
        return sum(faults.spoil_sectors(region.state_dir, self.host, disk, sectors) for disk in self.disks)

    def _wrong(self, region: Region) -> int:
        spoiled = [faults.inverted(sector) for sector in self._sectors()]
        return sum(faults.count_sectors(region.state_dir, self.host, disk, spoiled) for disk in self.disks)

    @property
    def _named(self) -> str:
        return ", ".join(self.disks)

    def _sectors(self) -> list[bytes]:
        """The first sector of each object: only a file begins with one, and what ZFS' log or another file has of it lies elsewhere."""
        size = faults.SECTOR_BYTES
        return [known_body(path)[:size].ljust(size, b"\0") for path in self.objects]


class Full(Fault, frozen=True, tag="full"):
    """Storage hosts whose pools have no room left (F12)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"full: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: self._do(region, host, "fill"))

    def heal(self, region: Region) -> None:
        each(existing(region, self.hosts), lambda host: self._do(region, host, "empty"))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        filled = [self._do(region, host, "look").filled_percent for host in self.hosts]
        said = ", ".join(f"{host} was {percent} % full" for host, percent in zip(self.hosts, filled, strict=True))
        return [(f"{said} at the end", min(filled) >= FILLED_PERCENT_MIN)]

    def left(self, region: Region) -> list[str]:
        unused = [host for host in self.hosts if not self._do(region, host, "look").younger]
        return [f"{host} has room again and has taken no copy since" for host in unused]

    @staticmethod
    def _do(region: Region, host: str, verb: str) -> _Room:
        return _READ_ROOM.decode(_on_storage(region, host, FILL, verb, DATA_DIR, DATASET))


class SparesIn(Fault, frozen=True, tag="spares-in"):
    """No fault: the time until spares have all that was on a pool's failed disks, so that the next ones may fail.

    A spare that has come in is filled some seconds later, and until then the last resilver that ZFS tells of is another one's. So ZFS is
    made to read the pool: what a spare lacks is written to it on the way.
    """

    host: str
    count: int

    def text(self) -> str:
        return f"{self.count} spares of {self.host} are in and filled"

    def inject(self, region: Region) -> None:
        def are_in() -> bool:
            return remote.run(["zpool", "status", POOL], timeout_s=SSH_S).stdout.count("INUSE") == self.count

        def reads() -> bool:
            return (
                remote.run(["zpool", "scrub", POOL], timeout_s=SSH_S, check=False).exit_code == 0
            )  # refused by a resilver

        remote, what = remote_of(region, self.host), f"wait for {self.count} spares of {self.host} to"
        wait_until(are_in, SPARES_IN_S, f"{what} come in", every_s=LOOK_AGAIN_S)
        wait_until(reads, SPARES_IN_S, f"{what} be filled", every_s=LOOK_AGAIN_S)
        _wait_for_scan(region, self.host)


def _pool(region: Region, host: str) -> Pool:
    said = remote_of(region, host).run(["zpool", "status", POOL], timeout_s=SSH_S).stdout
    try:
        return parse_status(said, POOL)
    except NotUnderstood as error:
        raise OperatorError(f"look at the pool of {host}: {error}") from error


def _wait_for_scan(region: Region, host: str) -> None:
    what = f"wait until ZFS has read the pool of {host}"
    wait_until(lambda: not _pool(region, host).scan.running, MENDED_S, what, every_s=LOOK_AGAIN_S)


def _on_storage(region: Region, host: str, program: str, *argv: str, stdin: str = "") -> str:
    """What a program of ours says on a storage host."""
    return remote_of(region, host).run(["python3", "-c", program, *argv], stdin=stdin, timeout_s=ON_STORAGE_S).stdout
