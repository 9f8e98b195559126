"""What a drill does to a region, as values: each can be written down before it is done, and healed by whoever reads it.

`inject` and `heal` are thin over `mobula.lab` and SSH; `heal` may be called for a fault that was injected by half, not at all, or by a
process that is gone, and for machines that are gone for good. `bit` says whether the fault did anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mobula.lab import faults, machines
from mobula.lab.network import LabError, NotThere, wait_until
from ops.catalog import services_of
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from ops.remote import SshRemote

SSH_S = 20.0
SPARES_IN_S = 120.0
KILLED = "/run/mobula/drill-kill"
"""made right before a kill: whoever is older was not killed"""
BOOTING = 2
"""machines that start at a time: more would take the processors of those that work, which a real region's don't share"""


def _each(hosts: Sequence[str], do: Callable[[str], None], *, at_once: int = 64) -> None:
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
        faults.cut(region.name, frozenset(self.deaf))

    def heal(self, region: Region) -> None:
        faults.heal(region.name, frozenset(self.deaf))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        standing, packets = faults.standing_cuts(region.name)
        whole = frozenset(self.deaf) <= standing
        return [(f"{packets} packets were dropped", whole and packets > 0)]


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
        said = (
            SshRemote(region, region.hosts[self.host].address).run(["zpool", "status", "tank"], timeout_s=SSH_S).stdout
        )
        return said.count("INUSE") == self.count and "resilver in progress" not in said


Fault = Power | Freeze | Cut | Kill | Pause | Stop | FailDisks | LosePool | SparesIn
_READ = msgspec.json.Decoder(list[Fault])


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
