"""Faults of machines, links and services (F1, F2, F4 to F8)."""

from __future__ import annotations

from mobula.lab import faults, machines
from ops.drills.fault import SSH_S, Fault, each, existing, remote_of, unit_of
from ops.region import Region

KILLED = "/run/mobula/drill-kill"
"""made right before a kill: whoever is older was not killed"""
BOOTING = 2
"""machines that start at a time: more would take the processors of those that work, which a real region's don't share"""


class Power(Fault, frozen=True, tag="power"):
    """Machines without power: peers see silence (F4). Of all hosts of an AZ: the loss of the AZ (F7)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"no power: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: machines.power_off(machines.load(region.state_dir, host)))

    def heal(self, region: Region) -> None:
        there = existing(region, self.hosts)
        each(there, lambda host: machines.ensure(machines.load(region.state_dir, host)), at_once=BOOTING)

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        running = [h for h in self.hosts if machines.is_running(machines.load(region.state_dir, h))]
        return [(f"{len(self.hosts) - len(running)} of {len(self.hosts)} machines were gone at the end", not running)]


class Freeze(Fault, frozen=True, tag="freeze"):
    """Machines that stand still; their kernel answers (F5)."""

    hosts: tuple[str, ...]

    def text(self) -> str:
        return f"frozen: {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: machines.freeze(machines.load(region.state_dir, host), frozen=True))

    def heal(self, region: Region) -> None:
        there = existing(region, self.hosts)
        each(there, lambda host: machines.freeze(machines.load(region.state_dir, host), frozen=False))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        frozen = all(machines.is_frozen(machines.load(region.state_dir, host)) for host in self.hosts)
        return [(f"{', '.join(self.hosts)} stood still until the end", frozen)]


class Cut(Fault, frozen=True, tag="cut"):
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


class Degrade(Fault, frozen=True, tag="degrade"):
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


class Kill(Fault, frozen=True, tag="kill"):
    """A service's main process ends without a word; systemd starts it again, which heals (F1)."""

    hosts: tuple[str, ...]
    service: str
    process: str = ""
    """name of the processes to end instead of the main one (the main one's children)"""

    def text(self) -> str:
        return f"killed: {self.process or self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: self._kill(region, host))

    def _kill(self, region: Region, host: str) -> None:
        remote_of(region, host).run(["touch", KILLED], timeout_s=SSH_S)
        _signal(region, host, self.service, "KILL", self.process)

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
        said = remote_of(region, host).run(["sh", "-c", ask], timeout_s=SSH_S, check=False).stdout
        word, *times = said.split() or [""]
        if word != "marked":
            return False  # nothing was done
        marked_s, now_s, *age_s = map(int, times)
        return not age_s or now_s - age_s[0] >= marked_s


class Pause(Fault, frozen=True, tag="pause"):
    """A service's main process is stopped by a signal and lives on without moving."""

    hosts: tuple[str, ...]
    service: str

    def text(self) -> str:
        return f"stopped by a signal: {self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: _signal(region, host, self.service, "STOP"))

    def heal(self, region: Region) -> None:
        each(existing(region, self.hosts), lambda host: _signal(region, host, self.service, "CONT"))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        states = [_state_of_main(region, host, self.service) for host in self.hosts]
        return [(f"the main process was in state {', '.join(states)} at the end", all(s == "T" for s in states))]


class Stop(Fault, frozen=True, tag="stop"):
    """A service that is stopped in order; its machine stays up (F2)."""

    hosts: tuple[str, ...]
    service: str

    def text(self) -> str:
        return f"stopped: {self.service} on {', '.join(self.hosts)}"

    def inject(self, region: Region) -> None:
        each(self.hosts, lambda host: _systemctl(region, host, "stop", self.service))

    def heal(self, region: Region) -> None:
        each(existing(region, self.hosts), lambda host: _systemctl(region, host, "start", self.service))

    def bit(self, region: Region) -> list[tuple[str, bool]]:
        states = [
            remote_of(region, host)
            .run(["systemctl", "is-active", unit_of(region, host, self.service)], timeout_s=SSH_S, check=False)
            .stdout.strip()
            for host in self.hosts
        ]
        return [(f"the service was {', '.join(sorted(set(states)))} until the end", "active" not in states)]


def _systemctl(region: Region, host: str, verb: str, service: str) -> None:
    remote_of(region, host).run(["systemctl", verb, unit_of(region, host, service)], timeout_s=60)


def _signal(region: Region, host: str, service: str, name: str, process: str = "") -> None:
    unit = unit_of(region, host, service)
    argv = ["systemctl", "kill", f"--signal={name}", "--kill-whom=main", unit]
    if process:
        argv = ["sh", "-c", f"kill -{name} $(pgrep -o -x {process})"]
    remote_of(region, host).run(argv, timeout_s=SSH_S)


def _main_pid(region: Region, host: str, service: str) -> str:
    """For a shell on the host."""
    return f"$(systemctl show --property=MainPID --value {unit_of(region, host, service)})"


def _state_of_main(region: Region, host: str, service: str) -> str:
    """The main process's state as /proc has it: R, S, D, T, ...; empty for none."""
    ask = f"ps -o state= -p {_main_pid(region, host, service)}"
    remote = remote_of(region, host)
    return remote.run(["sh", "-c", ask], timeout_s=SSH_S, check=False).stdout.strip()
