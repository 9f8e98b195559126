"""What a drill does to a region, as values: each can be written down before it is done, and healed by whoever reads it.

`inject` and `heal` are thin over `mobula.lab` and SSH; `heal` may be called for a fault that was injected by half, not at all, or by a
process that is gone, and for machines that are gone for good. `bit` says whether the fault did anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mobula.lab import faults, machines
from mobula.lab.network import LabError, NotThere, wait_until
from mobula.pool.zpool_status import NotUnderstood, Pool, parse_status
from ops.accounts import Administration
from ops.catalog import services_of
from ops.drills.client import known_body
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from ops.remote import SshRemote

SSH_S = 20.0
SPARES_IN_S = 120.0
KILLED = "/run/mobula/drill-kill"
"""made right before a kill: whoever is older was not killed"""
POOL, DATASET, DATA_DIR, DISKS = "tank", "tank/objects", "/tank/objects", "/disks"
ON_STORAGE_S = 60.0
UNAIDED_S = 120.0
"""until a copy that clients read was read, told by its server (15 s) and copied anew"""
MENDED_S = 180.0
ANY_GROUP = 0
LOOK_AGAIN_S = 3.0
FILLED_PERCENT_MIN = 92
"""from here on an object server takes nothing"""
ROT, FILL = ((Path(__file__).parent / f"{name}_on_host.py").read_text() for name in ("rot", "fill"))
BOOTING = 2
"""machines that start at a time: more would take the processors of those that work, which a real region's don't share"""


def _each(hosts: Sequence[str], do: Callable[[str], object], *, at_once: int = 64) -> None:
    """For all hosts, by default at the same time; the first error is raised once all are done."""
    with ThreadPoolExecutor(max(1, min(at_once, len(hosts)))) as pool:
        for done in [pool.submit(do, host) for host in hosts]:
            done.result()


def _existing(region: Region, hosts: Iterable[str]) -> list[str]:
    """Those whose machines exist. Of one that is gone for good nothing is left to heal, and it must not stand in the way for ever."""
    found = []
    for host in hosts:
        with contextlib.suppress(NotThere):
            machines.load(region.state_dir, host)
            found.append(host)
    return found


class Power(msgspec.Struct, frozen=True, tag="power"):
    """Machines without power: peers see silence (F4). Of all hosts of an AZ: the loss of the AZ (F7)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"no power: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: machines.power_off(machines.load(region.state_dir, host)))

    def heal(self, region: Region) -> None:
        there = _existing(region, self.hosts)
        _each(there, lambda host: machines.ensure(machines.load(region.state_dir, host)), at_once=BOOTING)

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        running = [h for h in self.hosts if machines.is_running(machines.load(region.state_dir, h))]
        return [(f"{len(self.hosts) - len(running)} of {len(self.hosts)} machines were gone at the end", not running)]


class Freeze(msgspec.Struct, frozen=True, tag="freeze"):
    """Machines that stand still; their kernel answers (F5)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"frozen: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: machines.freeze(machines.load(region.state_dir, host), frozen=True))

    def heal(self, region: Region) -> None:
        there = _existing(region, self.hosts)
        _each(there, lambda host: machines.freeze(machines.load(region.state_dir, host), frozen=False))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        frozen = all(machines.is_frozen(machines.load(region.state_dir, host)) for host in self.hosts)
        return [(f"{', '.join(self.hosts)} stood still until the end", frozen)]


class Cut(msgspec.Struct, frozen=True, tag="cut"):
    """AZs that don't hear each other; 0 is the internet (F6, F7). One way: one pair of two."""

    deaf: tuple[tuple[int, int], ...]
    said: str

    def text(self) -> str:
        return self.said

    def inject(self, region: Region) -> None:
        faults.drop(region.name, self._drops())

    def heal(self, region: Region) -> None:
        faults.heal(region.name, self._drops())

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        return [_dropped(region, self._drops(), "were dropped")]

    def _drops(self) -> faults.Drops:
        return faults.cuts(frozenset(self.deaf))


