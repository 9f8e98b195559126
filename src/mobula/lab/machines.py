"""Machines of the lab: systemd-nspawn on an overlay over the base image, in a network namespace and cgroup of their own.

Who starts them is chosen by fact: on a host with cgroup v2 systemd does, each machine a transient service in its region's slice; on one
with v1 controllers beside an empty cgroup2 (and no systemd to ask) we do, in cgroups that we make.

A machine's state is looked at, never remembered: `absent` (no folder of ours), `stopped` (folder, no process), `running`.
Its folder carries a label naming region and host; a folder without it is not ours and is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mobula.core.job import TASKS_GROUP
from mobula.lab import network, topology
from mobula.lab.network import LabError, NotThere

CGROUP = Path("/sys/fs/cgroup")
SYSTEMD_BOOTED = Path("/run/systemd/system")
"""there on a host whose PID 1 is systemd"""
NSPAWN = Path("/run/systemd/nspawn")
"""where systemd-nspawn keeps things of running machines, in a folder a kind, by the machine's name"""
HYBRID = ("systemd", "unified", "memory", "cpu", "cpuacct", "pids", "blkio", "devices", "freezer")
SHARES_USUAL = 1024
"""of a v1 group on the processors"""
GONE_TIMEOUT_S = 15.0
BOOT_TIMEOUT_S = 120.0
# from signal.h: SIGRTMIN+3 tells a container's systemd to halt
HALT = signal.SIGRTMIN + 3


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is; `state_dir` is its region's, `image` the base image's root, `task_images` a folder that it sees as /images."""

    region: str
    cidr: str
    name: str
    zone: int
    address: str
    disks: int
    disk_size_bytes: int
    state_dir: Path
    image: Path
    task_images: Path | None = None

    @property
    def folder(self) -> Path:
        return self.state_dir / "machines" / self.name

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def cgroup(self) -> Path:
        """Its cgroup of the unified hierarchy."""
        if is_hybrid():
            return CGROUP / "unified" / f"mobula-{self.region}" / self.name
        return CGROUP / slice_of(self.region) / self.unit

    @property
    def unit(self) -> str:
        """The service of the host's systemd that it runs in (cgroup v2 only)."""
        return f"mobula-{self.name}.service"


def slice_of(region: str) -> str:
    """The slice of a region's machines. No dash: systemd would put it into a slice that all regions share, and nobody could remove."""
    return f"mobula_{region}.slice"


def is_hybrid() -> bool:
    """The host has v1 controllers beside an empty cgroup2 (else: cgroup v2 with systemd as PID 1)."""
    return (CGROUP / "unified").is_dir()


def label_of(folder: Path) -> dict[str, object] | None:
    """The label in a machine's folder; None if there is none that can be read."""
    try:
        label = json.loads((folder / "label.json").read_text())
    except (OSError, ValueError):
        return None
    return label if isinstance(label, dict) else None


def is_running(machine: Machine) -> bool:
    """Any of its processes lives."""
    return _is_populated(machine.cgroup)


def _is_populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def state_of(machine: Machine) -> str:
    """running, stopped or absent.

    Raises:
        LabError: the folder is another region's or nobody's.
    """
    if not machine.folder.exists():
        return "absent"
    label = label_of(machine.folder)
    if label is None:
        # Killed while it was made: our own folder, before the label was in it.
        return "absent"
    if (label.get("region"), label.get("name")) != (machine.region, machine.name):
        raise LabError(
            f"use {str(machine.folder)!r} for {machine.name}: its label says {label.get('name')!r} of region {label.get('region')!r}; "
            "move it away"
        )
    return "running" if is_running(machine) else "stopped"


def ensure(machine: Machine) -> None:
    """Make the machine if it is absent, start it if it is stopped, wait until its sshd greets.

    Raises:
        LabError: what could not be done.
    """
    state = state_of(machine)
    if state == "absent":
        _make(machine)
    _make_disks(machine)
    network.ensure(topology.of_host(machine.region, machine.cidr, machine.name, machine.zone, machine.address))
    if state != "running":
        _start(machine)
    network.wait_for_banner(f"{machine.region}-op", machine.address, BOOT_TIMEOUT_S)


