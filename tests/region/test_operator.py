"""The operator's command on a standing region: nothing to do a second time, names, status, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ops.region import Region
from tests.region.conftest import Output

pytestmark = pytest.mark.region


def test_status_says_that_all_is_well(mobula: Callable[..., Output], region: Region) -> None:
    said = mobula("status", "--json")
    status = json.loads(said.stdout)
    assert status["ok"] is True, status["findings"]
    assert said.returncode == 0
    assert {host["name"] for host in status["hosts"]} == set(region.hosts)


def test_a_second_up_finds_nothing_to_change(mobula: Callable[..., Output]) -> None:
    plan = mobula("plan", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["changes"] == 0
    again = mobula("up")
    assert again.returncode == 0, again.stderr
    assert "changed=0" in again.stderr


def test_another_profile_for_a_standing_region_is_refused(mobula: Callable[..., Output]) -> None:
    said = mobula("up", "--profile", "lab")
    assert said.returncode == 2
    assert "stands with profile 'small'" in said.stderr


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["up", "--profile", "huge"], "use profile 'huge'"),
        (["ssh", "nobody", "--", "true"], "find host 'nobody'"),
        (["account", "create", "9starts-with-a-digit"], "9starts-with-a-digit"),
        (["lab", "freeze", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_one_sentence_and_no_traceback(mobula: Callable[..., Output], argv: list[str], says: str) -> None:
    said = mobula(*argv)
    assert said.returncode != 0
    assert says in said.stderr
    assert "Traceback" not in said.stderr


def test_the_public_name_resolves_to_every_loadbalancer(mobula: Callable[..., Output], region: Region) -> None:
    server = region.pool("nameservice")[0].address
    zone = region.zone
    found = mobula("shell", "--", "python3", "-c", RESOLVE, server, zone)
    assert found.returncode == 0, found.stderr
    addresses, ttl = json.loads(found.stdout)
    assert set(addresses) == {host.address for host in region.pool("loadbalancer")}
    assert ttl <= 5


RESOLVE = """
import json, socket, struct, sys
server, name = sys.argv[1:]
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1), (server, 53))
data = s.recv(4096)
count = struct.unpack(">H", data[6:8])[0]
at = 12 + len(labels) + 4
found, ttl = [], 0
for _ in range(count):
    at += 2
    kind, _, ttl, size = struct.unpack(">HHIH", data[at:at + 10])
    found.append(socket.inet_ntoa(data[at + 10:at + 10 + size]))
    at += 10 + size
print(json.dumps([found, ttl]))
"""
