"""Inventory of a region from Terraform's output: groups are pools, zones and shards; `ops.inventory` computes the variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ops.errors import OperatorError
from ops.inventory import groups_of, read_layout, read_release, variables

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
        state_dir = Path(named).parent.parent
        try:
            layout, release = read_layout(Path(named)), read_release(state_dir / "release" / "release.json")
        except OperatorError as error:
            raise AnsibleParserError(str(error)) from error
        for host in layout.hosts.values():
            for group in groups_of(host):
                inventory.add_group(group)
                inventory.add_host(host.name, group=group)
        for name, values in variables(layout, release, state_dir).items():
            for key, value in values.items():
                inventory.set_variable(name, key, value)
