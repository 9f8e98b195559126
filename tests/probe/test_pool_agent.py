"""The pool agent and a real zfs-fuse: disks fail, spares come in, new disks are taken in, spares come back; nothing is lost meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.probe.machine import until
from tests.probe.zfs import POOL, Agent, PrivateZfs, private_zfs

pytestmark = pytest.mark.probe
SEEN_S = 10.0
"""a failed disk is seen, and its spare brought in, within this"""
SIZE_BYTES = 40 << 20


@pytest.fixture
def zfs() -> Iterator[PrivateZfs]:
    """Six disks in a raidz2 vdev (d01-d06), and two spares (d07, d08)."""
    with private_zfs(8) as found:
        found.create(2)
        yield found


Start = Callable[..., Agent]


@pytest.fixture
def start(zfs: PrivateZfs) -> Iterator[Start]:
    """Starts an agent, with defaults but for what is said, and waits until it has found all well."""
    running: list[Agent] = []

    def started(*, well: bool = True, **values: Any) -> Agent:
        running.append(Agent(zfs, **values))
        if well:
            until("the agent to find all well", lambda: running[-1].status().get("healthy"))
        return running[-1]

    yield started
    for agent in running:
        agent.kill()


def healed(zfs: PrivateZfs, agent: Agent) -> bool:
    pool = zfs.pool()
    lines = [leaf.state for vdev in pool.vdevs for leaf in vdev.leaves()] + [spare.state for spare in pool.spares]
    return lines == ["ONLINE"] * 6 + ["AVAIL"] * 2 and agent.status()["healthy"]


def test_a_spare_comes_in_for_a_failed_disk_and_goes_when_there_is_a_new_one(zfs: PrivateZfs, start: Start) -> None:
    same = zfs.write("object", SIZE_BYTES)
    agent = start()
    zfs.fail_disk("d02")
    until("the spare to come in", lambda: zfs.state("d07") == ["ONLINE", "INUSE"], SEEN_S)
    assert zfs.state("d02") == ["OFFLINE"]
    disk = zfs.disks / "d02"
    until(
        "it to be said",
        lambda: f"disk {disk} has 0 bytes; spare {zfs.disks}/d07 stands for it" in agent.status()["why"],
    )
    said = agent.status()
    assert (said["healthy"], said["spares"]) == (False, {"available": 1, "in_use": 1})
    assert said["findings"][0]["do"] == "put a new disk in the place of the failed one"
    metrics = agent.get("/metrics")
    assert 'pool_spares{state="INUSE"} 1.0' in metrics
    assert f'pool_disk_well{{disk="{disk}",state="OFFLINE"}} 0.0' in metrics
    zfs.run("sh", "-c", same)

    zfs.new_disk("d02")
    until("all to be well again", lambda: healed(zfs, agent))
    zfs.run("sh", "-c", same)
    acted = [line["what"] for line in agent.lines() if line["event"] == "acted"]
    assert acted[:3] == [
        f"zpool offline {POOL} {disk}", f"zpool replace {POOL} {disk} {zfs.disks}/d07", f"zpool replace {POOL} {disk}",
    ]  # fmt: skip
    assert agent.stop() == 0


def test_two_disks_that_fail_at_once_get_both_spares_and_a_third_is_one_too_many(zfs: PrivateZfs, start: Start) -> None:
    same = zfs.write("object", SIZE_BYTES)
    agent = start()
    zfs.fail_disk("d01")
    zfs.fail_disk("d04")
    both = lambda: zfs.state("d07") == zfs.state("d08") == ["ONLINE", "INUSE"]  # noqa: E731
    until("both spares to come in", both, SEEN_S)
    until("them to be full", lambda: not zfs.pool().scan.running)
    zfs.fail_disk("d06")
    until("it to be said", lambda: f"{zfs.disks}/d06 has 0 bytes and no spare is left" in agent.status()["why"], SEEN_S)
    until("nothing to be written to it", lambda: zfs.state("d06") == ["OFFLINE"], SEEN_S)
    zfs.run("sh", "-c", same)
    for disk in ("d06", "d04", "d01"):
        zfs.new_disk(disk)
    until("all to be well again", lambda: healed(zfs, agent))
    zfs.run("sh", "-c", same)


def test_a_spare_that_fails_at_its_work_makes_way_for_the_other(zfs: PrivateZfs, start: Start) -> None:
    same = zfs.write("object", SIZE_BYTES)
    agent = start()
    zfs.fail_disk("d03")
    until("the first spare to come in", lambda: zfs.state("d07") == ["ONLINE", "INUSE"], SEEN_S)
    zfs.fail_disk("d07")
    until("the second spare to come in", lambda: zfs.state("d08") == ["ONLINE", "INUSE"], SEEN_S)
    zfs.run("sh", "-c", same)
    until("it to be said", lambda: f"spare {zfs.disks}/d07 has 0 bytes" in agent.status()["why"], SEEN_S)
    zfs.new_disk("d07")
    zfs.new_disk("d03")
    # The new spare is the last in the list now.
    until("all to be well again", lambda: healed(zfs, agent))
    zfs.run("sh", "-c", same)


WRITE = """
cd "$1"
for i in $(seq 200); do
  [ ! -e enough ] || break
  head -c 1000000 /dev/urandom >tank/$i && sync tank/$i && sha256sum tank/$i
