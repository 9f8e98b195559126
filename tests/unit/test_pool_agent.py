"""The pool agent's loop at its edge: programs called zpool and zfs that say what was recorded, note what they are told, refuse or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import prometheus_client
import pytest
from structlog.testing import capture_logs

from mobula.core.clock import ManualClock
from mobula.pool.agent import PoolAgent
from mobula.pool.config import DAY_S, PoolConfig
from mobula.pool.disks import NAMES_START
from ops.catalog import catalog
from ops.region import REPO
from tests.unit.test_pool_status import TEXTS

SAID = """#!/bin/sh
cd "$(dirname "$0")/../said"
[ ! -e hang ] || exec sleep 60
case "$1" in
  status) [ -e status ] || { echo "cannot open 'tank': no such pool" >&2; exit 1; }; cat status ;;
  list) echo 42% ;;
  get) cat owner ;;
  history) cat history ;;
  *)
    echo "$*" >>calls
    [ ! -e refuse ] || { echo "cannot $1: no valid replicas" >&2; exit 1; }
    [ ! -e "status-after-$1" ] || mv "status-after-$1" status ;;
esac
"""


class Bench:
    """Eight disks that look well, a pool on them, and an agent that is made to look once at a time."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.disks, self.said = folder / "disks", folder / "said"
        for path in (self.disks, self.said, folder / "bin"):
            path.mkdir()
        for name in ("zpool", "zfs"):
            (folder / "bin" / name).write_text(SAID)
            (folder / "bin" / name).chmod(0o755)
        for number in range(1, 9):
            with (self.disks / f"d0{number}").open("wb") as disk:
                disk.truncate(2 << 20)
                disk.seek(NAMES_START)
                disk.write(b"\x01\x01")
        self.says("status", "online")
        (self.said / "owner").write_text("t/t-a-storage-01\n")
        (self.said / "history").write_text("")
        self.clock = ManualClock()
        config = {
            "region": "t", "host": "t-a-storage-01", "az": "a", "address": "127.0.0.1", "status_port": 8061, "pool": "tank",
            "folder": str(self.disks), "spares": 2, "confirm_s": 0.0, "look_timeout_s": 5.0, "command_timeout_s": 60.0, **values,
        }  # fmt: skip
        self.agent = PoolAgent(msgspec.convert(config, PoolConfig), self.clock)

    def says(self, file: str, text: str) -> None:
        (self.said / file).write_text(TEXTS[text].replace("/disks/", f"{self.disks}/"))

    def calls(self) -> list[str]:
        file = self.said / "calls"
        return file.read_text().replace(f"{self.disks}/", "").splitlines() if file.exists() else []

    def why(self) -> str:
        return str(self.agent.status()["why"]).replace(f"{self.disks}/", "")


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found = Bench(tmp_path)
    yield found
    await found.agent.stop()


async def test_a_pool_that_is_well_is_left_alone(bench: Bench) -> None:
    assert bench.why() == "the pool was not looked at yet"
    await bench.agent.cycle()
    status = bench.agent.status()
    assert (status["healthy"], status["why"], status["state"], status["used_percent"]) == (True, "", "ONLINE", 42)
    assert status["spares"] == {"available": 2, "in_use": 0}
    assert bench.calls() == []


async def test_a_failed_disk_is_taken_offline_and_a_spare_brought_in_with_a_line_for_each(bench: Bench) -> None:
    await bench.agent.cycle()
    os.truncate(bench.disks / "d02", 0)
    os.truncate(bench.disks / "d03", 0)
    bench.says("status-after-replace", "two-spares-in-use")
    with capture_logs() as logs:
        await bench.agent.cycle()
    assert bench.calls() == ["offline tank d02", "replace tank d02 d07", "offline tank d03", "replace tank d03 d08"]
    assert bench.why() == "disk d02 has 0 bytes; spare d07 stands for it; disk d03 has 0 bytes; spare d08 stands for it"
    acted = [line for line in logs if line["event"] == "acted"]
    assert acted[1]["what"] == f"zpool replace tank {bench.disks}/d02 {bench.disks}/d07"
    assert acted[1]["why"] == f"disk {bench.disks}/d02 has 0 bytes: spare {bench.disks}/d07 takes its place"
    assert {
        "event": "disk changed",
        "log_level": "info",
        "disk": f"{bench.disks}/d07",
        "before": "AVAIL",
        "state": "INUSE",
    } in logs
    assert any(line["event"] == "scan changed" and "37.25% done" in line["what"] for line in logs)
    with capture_logs() as logs:
        await bench.agent.cycle()
    assert logs == []


