"""Ansible's inventory: what is computed of Terraform's output, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.catalog import catalog
from ops.errors import OperatorError
from ops.inventory import groups_of, read_layout, read_release, variables
from ops.region import REPO

POOLS = {"nameservice": 11, "api": 21, "storage": 41, "metadata": 61, "loadbalancer": 81}
RELEASE = {"version": "0.1.0-12345678", "tarball": "/somewhere/mobula.tar.gz", "sha256": "ab" * 32}


def output() -> dict[str, Any]:
    """A region with one host a pool and zone, as Terraform would print it."""
    hosts = {}
    for index, az in enumerate("abc", 1):
        for pool, last in POOLS.items():
            name = f"t-{az}-{pool}-01"
            hosts[name] = {
                "name": name, "az": az, "pool": pool, "index": 1, "address": f"10.9.{index}.{last}",
                "shard": int(pool == "metadata"), "disks": 14 if pool == "storage" else 0, "disk_size_bytes": 0,
            }  # fmt: skip
    return {
        "shape": 1, "name": "t", "domain": "mobula.test", "backend": "lab", "cidr": "10.9.0.0/16", "profile": "small",
        "relay_port": 1, "shards": 1, "hosts": hosts,
        "azs": {az: {"index": n, "cidr": f"10.9.{n}.0/24", "gateway": f"10.9.{n}.1"} for n, az in enumerate("abc", 1)},
        "networks": {"op": "10.9.250.1", "pub": "10.9.240.1", "clients": {}},
    }  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A region's state folder with a good output and release."""
    for name, value in (("terraform/region.json", output()), ("release/release.json", RELEASE)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(value))
    return tmp_path


def known(state: Path, host: str) -> dict[str, Any]:
    layout, release = read_layout(state / "terraform/region.json"), read_release(state / "release/release.json")
    found = variables(layout, release, state)
    return {**found["all"], **found[host]}


def test_a_host_asks_the_servers_of_its_own_zone_first(state: Path) -> None:
    found = known(state, "t-b-api-01")
    assert found["mobula_zookeeper"] == ["10.9.2.11:2181", "10.9.1.11:2181", "10.9.3.11:2181"]
    assert found["mobula_nameservers"] == ["10.9.2.11", "10.9.1.11", "10.9.3.11"]
    assert found["mobula_authcaches"] == ["10.9.2.21:8070", "10.9.1.21:8070", "10.9.3.21:8070"]


def test_the_ensemble_has_the_same_ids_on_every_host(state: Path) -> None:
    wanted = [{"id": n, "address": f"10.9.{n}.11"} for n in (1, 2, 3)]
    assert all(known(state, f"t-{az}-nameservice-01")["mobula_ensemble"] == wanted for az in "abc")
    assert [known(state, f"t-{az}-nameservice-01")["mobula_server_id"] for az in "abc"] == [1, 2, 3]


def test_a_peer_knows_the_peers_of_its_own_shard_and_no_others(state: Path) -> None:
    value = output()
    value["shards"] = 2
    for index, az in enumerate("abc", 1):
        name = f"t-{az}-metadata-02"
        value["hosts"][name] = {
            **value["hosts"][f"t-{az}-metadata-01"],
            "name": name,
            "index": 2,
            "shard": 2,
            "address": f"10.9.{index}.62",
        }
    (state / "terraform/region.json").write_text(json.dumps(value))
    assert [p["host"] for p in known(state, "t-c-metadata-02")["mobula_peers"]] == [
        "t-c-metadata-02",
        "t-a-metadata-02",
        "t-b-metadata-02",
    ]


def test_groups_are_pools_zones_and_shards(state: Path) -> None:
    layout = read_layout(state / "terraform/region.json")
    assert groups_of(layout.hosts["t-a-metadata-01"]) == ("metadata", "az_a", "shard_1")
    assert groups_of(layout.hosts["t-c-api-01"]) == ("api", "az_c")


@pytest.mark.parametrize(
    ("pool", "names"),
    [
        ("nameservice", ["ns"]),
        ("metadata", []),
        ("storage", ["storage"]),
        ("api", ["authcache", "webapi"]),
        ("loadbalancer", ["@"]),
    ],
)
def test_a_host_registers_what_its_services_descriptions_say(state: Path, pool: str, names: list[str]) -> None:
    assert [s["name"] for s in known(state, f"t-a-{pool}-01")["mobula_registrar"]["services"]] == names