class Degrade(msgspec.Struct, frozen=True, tag="degrade"):
    """Links that lose some packets of a hundred, or carry so many kbit/s in each direction, or both (F8). 0: not that."""

    ways: tuple[tuple[int, int], ...]
    loss_percent: int = 0
    kbit_per_s: int = 0

    def text(self) -> str:
        said = [f"{self.loss_percent} % of the packets are lost"] if self.loss_percent else []
        said += [f"{self.kbit_per_s:,} kbit/s are carried"] if self.kbit_per_s else []
        return f"on each of {len(self.ways)} ways between AZs {', '.join(said)}"

    def inject(self, region: Region) -> None:
        faults.drop(region.name, self._lost() | self._too_many())

    def heal(self, region: Region) -> None:
        faults.heal(region.name, self._lost() | self._too_many())

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        said = [(self._lost(), "were lost at random"), (self._too_many(), "were too many for the links")]
        return [_dropped(region, drops, what) for drops, what in said if drops]

    def _lost(self) -> faults.Drops:
        return faults.losses(frozenset(self.ways), self.loss_percent) if self.loss_percent else frozenset()

    def _too_many(self) -> faults.Drops:
        return faults.limits(frozenset(self.ways), self.kbit_per_s) if self.kbit_per_s else frozenset()


def _dropped(region: Region, drops: faults.Drops, what: str) -> tuple[str, bool]:
    """So many packets, and whether all of the drops stand and there were any."""
    standing = faults.standing_drops(region.name)
    packets = sum(standing.get(drop, 0) for drop in drops)
    return f"{packets} packets {what}", drops <= standing.keys() and packets > 0


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """A service's main process ends without a word; systemd starts it again (F1)."""

    hosts: tuple[str, ...]
    service: str
    process: str = ""
    """name of the processes to end instead of the main one (the main one's children)"""

    def text(self) -> str:
        return f"killed: {self.process or self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: self._kill(region, host))

    def _kill(self, region: Region, host: str) -> None:
        SshRemote(region, region.hosts[host].address).run(["touch", KILLED], timeout_s=SSH_S)
        _signal(region, host, self.service, "KILL", self.process)

    def heal(self, region: Region) -> None:
        """Systemd does."""

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        alive = [host for host in self.hosts if not self._is_another(region, host)]
        return [
            (
                f"on {len(self.hosts) - len(alive)} of {len(self.hosts)} hosts it is another process than before",
                not alive,
            )
        ]

    def _is_another(self, region: Region, host: str) -> bool:
        """The process began after the mark that was made before the kill, or there is none."""
        pid = f"$(pgrep -o -x {self.process})" if self.process else _main_pid(region, host, self.service)
        ask = f"stat -c 'marked %Y' {KILLED} && date +%s && ps -o etimes= -p {pid}"
        said = SshRemote(region, region.hosts[host].address).run(["sh", "-c", ask], timeout_s=SSH_S, check=False).stdout
        word, *times = said.split() or [""]
        if word != "marked":
            return False  # nothing was done
        marked_s, now_s, *age_s = map(int, times)
        return not age_s or now_s - age_s[0] >= marked_s


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """A service's main process is stopped by a signal and lives on without moving."""

    hosts: tuple[str, ...]
    service: str

    def text(self) -> str:
        return f"stopped by a signal: {self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: _signal(region, host, self.service, "STOP"))

    def heal(self, region: Region) -> None:
        _each(_existing(region, self.hosts), lambda host: _signal(region, host, self.service, "CONT"))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        states = [_state_of_main(region, host, self.service) for host in self.hosts]
        return [(f"the main process was in state {', '.join(states)} at the end", all(s == "T" for s in states))]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """A service that is stopped in order; its machine stays up (F2)."""

    hosts: tuple[str, ...]
    service: str

    def text(self) -> str:
        return f"stopped: {self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: _systemctl(region, host, "stop", self.service))

    def heal(self, region: Region) -> None:
        _each(_existing(region, self.hosts), lambda host: _systemctl(region, host, "start", self.service))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        states = [
            SshRemote(region, region.hosts[host].address)
            .run(["systemctl", "is-active", _unit(region, host, self.service)], timeout_s=SSH_S, check=False)
            .stdout.strip()
            for host in self.hosts
        ]
        return [(f"the service was {', '.join(sorted(set(states)))} until the end", "active" not in states)]


