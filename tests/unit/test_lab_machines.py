"""How a machine is started on a host with cgroup v2 and systemd, and what is cleaned up after it. Tried for real by `make test-cgroup2`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mobula.lab import machines, network
from mobula.lab.machines import Machine
from mobula.lab.network import LabError
from tests.probe.machine import until


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(machines, "CGROUP", tmp_path / "cgroup")  # without a folder `unified`: cgroup v2
    monkeypatch.setattr(machines, "NSPAWN", tmp_path / "nspawn")
    return Machine("lab", "10.77.0.0/16", "lab-a-api-01", 1, "10.77.1.21", 0, 0, tmp_path / "state", tmp_path / "image")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that come before the machine's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_regions_machines_lie_in_a_slice_of_its_own(machine: Machine, tmp_path: Path) -> None:
    assert machine.cgroup == tmp_path / "cgroup/mobula_lab.slice/mobula-lab-a-api-01.service"
    # A dash in a slice's name is a level of the tree: another region would lie in it, or it in another's.
    assert "-" not in machines.slice_of("lab")


def test_a_machine_without_a_cgroup_is_stopped_and_can_be_killed_again(machine: Machine, tools: Path) -> None:
    tool = tools / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tools}/log\nexit 5\n')
    tool.chmod(0o755)
    assert not machines.is_running(machine)
    machines.kill(machine)
    assert (tools / "log").read_text() == "stop mobula-lab-a-api-01.service\n"


def test_what_a_killed_nspawn_left_goes_and_other_machines_stay(machine: Machine, tools: Path) -> None:
    for name in ("unix-export/lab-a-api-01", "propagate/lab-a-api-01", "propagate/lab-a-api-011", "locks/inode-1:2"):
        (machines.NSPAWN / name).mkdir(parents=True)
    machines.forget_nspawn(machine.name)
    assert sorted(str(p.relative_to(machines.NSPAWN)) for p in machines.NSPAWN.glob("*/*")) == [
        "locks/inode-1:2",
        "propagate/lab-a-api-011",
    ]


def test_a_machine_that_cannot_be_started_is_said_with_its_last_line(
    machine: Machine, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "run", lambda *_: "")
    for name, text in (("systemctl", "exit 5"), ("systemd-run", "echo 'Job failed.' >&2; exit 1")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    machine.folder.mkdir(parents=True)
    machines.console_of(machine).write_text("Failed to stat /dev/fuse\n")
    with pytest.raises(LabError, match=r"start lab-a-api-01: Failed to stat /dev/fuse$"):
        machines._start(machine)


def test_a_machine_stands_still_when_all_its_processes_do_also_those_that_wait_for_a_frozen_one(
    machine: Machine,
) -> None:
    """One that reads from a file system whose process is frozen can't be frozen itself; it does nothing all the same."""
    service = machine.cgroup / "service"
    service.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as waits, subprocess.Popen(["sh", "-c", "while :; do :; done"]) as works:
        try:
            (machine.cgroup / "cgroup.events").write_text("populated 1\nfrozen 0\n")
            (machine.cgroup / "cgroup.freeze").write_text("1\n")
            (machine.cgroup / "cgroup.threads").write_text("")
            (service / "cgroup.threads").write_text(f"{waits.pid}\n")
            until("it sleeps", lambda: machines.is_frozen(machine))
            (service / "cgroup.threads").write_text(f"{waits.pid}\n{works.pid}\n")
            until("the other one runs", lambda: not machines.is_frozen(machine))
            (service / "cgroup.threads").write_text(f"{waits.pid}\n")
            (machine.cgroup / "cgroup.freeze").write_text("0\n")
            assert not machines.is_frozen(machine)
            (machine.cgroup / "cgroup.events").write_text("populated 1\nfrozen 1\n")
            assert machines.is_frozen(machine)
        finally:
            waits.kill()
            works.kill()


@pytest.mark.parametrize(("count", "shares"), [(1, 1024), (3, 1024), (8, 2048), (27, 6912)])
def test_a_region_weighs_more_on_the_processors_the_more_machines_it_has(
    tmp_path: Path, count: int, shares: int
) -> None:
    for number in range(count):
        (tmp_path / f"lab-a-api-{number:02}").mkdir()
    (tmp_path / "cpu.shares").write_text("1024")
    machines._weigh(tmp_path)
    assert (tmp_path / "cpu.shares").read_text() == str(shares)
