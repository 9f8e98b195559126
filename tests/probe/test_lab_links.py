"""Bad links, by the kernel that has to make them: what is dropped, what is counted, and a bulk transfer over a narrow one.

A router that is AZ 2's, between a host of AZ 1 and one of its own, in network namespaces that nobody else knows and that go with the test.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobula.lab import faults, network
from mobula.lab.faults import Drop, Kind
from ops.drills import bulk as bulks
from ops.drills.bulk import bulk
from tests.drills import region_in
from tests.probe.machine import until

pytestmark = pytest.mark.probe
WAY = frozenset({(1, 2)})
FAR, NEAR = "10.77.112.1", "10.77.2.250"
NAMES = ("r1", "r2", "r3", "near")
SILENT_S = 0.5
RCVBUFFORCE = 33
"""Linux's SO_RCVBUFFORCE, which Python has no name for"""
WIRES = """
set -eu
ip -batch - <<ip
link set lo up
link add l12 type veth peer name l12 netns {r1}
link add br0 type veth peer name host0 netns {near}
address add 10.77.112.2/30 dev l12
address add 10.77.2.1/24 dev br0
link set l12 up
link set br0 up
ip
echo 1 >/proc/sys/net/ipv4/ip_forward
"""
HOST = """
set -eu
ip -batch - <<ip
address add {address} dev {link}
link set {link} up
route add default via {gateway}
ip
"""


def enter(pid: int, script: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script], check=True, timeout=30)


@pytest.fixture(autouse=True)
def _wired(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    hold = ["setpriv", "--pdeathsig=SIGKILL", "unshare", "--net", "cat"]
    held = {name: subprocess.Popen(hold, stdin=subprocess.PIPE) for name in NAMES}
    try:
        own = Path("/proc/self/ns/net").readlink()
        for name, process in held.items():
            path = Path(f"/proc/{process.pid}/ns/net")
            until("a namespace of its own", lambda path=path: path.readlink() != own)
            (tmp_path / f"lab-{name}").symlink_to(path)
        (tmp_path / "lab-c1").symlink_to(tmp_path / "lab-r1")
        (tmp_path / "lab-c2").symlink_to(tmp_path / "lab-near")
        monkeypatch.setattr(network, "NETNS", tmp_path)
        enter(held["r2"].pid, WIRES.format(r1=held["r1"].pid, near=held["near"].pid))
        enter(held["r1"].pid, HOST.format(address=f"{FAR}/30", link="l12", gateway="10.77.112.2"))
        enter(held["near"].pid, HOST.format(address=f"{NEAR}/24", link="host0", gateway="10.77.2.1"))
        yield
    finally:
        for process in held.values():
            process.kill()
            process.communicate()


def arrived(count: int, size_bytes: int = 32) -> int:
    """Of so many datagrams from AZ 1."""
    with network.inside("lab-near"):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with network.inside("lab-r1"):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 16 << 20)
        receiver.bind((NEAR, 0))
        receiver.settimeout(SILENT_S)
        for _ in range(count):
            sender.sendto(bytes(size_bytes), receiver.getsockname())
        found = 0
        try:
            while receiver.recv(65536):
                found += 1
        except TimeoutError:
            return found
    return found


def test_a_cut_drops_all_of_one_direction_counts_it_and_is_healed() -> None:
    assert arrived(20) == 20
    faults.drop("lab", faults.cuts(WAY))
    assert arrived(20) == 0
    assert faults.standing_drops("lab") == {Drop(1, 2, Kind.CUT): 20}
    faults.heal("lab")
    assert faults.standing_drops("lab") == {}
    assert arrived(20) == 20


def test_a_lossy_link_loses_about_as_many_as_it_should_and_counts_them() -> None:
    faults.drop("lab", faults.losses(WAY, 20))
    found = arrived(2000)
    assert faults.standing_drops("lab") == {Drop(1, 2, Kind.LOSS, 20): 2000 - found}
    assert 1450 < found < 1750


def test_a_narrow_link_drops_what_is_beyond_its_rate_and_a_second_of_it() -> None:
    faults.drop("lab", faults.limits(WAY, 800))  # 100 kB/s
    found = arrived(600, 972)  # and 28 of headers
    assert faults.standing_drops("lab") == {Drop(1, 2, Kind.NARROW, 800): 600 - found}
    assert 100 < found < 300


def test_what_is_bad_about_a_link_adds_up() -> None:
    faults.drop("lab", faults.losses(WAY, 50))
    faults.drop("lab", faults.limits(WAY, 800))
    found = arrived(600, 972)
    lost, narrow = sorted(faults.standing_drops("lab").items())
    assert lost[1] + narrow[1] == 600 - found
    assert min(lost[1], narrow[1]) > 0
    faults.drop("lab", faults.cuts(WAY))
    assert arrived(20) == 0
    faults.heal("lab", faults.cuts(WAY))
    assert faults.standing_drops("lab").keys() == {lost[0], narrow[0]}


def test_a_bulk_transfer_takes_what_a_narrow_link_has_and_makes_it_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulks, "client_address", lambda _cidr, zone: {1: FAR, 2: NEAR}[zone])
    kbit_per_s = 10_000
    faults.drop("lab", faults.limits(faults.both_ways((1, 2)), kbit_per_s))
    began_s = time.monotonic()
    with bulk(region_in(tmp_path / "state"), ((1, 2),)) as (transfer,):
        until("three seconds' worth to arrive", lambda: transfer.moved_bytes > 3 * kbit_per_s * 125)
    took_s = time.monotonic() - began_s
    assert transfer.moved_bytes < (took_s + 2) * kbit_per_s * 125  # a second's worth may go at once
    assert faults.standing_drops("lab")[Drop(1, 2, Kind.NARROW, kbit_per_s)] > 0
