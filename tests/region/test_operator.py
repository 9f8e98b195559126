"""The operator's command on a standing region: nothing to do a second time, names, status, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ops.dns import resolve
from ops.region import Region
from tests.stock_clients import Output

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


def test_another_profile_for_a_standing_region_is_refused(mobula: Callable[..., Output], region: Region) -> None:
    said = mobula("up", "--profile", "lab" if region.profile == "small" else "small")
    assert said.returncode == 2
    assert f"stands with profile {region.profile!r}" in said.stderr


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


def test_the_public_name_resolves_to_every_loadbalancer(region: Region) -> None:
    for server in region.pool("nameservice"):
        addresses, ttl_s = resolve(region, server.address, region.zone, namespace="pub")
        assert addresses == {host.address for host in region.pool("loadbalancer")}
        assert ttl_s <= 5


def test_an_account_has_sub_users_and_the_list_says_their_keys(mobula: Callable[..., Output], region: Region) -> None:
    for name in ("ops-test", "ops-test/backup", "ops-test/backup"):
        assert mobula("account", "create", name).returncode == 0
    assert mobula("account", "key", "add", "ops-test/backup", str(region.secrets / "demo.pub")).returncode == 0
    (found,) = [a for a in json.loads(mobula("account", "list", "--json").stdout) if a["login"] == "ops-test"]
    assert (len(found["keys"]), len(found["users"]["backup"]["keys"])) == (0, 1)
    assert "ops-test/backup" in mobula("account", "list").stdout