async def test_metrics_say_how_far_a_resilver_is_and_how_each_disk_is(bench: Bench) -> None:
    bench.says("status", "two-spares-in-use")
    os.truncate(bench.disks / "d02", 0)
    await bench.agent.cycle()
    text = prometheus_client.generate_latest().decode()
    for line in (
        'pool_scan_percent{kind="resilver"} 37.25', 'pool_scan_eta_seconds{kind="resilver"} 4800.0', 'pool_spares{state="INUSE"} 2.0',
        f'pool_disk_well{{disk="{bench.disks}/d02",state="OFFLINE"}} 0.0', f'pool_disk_well{{disk="{bench.disks}/d01",state="ONLINE"}} 1.0',
        "pool_well 0.0",
    ):  # fmt: skip
        assert line in text
    scan = bench.agent.status()["scan"]
    assert isinstance(scan, dict)
    assert (scan["kind"], scan["percent"], scan["eta_s"]) == ("resilver", 37.25, 4800)


async def test_what_zfs_refuses_is_said_once_in_the_log_and_tried_again(bench: Bench) -> None:
    await bench.agent.cycle()
    os.truncate(bench.disks / "d02", 0)
    (bench.said / "refuse").touch()
    with capture_logs() as logs:
        for _ in range(3):
            await bench.agent.cycle()
    assert bench.calls() == ["offline tank d02", "replace tank d02 d07"] * 3
    assert [line["event"] for line in logs if line["event"] == "refused"] == ["refused"] * 2
    assert "zpool offline tank d02: cannot offline: no valid replicas" in bench.why()
    (bench.said / "refuse").unlink()
    bench.says("status-after-replace", "two-spares-in-use")
    await bench.agent.cycle()
    assert "no valid replicas" not in bench.why()


async def test_a_pool_of_another_owner_is_not_touched(bench: Bench) -> None:
    (bench.said / "owner").write_text("-\n")
    os.truncate(bench.disks / "d02", 0)
    await bench.agent.cycle()
    assert bench.calls() == []
    assert bench.why() == "the pool tank belongs to nobody by name, not to t/t-a-storage-01: it is left alone"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "there is no pool tank"),
        (
            "internal error: Out of memory",
            "the pool tank can't be asked: read zpool status: no configuration of pool 'tank'",
        ),
    ],
)
async def test_without_a_pool_or_with_garbage_nothing_is_done(bench: Bench, said: str | None, why: str) -> None:
    (bench.said / "status").unlink()
    if said is not None:
        (bench.said / "status").write_text(said)
    await bench.agent.cycle()
    assert bench.why().startswith(why)
    assert (bench.agent.status()["healthy"], bench.calls()) == (False, [])


async def test_a_lost_pool_is_not_asked_whose_it_is(bench: Bench) -> None:
    bench.says("status", "pool-lost")
    (bench.said / "owner").unlink()
    await bench.agent.cycle()
    assert bench.why().startswith(
        "the pool tank is UNAVAIL: its objects can't be reached; the pool tank has data errors: 810"
    )


async def test_a_command_that_hangs_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    bench = Bench(tmp_path, command_timeout_s=1.2)
    (bench.said / "hang").touch()
    began = time.monotonic()
    await bench.agent.cycle()
    assert time.monotonic() - began < 30
    assert bench.why() == "the pool tank can't be asked: zpool status tank: no answer within 0.2 s"
    (bench.said / "hang").unlink()
    await bench.agent.stop()


async def test_without_zpool_it_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.disks))
    await bench.agent.cycle()
    assert bench.why() == "the pool tank can't be asked: zpool status tank: No such file or directory"