def _make(machine: Machine) -> None:
    for name in ("upper", "work", "root", "disks"):
        (machine.folder / name).mkdir(parents=True, exist_ok=True)
    _mount(machine)
    secrets, root = machine.state_dir / "secrets", machine.root
    _write(root / "etc/hostname", f"{machine.name}\n")
    _write(root / "etc/machine-id", hashlib.md5(machine.name.encode(), usedforsecurity=False).hexdigest() + "\n")
    _write(root / "etc/mobula-machine", f"{machine.region} {machine.name}\n")
    _write(root / "root/.ssh/authorized_keys", (secrets / "ssh.key.pub").read_text(), mode=0o600)
    _write(root / "etc/ssh/ssh_host_ed25519_key", (secrets / "ssh-hosts.key").read_text(), mode=0o600)
    _write(root / "etc/ssh/ssh_host_ed25519_key.pub", (secrets / "ssh-hosts.key.pub").read_text())
    (root / "disks").mkdir(exist_ok=True)
    # Last: what has a label is whole.
    label = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(machine).items()}
    _write(machine.folder / "label.json", json.dumps(label))


def missing_disks(machine: Machine) -> list[str]:
    """Names of its disks that are gone or not of their size."""
    disks = {f"d{number:02}": machine.folder / "disks" / f"d{number:02}" for number in range(1, machine.disks + 1)}
    return [
        name for name, path in disks.items() if not path.is_file() or path.stat().st_size != machine.disk_size_bytes
    ]


def _make_disks(machine: Machine) -> None:
    """New blank disks in the places of missing ones."""
    for name in missing_disks(machine):
        disk = machine.folder / "disks" / name
        new = disk.with_suffix(".new")
        with new.open("wb") as handle:
            handle.truncate(machine.disk_size_bytes)
        new.rename(disk)  # another disk, as in a real bay: who has the old one open keeps that


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if path.parent.name == ".ssh" else 0o755)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)


def _mount(machine: Machine) -> None:
    if not machine.root.is_mount():
        layers = f"lowerdir={machine.image},upperdir={machine.folder / 'upper'},workdir={machine.folder / 'work'}"
        network.run(["mount", "-t", "overlay", f"mobula-{machine.name}", "-o", layers, str(machine.root)])


def _start(machine: Machine) -> None:
    _mount(machine)
    _remove_remains(machine)
    nspawn = [
        "systemd-nspawn", "--quiet", f"--directory={machine.root}", "--register=no", "--keep-unit", f"--machine={machine.name}",
        f"--network-namespace-path={network.NETNS / machine.name}", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
        "--console=pipe", "--bind=/dev/fuse", f"--bind={machine.folder / 'disks'}:/disks", "--kill-signal=SIGRTMIN+3",
        "--system-call-filter=@keyring acct", "--capability=CAP_NET_ADMIN,CAP_SYS_PACCT",
        *([f"--bind-ro={machine.task_images}:/images"] if machine.task_images else []), "/sbin/lab-init",
    ]  # fmt: skip
    if is_hybrid():
        path = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
        with console_of(machine).open("ab") as console:
            bind = f"--bind={_tasks_of(machine.region) / machine.name}:/lab/cpu/{TASKS_GROUP}"
            _start_hybrid(machine, [*nspawn[:-1], bind, nspawn[-1]], path, console.fileno())
    else:
        _start_unit(machine, nspawn)


def console_of(machine: Machine) -> Path:
    """What the machine and its launcher said."""
    return machine.folder / "console.log"