class FailDisks(msgspec.Struct, frozen=True, tag="fail-disks"):
    """Disks of a storage host that read and write no more (F9). Healed: new, blank ones are in their places."""

    host: str
    disks: tuple[str, ...]

    def text(self) -> str:
        return f"failed: {', '.join(self.disks)} of {self.host}"

    def inject(self, region: Region) -> None:
        for disk in self.disks:
            faults.fail_disk(region.state_dir, self.host, disk)

    def heal(self, region: Region) -> None:
        _each(_existing(region, (self.host,)), lambda host: machines.ensure(machines.load(region.state_dir, host)))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        folder = machines.load(region.state_dir, self.host).folder / "disks"
        dead = [disk for disk in self.disks if not (folder / disk).stat().st_size]
        return [(f"{len(dead)} of {len(self.disks)} disks held nothing at the end", len(dead) == len(self.disks))]


class LosePool(msgspec.Struct, frozen=True, tag="lose-pool"):
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


class RotFiles(msgspec.Struct, frozen=True, tag="rot-files"):
    """Wrong bytes in copies on a storage host, above ZFS (F11): of the drill's own objects, known by their bodies' MD5, and of no others.

    What clients read (`known`) is put aside, and comes back from another copy, by itself. What nobody reads (`cold`) is found when the
    object server verifies its files, of which a round may take hours: healing has it mended, as an operator does after an audit that
    reads. What was put aside is removed then: a server would take it for missing once the objects are gone.
    """

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
        if not _existing(region, (self.host,)):
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
        """What did not become right by itself of what clients read, while they go on."""
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


class RotDisk(msgspec.Struct, frozen=True, tag="rot-disk"):
    """Wrong bytes on one disk of a storage host, below ZFS (F11): in sectors that hold the drill's own objects, and in no others.

    Then ZFS reads the whole pool, as its agent has it do every week, and mends from parity what it finds. Healed: that is over, and what
    ZFS has counted is cleared, as an operator does who has read it.
    """

    host: str
    disk: str
    objects: tuple[str, ...]

    def text(self) -> str:
        return f"wrong bytes on {self.disk} of {self.host} where it has some of {len(self.objects)} objects"

    def inject(self, region: Region) -> None:
        # What was acknowledged lately may be in ZFS' log only, for half a minute. Who changes a property, if only to what it is, waits
        # until all is in its place.
        _remote(region, self.host).run(["zfs", "inherit", "mobula:drill", DATASET], timeout_s=SSH_S)
        if not faults.spoil_sectors(region.state_dir, self.host, self.disk, self._sectors()):
            raise OperatorError(
                f"spoil {self.disk} of {self.host}: it has none of the drill's {len(self.objects)} objects"
            )
        _remote(region, self.host).run(["zpool", "scrub", POOL], timeout_s=SSH_S, check=False)  # or one runs already

    def heal(self, region: Region) -> None:
        if not _existing(region, (self.host,)):
            return
        self._wait_for_scan(region)
        if self._wrong(region):  # killed before the scrub, or another one was running
            _remote(region, self.host).run(["zpool", "scrub", POOL], timeout_s=SSH_S)
            self._wait_for_scan(region)
        _remote(region, self.host).run(["zpool", "clear", POOL, f"{DISKS}/{self.disk}"], timeout_s=SSH_S)

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        wrong = self._wrong(region)
        leaves = [leaf for vdev in self._pool(region).vdevs for leaf in vdev.leaves()]
        found = sum(leaf.checksum_errors for leaf in leaves if leaf.path(DISKS) == f"{DISKS}/{self.disk}")
        said = f"ZFS found wrong bytes {found} times on {self.disk}, {wrong} sectors have them still"
        return [(said, found + wrong > 0)]

    def left(self, region: Region) -> list[str]:
        """What is not as it was, as long as the objects are there: what ZFS has not mended."""
        wrong = self._wrong(region)
        return [f"{wrong} sectors of {self.disk} of {self.host} are wrong after ZFS has read all"] if wrong else []

    def _wait_for_scan(self, region: Region) -> None:
        what = f"wait until ZFS has read the pool of {self.host}"
        wait_until(lambda: not self._pool(region).scan.running, MENDED_S, what, every_s=LOOK_AGAIN_S)

    def _pool(self, region: Region) -> Pool:
        said = _remote(region, self.host).run(["zpool", "status", POOL], timeout_s=SSH_S).stdout
        try:
            return parse_status(said, POOL)
        except NotUnderstood as error:
            raise OperatorError(f"look at the pool of {self.host}: {error}") from error

    def _wrong(self, region: Region) -> int:
        spoiled = [faults.inverted(sector) for sector in self._sectors()]
        return faults.count_sectors(region.state_dir, self.host, self.disk, spoiled)

    def _sectors(self) -> list[bytes]:
        """The first sector of each object: only a file begins with one, and what ZFS' log or another file has of it lies elsewhere."""
        size = faults.SECTOR_BYTES
        return [known_body(path)[:size].ljust(size, b"\0") for path in self.objects]


