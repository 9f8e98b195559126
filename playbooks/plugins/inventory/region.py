"""Inventory of a region from Terraform's output: groups are pools, zones and shards; variables are computed here, not in Jinja."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ops.catalog import services_of

DOCUMENTATION = """
name: region
short_description: Hosts of a Mobula region
description: Reads the output of Terraform that MOBULA_REGION_JSON names, and the release that lies beside it.
options:
  plugin:
    description: Always C(region).
    required: true
    choices: [region]
"""
SHAPE = 1

# What a host registers, by pool: name, port, and how its health is found out. "@" is the region's public name.
REGISTERED = {
    "nameservice": [("ns", 53, {"kind": "dns", "port": 53, "path": ""})],
    "storage": [("storage", 8060, {"kind": "http", "port": 8060, "path": "/ping"})],
    "api": [
        ("webapi", 8080, {"kind": "http", "port": 8080, "path": "/ping"}),
        ("authcache", 8070, {"kind": "tcp", "port": 8070, "path": ""}),
    ],
    "loadbalancer": [("@", 443, {"kind": "http", "port": 8404, "path": "/healthy"})],
}
CHECK = {"interval_s": 1.0, "timeout_s": 1.0, "fall": 2, "rise": 1}
POSTGRES = {
    "database": "mobula",
    "user": "mobula",
    "port": 5432,
    "ca": "/etc/mobula/secrets/ca.pem",
    "certificate": "/etc/mobula/secrets/client.pem",
    "key": "/etc/mobula/secrets/client.key",
}


def own_zone_first(hosts: list[dict[str, Any]], az: str) -> list[dict[str, Any]]:
    """The same hosts, those of the zone first, otherwise by name."""
    return sorted(hosts, key=lambda h: (h["az"] != az, h["name"]))


def region_variables(region: dict[str, Any], state_dir: str, release: dict[str, str]) -> dict[str, Any]:
    """Variables of all hosts."""
    hosts = sorted(region["hosts"].values(), key=lambda h: h["name"])
    return {
        "mobula_region": region["name"],
        "mobula_zone": f"{region['name']}.{region['domain']}",
        "mobula_cidr": region["cidr"],
        "mobula_az_cidrs": [az["cidr"] for az in region["azs"].values()],
        "mobula_op_networks": [region["networks"]["op"]]
        + [f"{_prefix(region)}.25{az['index']}.1" for az in region["azs"].values()],
        "mobula_shards": region["shards"],
        "mobula_all_hosts": [{"name": h["name"], "address": h["address"]} for h in hosts],
        "mobula_ensemble": [
            {"id": region["azs"][h["az"]]["index"], "address": h["address"]}
            for h in hosts
            if h["pool"] == "nameservice"
        ],
        "mobula_postgres": POSTGRES,
        "mobula_secrets": f"{state_dir}/secrets",
        "mobula_release": release,
    }


def _prefix(region: dict[str, Any]) -> str:
    return ".".join(region["cidr"].split(".")[:2])


def host_variables(region: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Variables of one host; lists of servers have its own zone's first."""
    near = own_zone_first(list(region["hosts"].values()), host["az"])

    def addresses(pool: str) -> list[str]:
        return [h["address"] for h in near if h["pool"] == pool]

    registrar = {
        "zookeeper": [f"{a}:2181" for a in addresses("nameservice")],
        "session_s": 4.0,
        "status_port": 8054,
        "services": [{"name": n, "port": p, "check": {**c, **CHECK}} for n, p, c in REGISTERED.get(host["pool"], [])],
    }
    ports = [p for service in services_of(host["pool"]) for p in service.ports]
    return {
        "ansible_host": host["address"],
        "mobula_identity": {
            "region": region["name"],
            "host": host["name"],
            "az": host["az"],
            "address": host["address"],
        },
        "mobula_key_owner": "postgres" if host["pool"] == "metadata" else "mobula",
        "mobula_registrar": registrar,
        "mobula_ports": [{"port": p.port, "protocol": p.protocol, "source": p.source} for p in ports],
        "mobula_az": host["az"],
        "mobula_pool": host["pool"],
        "mobula_address": host["address"],
        "mobula_shard": host["shard"],
        "mobula_disks": host["disks"],
        "mobula_server_id": region["azs"][host["az"]]["index"],
        "mobula_zookeeper": [f"{a}:2181" for a in addresses("nameservice")],
        "mobula_nameservers": addresses("nameservice"),
        "mobula_authcaches": [f"{a}:8070" for a in addresses("api")],
        "mobula_peers": [
            {"host": h["name"], "address": h["address"]}
            for h in near
            if h["pool"] == "metadata" and h["shard"] == host["shard"]
        ],
    }


def read(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        AnsibleParserError: it is missing or malformed; says which file.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AnsibleParserError(f"read {what} from {str(path)!r}: {error}; run ./mobula up") from error
    if not isinstance(value, dict):
        raise AnsibleParserError(f"read {what} from {str(path)!r}: it is not a JSON object; run ./mobula up")
    return value


class InventoryModule(BaseInventoryPlugin):
    NAME = "region"

    def verify_file(self, path: str) -> bool:
        return path.endswith("region.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        named = os.environ.get("MOBULA_REGION_JSON")
        if not named:
            raise AnsibleParserError("read the region: MOBULA_REGION_JSON names no file; run Ansible by ./mobula")
        output = Path(named)
        region = read(output, "the region")
        if region.get("shape") != SHAPE:
            raise AnsibleParserError(
                f"read the region from {named!r}: shape is {region.get('shape')!r}, this version knows {SHAPE}"
            )
        state_dir = output.parent.parent
        release = read(state_dir / "release" / "release.json", "the release")
        for name, value in region_variables(region, str(state_dir), release).items():
            inventory.set_variable("all", name, value)
        for host in region["hosts"].values():
            groups = [host["pool"], f"az_{host['az']}", *([f"shard_{host['shard']}"] if host["shard"] else [])]
            for group in groups:
                inventory.add_group(group)
                inventory.add_host(host["name"], group=group)
            for name, value in host_variables(region, host).items():
                inventory.set_variable(host["name"], name, value)