def test_a_machine_opens_the_ports_of_its_own_services_only(state: Path) -> None:
    opened = {p["port"] for p in known(state, "t-a-metadata-01")["mobula_ports"]}
    assert opened == {5432, 8008, 8009}


@pytest.mark.parametrize(
    ("said", "known_as"), [({"drillable": True}, True), ({"drillable": False}, False), ({}, False)]
)
def test_hosts_are_marked_for_drills_only_if_terraform_says_so(
    state: Path, said: dict[str, bool], known_as: bool
) -> None:
    (state / "terraform/region.json").write_text(json.dumps({**output(), **said}))
    assert known(state, "t-a-api-01")["mobula_drillable"] is known_as


def spoil(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one value deep in the output."""

    def change(output: dict[str, Any]) -> None:
        *folders, last = path.split("/")
        for folder in folders:
            output = output[folder]
        output[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (spoil("shape", 2), "shape is 2, this version knows 1"),
        (spoil("shape", "1"), r"Expected `int`, got `str`.*\$\.shape"),
        (lambda o: o.pop("azs"), "missing required field `azs`"),
        (spoil("name", "../etc"), r"\$\.name"),
        (spoil("hosts/t-a-api-01/name", "t-a-api-02"), "host 't-a-api-02' stands under the name 't-a-api-01'"),
        (spoil("hosts/t-a-api-01/pool", "compute"), "pool 'compute', known are api, loadbalancer"),
        (spoil("hosts/t-a-api-01/az", "d"), "zone 'd', known are a, b, c"),
        (spoil("hosts/t-a-api-01/address", "10.9.2.21"), "its zone has '10.9.1.0/24'"),
        (spoil("hosts/t-a-api-01/address", "nowhere"), "has address 'nowhere'"),
        (spoil("hosts/t-a-api-01/address", "10.9.1.41"), "both have address '10.9.1.41'"),
        (spoil("hosts/t-a-metadata-01/shard", 3), "has shard 3, the region has 1"),
        (spoil("hosts/t-a-api-01/shard", 1), "pool 'api' has shard 1"),
        (spoil("hosts", {}), "no host is in pool nameservice"),
        (spoil("drillable", "yes"), r"Expected `bool`, got `str`.*\$\.drillable"),
    ],
)
def test_an_output_that_cant_be_is_refused_in_a_sentence(
    state: Path, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    value = output()
    change(value)
    path = state / "terraform/region.json"
    path.write_text(json.dumps(value))
    with pytest.raises(OperatorError, match=sentence) as refused:
        read_layout(path)
    assert str(refused.value).startswith(f"read the region from {str(path)!r}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"version": "../../etc", "tarball": "x", "sha256": "00"}'])
def test_a_malformed_release_is_refused_in_a_sentence(state: Path, text: str) -> None:
    (state / "release/release.json").write_text(text)
    with pytest.raises(OperatorError, match=r"read the release from .*; run \./mobula up"):
        read_release(state / "release/release.json")


def ansible_inventory(region_json: Path) -> subprocess.CompletedProcess[str]:
    """The plugin itself, under Ansible."""
    tool = Path(sys.executable).parent / "ansible-inventory"
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(region_json.parent), "LC_ALL": "C.UTF-8", "PYTHONPATH": f"{REPO}:{REPO / 'src'}",
        "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_HOME": str(region_json.parent / "home"),
        "MOBULA_REGION_JSON": str(region_json),
    }  # fmt: skip
    argv = [str(tool), "-i", str(REPO / "inventory/region.yml"), "--list"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd=REPO)


def test_ansible_sees_the_groups_and_variables(state: Path) -> None:
    done = ansible_inventory(state / "terraform/region.json")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["storage"]["hosts"] == [f"t-{az}-storage-01" for az in "abc"]
    # Marked so by Ansible: text from outside is never taken for a template.
    assert seen["_meta"]["hostvars"]["t-a-storage-01"]["ansible_host"] == {"__ansible_unsafe": "10.9.1.41"}


def test_ansible_ends_with_the_sentence_and_no_traceback(state: Path) -> None:
    (state / "terraform/region.json").write_text("{}")
    done = ansible_inventory(state / "terraform/region.json")
    assert done.returncode != 0
    assert "missing required field `shape`" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_registered_check_asks_a_port_of_its_service() -> None:
    for service in catalog().values():
        if service.registered:
            assert {service.registered.port, service.registered.check.port} <= {p.port for p in service.ports}