class Full(msgspec.Struct, frozen=True, tag="full"):
    """Storage hosts whose pools have no room left (F12)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"full: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        _each(self.hosts, lambda host: self._do(region, host, "fill"))

    def heal(self, region: Region) -> None:
        _each(_existing(region, self.hosts), lambda host: self._do(region, host, "empty"))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        filled = [self._do(region, host, "look").filled_percent for host in self.hosts]
        said = ", ".join(f"{host} was {percent} % full" for host, percent in zip(self.hosts, filled, strict=True))
        return [(f"{said} at the end", min(filled) >= FILLED_PERCENT_MIN)]

    def left(self, region: Region) -> list[str]:
        """What is not as it was, once the region is well and clients have written again."""
        unused = [host for host in self.hosts if not self._do(region, host, "look").younger]
        return [f"{host} has room again and has taken no copy since" for host in unused]

    @staticmethod
    def _do(region: Region, host: str, verb: str) -> _Room:
        return _READ_ROOM.decode(_on_storage(region, host, FILL, verb, DATA_DIR, DATASET))


class SparesIn(msgspec.Struct, frozen=True, tag="spares-in"):
    """No fault: the time until a pool's failed disks are replaced by spares, so that the next ones may fail."""

    host: str
    count: int

    def text(self) -> str:
        return f"{self.count} spares of {self.host} are in, nothing resilvers"

    def inject(self, region: Region) -> None:
        wait_until(lambda: self._are_in(region), SPARES_IN_S, f"wait for {self.count} spares of {self.host} to come in")

    def heal(self, region: Region) -> None:
        """There is nothing to heal."""

    def bit(self, region: Region) -> list[tuple[str, bool]]:  # noqa: ARG002 (the shape that all faults have)
        return []

    def _are_in(self, region: Region) -> bool:
        said = SshRemote(region, region.hosts[self.host].address).run(["zpool", "status", POOL], timeout_s=SSH_S).stdout
        return said.count("INUSE") == self.count and "resilver in progress" not in said


Fault = (
    Power | Freeze | Cut | Degrade | Kill | Pause | Stop | FailDisks | LosePool | RotFiles | RotDisk | Full | SparesIn
)
_READ = msgspec.json.Decoder(list[Fault])