async def test_a_disk_that_never_answers_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    bench = Bench(tmp_path, look_timeout_s=0.2)
    disk = bench.disks / "d04"
    disk.unlink()
    os.mkfifo(disk)  # whoever opens it waits for somebody at the other end
    os.truncate(bench.disks / "d02", 0)
    try:
        await bench.agent.cycle()
        await bench.agent.cycle()
        assert "disk d04 does not answer" in bench.why()
        assert "replace tank d02 d07" in bench.calls()
    finally:
        os.close(os.open(disk, os.O_RDWR | os.O_NONBLOCK))
        await bench.agent.stop()


def history(age_s: float, clock: ManualClock) -> str:
    stamp = time.strftime("%Y-%m-%d.%H:%M:%S", time.localtime(clock.now_s() - age_s))
    return f"History for 'tank':\n2020-01-01.00:00:00 zpool create tank\n{stamp} zpool scrub tank\n"


async def test_a_scrub_is_begun_once_when_the_last_is_a_week_ago(bench: Bench) -> None:
    (bench.said / "history").write_text(history(6 * DAY_S, bench.clock))
    await bench.agent.cycle()
    assert bench.calls() == []
    bench.clock.advance(DAY_S)
    await bench.agent.cycle()
    await bench.agent.cycle()
    assert bench.calls() == ["scrub tank"]
    assert bench.agent.status()["last_scrub_s"] == bench.clock.now_s()


async def test_a_pool_that_was_never_scrubbed_is_scrubbed_a_week_after_it_was_made(bench: Bench) -> None:
    (bench.said / "history").write_text("History for 'tank':\n2020-01-01.00:00:00 zpool create tank\n")
    await bench.agent.cycle()
    assert bench.calls() == ["scrub tank"]


async def test_a_scrub_that_is_refused_is_tried_again_in_an_hour(bench: Bench) -> None:
    (bench.said / "history").write_text(history(8 * DAY_S, bench.clock))
    (bench.said / "refuse").touch()
    for _ in range(3):
        await bench.agent.cycle()
    assert bench.calls() == ["scrub tank"]
    assert bench.agent.status()["healthy"]
    bench.clock.advance(3600)
    await bench.agent.cycle()
    assert bench.calls() == ["scrub tank"] * 2


async def test_no_scrub_while_a_disk_is_being_filled_nor_of_anothers_pool_nor_if_switched_off(bench: Bench) -> None:
    (bench.said / "history").write_text(history(8 * DAY_S, bench.clock))
    bench.says("status", "two-spares-in-use")
    await bench.agent.cycle()
    bench.says("status", "online")
    (bench.said / "owner").write_text("other/host\n")
    await bench.agent.cycle()
    assert bench.calls() == []


CONFIG = {
    "region": "t", "host": "t-a-storage-01", "az": "a", "address": "127.0.0.1", "status_port": 8061, "pool": "tank", "folder": "/disks",
    "spares": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pool": "-f"}, "pool '-f' can't be a pool's name"),
        ({"pool": ""}, "pool '' can't be a pool's name"),
        ({"folder": "disks"}, "folder 'disks' is no absolute path"),
        ({"period_s": 0}, "period_s is 0.0, it must be between 0.1 and 3600"),
        ({"spares": -1}, "spares is -1, it must be at least 0"),
        ({"spares": "two"}, "Expected `int`, got `str` - at `$.spares`"),
        ({"scrub_every_days": -7}, "scrub_every_days is -7.0, it must be at least 0"),
        ({"sparse": 2}, "unknown field `sparse`"),
    ],
)
def test_a_wrong_config_is_refused_in_a_sentence(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    file = tmp_path / "pool-agent.json"
    file.write_text(json.dumps(CONFIG | values))
    done = subprocess.run(
        [sys.executable, "-m", "mobula.pool", "--config", str(file)], env={**os.environ, "PYTHONPATH": str(REPO / "src")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("mobula-pool-agent: read config ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_listens_where_its_description_says() -> None:
    endpoint = catalog()["pool-agent"].status
    assert endpoint is not None
    role = (REPO / "roles/storage/tasks/main.yml").read_text()
    assert f"'status_port': {endpoint.port}" in role
    assert not hasattr(msgspec.convert(CONFIG, PoolConfig), "port")
