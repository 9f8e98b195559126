"""One machine of the lab, from nothing to nothing, on a host with cgroup v2 and systemd as PID 1.

Each test goes on where the last one ended; the first failure ends them all.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mobula.lab import host, machines, network
from mobula.lab.machines import Machine
from mobula.lab.network import LabError
from tests.lifecycle import traces

REGION, CIDR = "try", "10.88.0.0/16"
STATE = Path("/var/lib/mobula") / REGION
MACHINE = Machine(
    region=REGION, cidr=CIDR, name="try-a-storage-01", zone=1, address="10.88.1.41", disks=2, disk_size_bytes=64 << 20,
    state_dir=STATE, image=Path("/srv/image"),
)  # fmt: skip
OTHER = replace(MACHINE, name="try-a-storage-02", address="10.88.1.42")
Measure = Callable[[str, object], None]


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout.strip()


def inside(command: str, machine: Machine = MACHINE) -> str:
    """What a command says that is run in the machine, over SSH from the management network."""
    return run(
        "nsenter", f"--net={network.NETNS / f'{REGION}-op'}", "ssh", "-i", str(STATE / "secrets/ssh.key"), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"root@{machine.address}",
        command,
    )  # fmt: skip


def greets(machine: Machine, within_s: float) -> bool:
    try:
        network.wait_for_banner(f"{REGION}-op", machine.address, within_s)
    except LabError:
        return False
    return True


def units() -> list[str]:
    """Everything of ours that systemd knows, also what failed."""
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "mobula*")
    return [unit for line in listed.splitlines() if (unit := line.split()[0]) != "mobula-test.service"]


def kept_by_nspawn() -> list[Path]:
    return list(machines.NSPAWN.glob(f"*/{REGION}-*"))


@pytest.fixture(scope="session")
def before() -> traces.Traces:
    # iproute2 makes the folder of named namespaces a mount at its first use, and keeps it.
    run("ip", "netns", "add", "first")
    run("ip", "netns", "del", "first")
    return traces.of_machine(REGION, STATE)


def test_the_host_is_as_users_have_them(before: traces.Traces) -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs"
    assert not machines.is_hybrid()
    assert not units()


def test_a_region_gets_its_networks(before: traces.Traces) -> None:
    secrets = STATE / "secrets"
    secrets.mkdir(parents=True)
    for name in ("ssh.key", "ssh-hosts.key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(secrets / name))
    host.ensure_sysctls(STATE.parent)
    network.ensure_region(REGION, CIDR, ["10.88.1.11"], ["10.88.1.81"])
    assert network.region_is_whole(REGION, CIDR)


def test_a_machine_is_made_and_its_sshd_greets() -> None:
    assert machines.state_of(MACHINE) == "absent"
    machines.ensure(MACHINE)
    assert machines.state_of(MACHINE) == "running"
    assert (
        run("systemctl", "show", "--property=ControlGroup", "--value", MACHINE.unit)
        == f"/{MACHINE.cgroup.relative_to(machines.CGROUP)}"
    )
    leader = machines.leader_of(MACHINE)
    assert leader
    assert Path(f"/proc/{leader}/comm").read_text() == "systemd\n"


def test_making_sure_of_it_again_changes_nothing() -> None:
    leader = machines.leader_of(MACHINE)
    machines.ensure(MACHINE)
    assert machines.leader_of(MACHINE) == leader


def test_its_systemd_runs_and_nothing_failed() -> None:
    deadline = time.monotonic() + 120
    while (state := inside("systemctl is-system-running || true")) == "starting" and time.monotonic() < deadline:
        time.sleep(1)
    assert state == "running", inside("systemctl --failed --no-legend --plain")
    assert inside("hostname") == MACHINE.name


EAT = "exec python3 -c 'b = []\nwhile len(b) < 30: b.append(bytearray(10 << 20)); print(len(b) * 10, flush=True)'"


def limited(properties: str, command: str, log: str) -> tuple[str, list[str]]:
    """How a service in the machine ended, and the lines it wrote."""
    quoted = command.replace("'", "'\\''")
    output = f"--property=StandardOutput=truncate:{log} --property=StandardError=null"
    ended = inside(f"systemd-run --quiet --wait {output} {properties} sh -c '{quoted}'; echo $?")
    return ended, inside(f"cat {log}").splitlines()


def test_a_limit_of_memory_in_it_holds(record_property: Measure) -> None:
    ended, lines = limited("--property=MemoryMax=infinity", EAT, "/run/free")
    assert (ended, lines[-1]) == ("0", "300")
    ended, lines = limited("--property=MemoryMax=80M --property=MemorySwapMax=0", EAT, "/run/bound")
    record_property("MB got of 80", lines[-1])
    assert ended != "0"
    assert 20 <= int(lines[-1]) <= 80
    assert machines.state_of(MACHINE) == "running"
    assert run("systemctl", "is-active", MACHINE.unit) == "active"


FORK = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i + 1)); echo $i; done"


def test_a_limit_of_processes_in_it_holds(record_property: Measure) -> None:
    ended, lines = limited("--property=TasksMax=infinity", FORK, "/run/free")
    assert lines[-1] == "60", (ended, lines)
    ended, lines = limited("--property=TasksMax=20", FORK, "/run/bound")
    record_property("processes got of 20", lines[-1])
    assert 10 <= int(lines[-1]) < 20


SPIN = """exec python3 -c 'from time import monotonic, process_time
began, used = monotonic(), process_time()
while monotonic() < began + 8: pass
print(process_time() - used)'"""


