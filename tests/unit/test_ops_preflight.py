"""What is missing on this machine is named; a profile that can't be is refused."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops import preflight
from ops.errors import BadInput, OperatorError
from ops.preflight import check, check_addresses, check_relay_port, disk_problems, memory_problems, taken_by
from ops.provision import Plan, _hosts_count, choose_profile
from ops.region import Region, profiles


@pytest.fixture
def region(tmp_path: Path) -> Region:
    return Region("lab", "mobula.test", "10.77.0.0/16", 18443, tmp_path / "lab", tmp_path, {}, None)


@pytest.mark.parametrize(
    ("route", "taken"),
    [
        ({"dst": "default", "gateway": "10.77.0.1", "dev": "eth0"}, False),
        ({"dst": "10.77.0.0/16", "type": "blackhole"}, False),
        ({"dst": "10.78.0.0/16", "dev": "eth0"}, False),
        ({"dst": "172.17.0.1", "dev": "docker0"}, False),
        ({"dev": "eth0"}, False),
        ({"dst": "10.77.3.0/24", "dev": "eth0"}, True),
        ({"dst": "10.0.0.0/8", "dev": "tun0"}, True),
        ({"dst": "10.77.1.1", "dev": "lo", "type": "local"}, True),
    ],
)
def test_addresses_are_taken_by_whatever_leads_into_them(route: dict[str, str], taken: bool) -> None:
    other = {"dst": "192.168.1.0/24", "dev": "eth0"}
    assert taken_by("10.77.0.0/16", [other, route]) == (route if taken else None)


def test_taken_addresses_are_refused_by_naming_route_and_file(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_json_of", lambda _: [{"dst": "10.0.0.0/8", "dev": "tun0"}])
    with pytest.raises(BadInput, match=r"10\.0\.0\.0/8 is in use on 'tun0' .* terraform/regions/lab/region\.auto"):
        check_addresses(region)


@pytest.mark.parametrize(("cidr", "refused"), [("10.77.0.0/16", True), ("10.78.0.0/16", False)])
def test_two_regions_have_different_addresses(
    region: Region, monkeypatch: pytest.MonkeyPatch, cidr: str, refused: bool
) -> None:
    monkeypatch.setattr(preflight, "_json_of", lambda _: [])
    for name, range_ in (("test", cidr), ("lab", "10.77.0.0/16")):
        state = region.state_dir.parent / name / "terraform/region.json"
        state.parent.mkdir(parents=True)
        state.write_text(f'{{"name": "{name}", "cidr": "{range_}"}}')
    if refused:
        with pytest.raises(BadInput, match=r"region 'test' has 10\.77\.0\.0/16"):
            check_addresses(region)
    else:
        check_addresses(region)


def test_a_port_on_which_something_listens_is_refused(region: Region) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        check_relay_port(replace(region, relay_port=0))
        other.listen()
        with pytest.raises(BadInput, match=rf"listen on 127\.0\.0\.1:{port} .* set another 'relay_port'"):
            check_relay_port(replace(region, relay_port=port))


@pytest.mark.parametrize(
    ("free_bytes", "enough"), [(preflight.DISK_FREE_BYTES, True), (preflight.DISK_FREE_BYTES - 1, False)]
)
def test_room_on_the_disk_is_enough_or_is_named(free_bytes: int, enough: bool) -> None:
    assert disk_problems("state", free_bytes) == (
        [] if enough else ["6143 MiB are free in 'state', 6144 MiB are needed"]
    )


@pytest.mark.parametrize(("mib", "enough"), [(3000, True), (2999, False)])
def test_memory_is_enough_for_the_machines_or_is_named(mib: int, enough: bool) -> None:
    meminfo = f"MemTotal:       65536 kB\nMemFree:            1 kB\nMemAvailable:   {mib << 10} kB\nHugePages_Total:       0\n"
    assert memory_problems(meminfo, 15) == (
        [] if enough else ["2999 MiB of memory are available, 15 machines want 3000 MiB"]
    )


def test_everything_that_is_missing_is_named_at_once(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_kernel_problems", lambda: ["no overlayfs"])
    monkeypatch.setattr(preflight, "_room_problems", lambda _region, count: [f"no room for {count}"])
    with pytest.raises(OperatorError, match=r"^start a region on this machine: no overlayfs; no room for 15$"):
        check(region, 15)


@pytest.mark.parametrize(
    ("stderr", "why"), [("RTNETLINK answers\nOperation not permitted\n", "Operation not permitted"), ("", "no message")]
)
def test_what_the_kernel_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch, stderr: str, why: str) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=stderr))
    assert preflight._network_problems()[0] == f"this kernel can't make bridges ({why})"


@pytest.mark.parametrize(
    ("asked", "standing", "chosen"),
    [
        (None, None, "lab"), ("small", None, "small"), (None, "small", "small"), ("small", "small", "small"),
        ("lab", None, "lab"),
    ],
)  # fmt: skip
def test_the_profile_is_the_one_asked_for_else_the_standing_one_else_the_default(
    asked: str | None, standing: str | None, chosen: str
) -> None:
    assert choose_profile(asked, standing, profiles()) == chosen


@pytest.mark.parametrize(
    ("asked", "standing", "says"),
    [
        ("huge", None, "has only lab, small; name one of these"),
        ("", None, "use profile ''"),
        (
            "lab",
            "small",
            "the region stands with profile 'small'; leave the profile out, or take the region down first",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_refused(asked: str, standing: str | None, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        choose_profile(asked, standing, profiles())


@pytest.mark.parametrize(("profile", "machines"), [("small", 15), ("lab", 27), ("nowhere", 0)])
def test_a_profiles_machines_are_counted_from_its_file(profile: str, machines: int) -> None:
    assert _hosts_count(profile) == machines


def test_a_plan_is_its_lines_or_no_changes() -> None:
    assert Plan(()).text() == "no changes"
    assert Plan(("a", "b")).text() == "a\nb"
    assert Plan(("a", "b")).as_json() == {"changes": 2, "lines": ["a", "b"]}