def _unit_argv(machine: Machine) -> list[str]:
    properties = (
        "Delegate=yes",  # the machine's own systemd makes cgroups, with limits in them, below the unit's
        "TasksMax=infinity",  # else 15 % of the host's, of which the machine's systemd gives each service 15 %
        "KillMode=mixed",  # the host shuts down: nspawn is told to, and halts the machine in order
        f"RequiresMountsFor={machine.root}",  # and before its root is unmounted
        f"StandardOutput=append:{console_of(machine)}", f"StandardError=append:{console_of(machine)}",
    )  # fmt: skip
    return [
        # Type notify: a machine that can't be started is an error at once, not a banner that never comes.
        "systemd-run", "--quiet", "--collect", f"--unit={machine.unit}", f"--slice={slice_of(machine.region)}",
        f"--description=Mobula machine {machine.name}", "--service-type=notify", *(f"--property={p}" for p in properties),
    ]  # fmt: skip


def _start_unit(machine: Machine, nspawn: list[str]) -> None:
    done = subprocess.run([*_unit_argv(machine), *nspawn], check=False, capture_output=True, text=True)
    if done.returncode:
        console = console_of(machine)
        said = [
            *done.stderr.splitlines(),
            *(console.read_text(errors="replace").splitlines() if console.exists() else []),
        ]
        raise LabError(f"start {machine.name}: {said[-1] if said else 'no message'}")