def test_a_limit_of_processor_time_in_it_holds(record_property: Measure) -> None:
    _, lines = limited("--property=CPUQuota=20%", SPIN, "/run/bound")
    record_property("seconds got of 8 at 20 %", lines[-1][:4])
    assert 0.1 < float(lines[-1]) < 2.5


def test_what_the_roles_need_of_the_kernel_is_there() -> None:
    inside("bwrap --unshare-all --ro-bind / / --dev /dev true")
    inside("nft add table inet t && nft delete table inet t")
    inside("exec 3<>/dev/fuse")


def test_zfs_makes_a_pool_of_its_disks() -> None:
    inside("systemd-run --quiet --unit=zfs-try --property=LimitMEMLOCK=infinity zfs-fuse --no-daemon")
    inside(
        "for i in $(seq 60); do zpool list >/dev/null 2>&1 && break; sleep 0.5; done; zpool create tank mirror /disks/d01 /disks/d02"
    )
    inside("echo kept >/tank/kept && sync -f /tank/kept && zpool list -H -o health tank | grep -x ONLINE")


def test_a_frozen_machine_is_silent_and_goes_on_when_thawed(record_property: Measure) -> None:
    began = time.monotonic()
    machines.freeze(MACHINE, frozen=True)
    network.wait_until(lambda: "frozen 1" in (MACHINE.cgroup / "cgroup.events").read_text(), 10, "freeze")
    record_property("frozen after", f"{time.monotonic() - began:.2f} s")
    assert not greets(MACHINE, 3)
    assert machines.state_of(MACHINE) == "running"
    run("systemctl", "daemon-reload")
    assert not greets(MACHINE, 2)
    machines.freeze(MACHINE, frozen=False)
    assert greets(MACHINE, 20)


def test_a_machine_without_power_is_silent_and_its_unit_gone(record_property: Measure) -> None:
    inside("echo kept >/var/lib/kept && sync")
    began = time.monotonic()
    machines.power_off(MACHINE)
    record_property("off after", f"{time.monotonic() - began:.2f} s")
    assert machines.state_of(MACHINE) == "stopped"
    assert machines.leader_of(MACHINE) is None
    assert not run("systemctl", "list-units", "--all", "--no-legend", MACHINE.unit)
    assert not kept_by_nspawn()


def test_it_starts_at_once_with_what_it_had_on_disk(record_property: Measure) -> None:
    began = time.monotonic()
    machines.ensure(MACHINE)
    record_property("back after", f"{time.monotonic() - began:.1f} s")
    assert inside("cat /var/lib/kept") == "kept"
    assert Path(MACHINE.folder / "disks/d01").stat().st_blocks > 0


def test_power_can_be_cut_in_the_middle_of_a_boot() -> None:
    for _ in range(3):
        machines.power_off(MACHINE)
        network.ensure(machines.topology.of_host(REGION, CIDR, MACHINE.name, MACHINE.zone, MACHINE.address))
        machines._start(MACHINE)
    assert greets(MACHINE, 120)


def test_it_stops_in_order(record_property: Measure) -> None:
    inside("systemd-run --quiet --unit=witness --property=ExecStop='/bin/touch /var/lib/in-order' sleep infinity")
    began = time.monotonic()
    machines.stop(MACHINE)
    record_property("stopped after", f"{time.monotonic() - began:.1f} s")
    assert machines.state_of(MACHINE) == "stopped"
    assert (MACHINE.root / "var/lib/in-order").exists()
    assert not run("systemctl", "list-units", "--all", "--no-legend", MACHINE.unit)


def test_it_stops_in_order_when_the_host_shuts_down() -> None:
    machines.ensure(MACHINE)
    inside("systemd-run --quiet --unit=witness --property=ExecStop='/bin/touch /var/lib/with-host' sleep infinity")
    run("systemctl", "stop", MACHINE.unit)  # as the host's systemd does then
    assert machines.state_of(MACHINE) == "stopped"
    assert (MACHINE.root / "var/lib/with-host").exists()


def test_one_that_cannot_start_says_so_at_once(record_property: Measure) -> None:
    fuse = Path("/dev/fuse")
    away = fuse.rename("/dev/fuse.away")
    began = time.monotonic()
    with pytest.raises(LabError, match=f"start {MACHINE.name}: .*/dev/fuse"):
        machines.ensure(MACHINE)
    record_property("said after", f"{time.monotonic() - began:.1f} s")
    away.rename(fuse)


def test_a_frozen_machine_stops_in_order_too() -> None:
    machines.ensure(MACHINE)
    machines.freeze(MACHINE, frozen=True)
    machines.stop(MACHINE)
    assert machines.state_of(MACHINE) == "stopped"


def test_a_removed_machine_leaves_nothing() -> None:
    machines.ensure(MACHINE)
    machines.remove(MACHINE)
    assert machines.state_of(MACHINE) == "absent"
    assert not MACHINE.folder.exists()
    assert not MACHINE.cgroup.exists()
    assert not (network.NETNS / MACHINE.name).exists()
    machines.ensure(MACHINE)  # anew, at once


def test_the_region_goes_with_a_running_and_a_frozen_machine(before: traces.Traces, record_property: Measure) -> None:
    machines.ensure(OTHER)
    machines.freeze(OTHER, frozen=True)
    said: list[str] = []
    began = time.monotonic()
    host.teardown(REGION, CIDR, STATE, said.append)
    record_property("gone after", f"{time.monotonic() - began:.1f} s")
    assert said[0] == "2 machines stopped"
    STATE.parent.rmdir()
    assert not kept_by_nspawn()
    assert not traces.left(before, traces.of_machine(REGION, STATE))
    assert not units()
