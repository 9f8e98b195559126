"""Every role says its variables twice, for Ansible's check and as defaults: both must say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.region import REPO

ROLES = sorted((REPO / "roles").iterdir())
TYPES = {"int": int, "float": float, "str": str, "path": str, "bool": bool, "list": list, "dict": dict}


def options(role: Path) -> dict[str, Any]:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, Any] = specs["argument_specs"]["main"].get("options", {})
    return found


def defaults(role: Path) -> dict[str, Any]:
    file = role / "defaults" / "main.yml"
    return yaml.safe_load(file.read_text()) or {} if file.exists() else {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_argument_specs_say_the_same(role: Path) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert specified == defaults(role)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_variable_has_its_roles_prefix_a_type_its_default_fits_and_a_description(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_")
        assert option["description"].endswith(".")
        if "default" in option:
            assert type(option["default"]) is TYPES[option["type"]], name