def _start_hybrid(machine: Machine, nspawn: list[str], env: dict[str, str], console: int) -> None:
    *groups, tasks = [group / machine.name for group in groups_of(machine.region)]
    for group in (*groups, tasks):
        group.mkdir(parents=True, exist_ok=True)
    (tasks.parent / "cpu.idle").write_text("1")
    _weigh(CGROUP / "cpu" / f"mobula-{machine.region}")
    # systemd 257 refuses v1 unless it is forced; in unified mode its limits would be silently ignored on such a host.
    legacy = ["systemd.unified_cgroup_hierarchy=0", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
    join = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'
    subprocess.Popen(
        ["sh", "-c", join, "sh", *map(str, groups), "--", *nspawn, *legacy],
        env={**env, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"}, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        start_new_session=True,
    )  # fmt: skip


def groups_of(region: str) -> list[Path]:
    """Its v1 control groups, one of each kind, and, last, that of its tasks."""
    return [*(CGROUP / kind / f"mobula-{region}" for kind in HYBRID), _tasks_of(region)]


def _tasks_of(region: str) -> Path:
    """Where all tasks have their processors: beside everything of the host, not in their machines' groups. Elsewhere each machine has
    processors of its own, and its tasks take nothing from another one's services; here all share the host's.
    """
    return CGROUP / "cpu" / f"mobula-{region}.tasks"


def _weigh(region: Path) -> None:
    """Four machines of a region count for as much as one of the host's processes.

    Of the usual weight all of it would count for one, and lose its leases beside a test suite; of a weight for each machine it would
    hold up the clients of a drill, which are processes of the host.
    """
    machines = sum(path.is_dir() for path in region.iterdir())
    (region / "cpu.shares").write_text(str(max(SHARES_USUAL, SHARES_USUAL * machines // 4)))


def _remove_remains(machine: Machine) -> None:
    """What a killed machine leaves, so that it can start again: booted into old cgroups it would be degraded."""
    if is_hybrid():
        for group in groups_of(machine.region):
            remove_cgroup(group / machine.name)
    else:
        # Its processes are gone; this waits until systemd knows, has removed the cgroups, and gives the unit's name away again.
        subprocess.run(["systemctl", "stop", machine.unit], check=False, capture_output=True)
    forget_nspawn(machine.name)


def forget_nspawn(pattern: str) -> None:
    """Remove what systemd-nspawn keeps of machines of that name (a glob) and leaves behind when it is killed.

    Since version 257 it refuses a name whose mount below `unix-export` is still there.
    """
    for path in NSPAWN.glob(f"*/{pattern}"):
        unmount(path)
        with contextlib.suppress(OSError):
            path.rmdir()


def remove_cgroup(group: Path) -> None:
    """Remove an empty cgroup tree; what is still busy stays."""
    for path, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def _wait_gone(machine: Machine) -> None:
    network.wait_until(lambda: not is_running(machine), GONE_TIMEOUT_S, f"stop {machine.name}")


def leader_of(machine: Machine) -> int | None:
    """Process id (the host's) of the machine's own PID 1."""
    for pid in _processes(machine.cgroup):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd-nspawn":
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                return int(children[0]) if children else None
    return None


def _processes(group: Path) -> Iterator[int]:
    for path, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            yield from map(int, (Path(path) / "cgroup.procs").read_text().split())


def stop(machine: Machine) -> None:
    """Shut down in order; pulls the plug if that takes too long."""
    freeze(machine, frozen=False)
    leader = leader_of(machine)
    if leader is not None:
        os.kill(leader, HALT)
    try:
        _wait_gone(machine)
    except LabError:
        kill(machine)
    _remove_remains(machine)


def power_off(machine: Machine) -> None:
    """Pull the plug: first the network (killing alone would send FIN and RST, and the namespace would answer pings), then all processes."""
    port = topology.port_name(machine.name)
    subprocess.run(
        ["ip", "-n", f"{machine.region}-r{machine.zone}", "link", "set", port, "down"], check=False, capture_output=True
    )
    kill(machine)


def kill(machine: Machine) -> None:
    """End all processes of the machine at once."""
    kill_cgroup(machine.cgroup, GONE_TIMEOUT_S, f"stop {machine.name}")
    _remove_remains(machine)


def kill_cgroup(group: Path, timeout_s: float, what: str) -> None:
    """End all processes of a cgroup, if there is one, and wait until they are gone."""
    # The host's systemd removes an empty cgroup when it likes, also between two of our steps; the wait says whether it worked.
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    network.wait_until(lambda: not _is_populated(group), timeout_s, what)


def is_frozen(machine: Machine) -> bool:
    """Every process of the machine stands still: the kernel has frozen it, or it waits in the kernel for another one that is frozen.

    So do those that read from zfs-fuse: they are not at a point at which they can be frozen, and the group is not called frozen then.
    """
    try:
        if "frozen 1" in (machine.cgroup / "cgroup.events").read_text():
            return True
        asked_for = (machine.cgroup / "cgroup.freeze").read_text().strip() == "1"
    except OSError:
        return False
    return asked_for and not any(_runs(task) for task in _tasks(machine.cgroup))


def _tasks(group: Path) -> Iterator[int]:
    for file in group.glob("**/cgroup.threads"):
        with contextlib.suppress(OSError):  # a group, or a thread's group, that has just gone
            yield from map(int, file.read_text().split())


def _runs(task: int) -> bool:
    """It has a processor, or waits for one."""
    try:
        return Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False


def freeze(machine: Machine, *, frozen: bool) -> None:
    """Stop or let go on every process of the machine; it stays alive to the kernel."""
    with contextlib.suppress(FileNotFoundError):
        (machine.cgroup / "cgroup.freeze").write_text("1" if frozen else "0")


def remove(machine: Machine) -> None:
    """Everything of the machine: processes, mount, folder with its disks, namespace, cgroups."""
    kill(machine)
    unmount(machine.root)
    shutil.rmtree(machine.folder, ignore_errors=True)
    network.remove_namespaces(machine.name)


def unmount(root: Path) -> None:
    """Unmount what is mounted there, and again while crashes have stacked it."""
    while root.is_mount():
        network.run(["umount", "--lazy", str(root)])


def load(state_dir: Path, name: str) -> Machine:
    """The machine of that name, from its label.

    Raises:
        NotThere: there is none.
    """
    label = label_of(state_dir / "machines" / name)
    if label is None:
        known = ", ".join(sorted(p.name for p in (state_dir / "machines").glob("*"))) or "no machines"
        raise NotThere(f"find machine {name!r}: there is {known}")
    paths = {name: Path(str(label[name])) for name in ("state_dir", "image", "task_images") if label.get(name)}
    return Machine(**{**label, **paths})  # type: ignore[arg-type]