done
"""


def test_a_disk_that_fails_under_writes_is_replaced_and_nothing_written_is_lost(zfs: PrivateZfs, start: Start) -> None:
    agent = start()
    with (zfs.folder / "sums").open("wb") as sums:
        writer = subprocess.Popen(
            zfs.inside("sh", "-c", WRITE, "write", str(zfs.folder)), env=zfs.environment, stdout=sums
        )
        until("some to be written", lambda: (zfs.folder / "sums").stat().st_size > 300)
        zfs.fail_disk("d05")
        until("the spare to come in", lambda: zfs.state("d07") == ["ONLINE", "INUSE"], SEEN_S)
        (zfs.folder / "enough").touch()
        assert writer.wait(30) == 0
    zfs.new_disk("d05")
    until("all to be well again", lambda: healed(zfs, agent))
    zfs.run("sh", "-c", f"cd {zfs.folder} && sha256sum --check --quiet sums")
    zfs.run("zpool", "scrub", POOL)
    until("the scrub to end", lambda: not zfs.pool().scan.running)
    assert zfs.pool().data_errors == ""


def test_a_new_disk_in_the_place_of_an_idle_spare_becomes_the_spare(zfs: PrivateZfs, start: Start) -> None:
    agent = start()
    zfs.fail_disk("d07")
    until("it to be said", lambda: f"spare {zfs.disks}/d07 has 0 bytes" in agent.status()["why"], SEEN_S)
    zfs.new_disk("d07")
    until("all to be well again", lambda: healed(zfs, agent))
    zfs.fail_disk("d01")
    until("the other spare to come in", lambda: zfs.state("d08") == ["ONLINE", "INUSE"], SEEN_S)
    zfs.fail_disk("d02")
    until("the new spare to come in", lambda: zfs.state("d07") == ["ONLINE", "INUSE"], SEEN_S)


def test_three_disks_of_a_vdev_at_once_are_left_as_they_are(zfs: PrivateZfs, start: Start) -> None:
    same = zfs.write("object", SIZE_BYTES)
    zfs.fail_disk("d02")
    (zfs.disks / "d03").unlink()
    zfs.new_disk("d05")
    zfs.run("zpool", "offline", POOL, str(zfs.disks / "d02"))
    agent = start(well=False)
    # One too many, blank or not: what they share is not for a program to guess.
    until("it to be said", lambda: "3 disks of raidz2-0" in agent.status().get("why", ""), SEEN_S)
    assert zfs.state("d07") == zfs.state("d08") == ["AVAIL"]
    zfs.run("sh", "-c", same)


def test_another_ones_pool_is_left_alone(zfs: PrivateZfs, start: Start) -> None:
    zfs.run("zfs", "set", "mobula:owner=elsewhere/host", POOL)
    agent = start(well=False, period_s=0.2, confirm_s=0.0)
    until("it to be said", lambda: "belongs to elsewhere/host" in agent.status().get("why", ""))
    zfs.fail_disk("d02")
    until("another look", lambda: "pool_looked_timestamp_seconds" in agent.get("/metrics") and _looks(agent, 5))
    assert zfs.state("d02") == ["ONLINE"]
    assert [line for line in agent.lines() if line["event"] == "acted"] == []


def _looks(agent: Agent, more: int) -> bool:
    """So many looks have passed."""
    seen = {agent.get("/metrics").partition("\npool_looked_timestamp_seconds ")[2].split("\n")[0]}
    while len(seen) <= more:
        seen.add(agent.get("/metrics").partition("\npool_looked_timestamp_seconds ")[2].split("\n")[0])
    return True


def test_a_pool_that_hangs_is_reported_and_waited_for(zfs: PrivateZfs, start: Start) -> None:
    agent = start(command_timeout_s=6.0)
    zfs.freeze(frozen=True)
    try:
        until("it to be said", lambda: "no answer within 1 s" in agent.status()["why"], 2 * SEEN_S)
        assert agent.get("/ping").startswith("{")
    finally:
        zfs.freeze(frozen=False)
    until("all to be well again", lambda: agent.status()["healthy"])


def test_a_scrub_is_begun_when_it_is_time_and_not_again_after_a_restart(zfs: PrivateZfs, start: Start) -> None:
    scrubs = lambda: zfs.run("zpool", "history", POOL).count("zpool scrub")  # noqa: E731
    agent = start(period_s=0.2, scrub_every_days=2 / 86400)
    until("a scrub", scrubs)
    agent.stop()
    count = scrubs()
    again = start(period_s=0.2, scrub_every_days=7.0)
    assert _looks(again, 5)
    assert scrubs() == count
    assert again.status()["last_scrub_s"] > 0