def _remote(region: Region, host: str) -> SshRemote:
    return SshRemote(region, region.hosts[host].address)


def _on_storage(region: Region, host: str, program: str, *argv: str, stdin: str = "") -> str:
    """What a program of ours says on a storage host."""
    return _remote(region, host).run(["python3", "-c", program, *argv], stdin=stdin, timeout_s=ON_STORAGE_S).stdout


def _unit(region: Region, host: str, service: str) -> str:
    return {s.name: s.unit for s in services_of(region.hosts[host].pool)}[service]


def _systemctl(region: Region, host: str, verb: str, service: str) -> None:
    SshRemote(region, region.hosts[host].address).run(["systemctl", verb, _unit(region, host, service)], timeout_s=60)


def _signal(region: Region, host: str, service: str, name: str, process: str = "") -> None:
    unit = _unit(region, host, service)
    argv = ["systemctl", "kill", f"--signal={name}", "--kill-whom=main", unit]
    if process:
        argv = ["sh", "-c", f"kill -{name} $(pgrep -o -x {process})"]
    SshRemote(region, region.hosts[host].address).run(argv, timeout_s=SSH_S)


def _main_pid(region: Region, host: str, service: str) -> str:
    """For a shell on the host."""
    return f"$(systemctl show --property=MainPID --value {_unit(region, host, service)})"


def _state_of_main(region: Region, host: str, service: str) -> str:
    """The main process's state as /proc has it: R, S, D, T, ...; empty for none."""
    ask = f"ps -o state= -p {_main_pid(region, host, service)}"
    remote = SshRemote(region, region.hosts[host].address)
    return remote.run(["sh", "-c", ask], timeout_s=SSH_S, check=False).stdout.strip()


class Standing:
    """The faults that a drill has done or was about to do, on disk before they are: what is in it has to be healed."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._path: Path = region.state_dir / "drill" / "standing.json"

    def faults(self) -> list[Fault]:
        """What is noted. A file that can't be read is as bad as none: nothing is known, and `lab heal` looks for itself."""
        try:
            return _READ.decode(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return []

    def note(self, fault: Fault) -> None:
        """Before it is done.

        Raises:
            OperatorError: it can't be noted, and so must not be done.
        """
        try:
            self._write([*self.faults(), fault])
        except OSError as error:
            raise OperatorError(f"note {fault.text()!r} before it is done: {error}; see to the disk") from error

    def heal(self) -> list[str]:
        """Heal all, the last one first; answers what could not be healed, which stays noted."""
        left, troubles = [], []
        for fault in reversed(self.faults()):
            try:
                fault.heal(self._region)
            except Exception as error:  # noqa: BLE001 (whatever it is, as a host that is no more: the others are healed)
                left.append(fault)
                said = str(error) if isinstance(error, (LabError, OperatorError, OSError)) else repr(error)
                troubles.append(f"heal {fault.text()!r}: {said}")
        if not left and (unreadable := self._put_aside()):
            return [unreadable]
        try:
            self._write(list(reversed(left)))
        except OSError as error:
            troubles.append(f"note what stands: {error}; see to the disk")
        return troubles

    def _put_aside(self) -> str:
        """A note that can't be read is kept, out of the way: a sentence, the first time; "" of a good one, or none."""
        try:
            noted = self._path.read_bytes()
        except OSError:
            return ""
        try:
            _READ.decode(noted)
        except msgspec.MsgspecError as error:
            aside = self._path.with_suffix(".unreadable")
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            return (
                f"read what a drill left: {error}; it is in {str(aside)!r} now, ./mobula lab heal and ./mobula up mend"
            )
        return ""

    def _write(self, faults: Iterable[Fault]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        noted = list(faults)
        if not noted:
            self._path.unlink(missing_ok=True)
            return
        new = self._path.with_suffix(".new")
        with new.open("wb") as out:
            out.write(msgspec.json.encode(noted))
            out.flush()
            os.fsync(out.fileno())
        new.replace(self._path)
