"""Fixtures of all roles' scenarios: a machine to look at, the role to run once more."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

from mobula.lab.network import inside
from ops.ansible import Outcome, read_events
from ops.region import REPO
from tests.molecule import lab

BOUND_S = 90


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the role; `text` is all that Ansible said: as events, or for people (the outcome is empty then)."""

    outcome: Outcome
    text: str

    @property
    def changes(self) -> list[str]:
        """What was changed, or in check mode would have been; nothing may have failed."""
        assert not self.outcome.failures, self.text
        return [item for change in self.outcome.changes for item in change.items or (change.task,)]

    @property
    def refusal(self) -> str:
        """The message of the one failed task."""
        assert len(self.outcome.failures) == 1, self.text
        return self.outcome.failures[0].message


@pytest.fixture(scope="session")
def machine() -> Iterator[Host]:
    """The scenario's first machine, by SSH; this process is in the management network as long as the tests run."""
    name = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"][0]["name"]
    region = lab.region()
    arguments = f"{os.environ['ANSIBLE_SSH_ARGS']} -o ControlPath={os.environ['ANSIBLE_SSH_CONTROL_PATH_DIR']}/%C"
    with inside(f"{region.name}-op"):
        yield testinfra.get_host(
            f"ssh://root@{region.hosts[name].address}",
            ssh_identity_file=os.environ["ANSIBLE_PRIVATE_KEY_FILE"],
            ssh_extra_args=arguments,
        )


@pytest.fixture(scope="session")
def converge() -> Callable[..., Run]:
    """Run the role as molecule does, with some variables set differently."""

    def run(*options: str, plain: bool = False, **variables: Any) -> Run:
        inventories = (Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent, REPO / "inventory" / "region.yml")
        argv = [
            "ansible-playbook", *(f"--inventory={path}" for path in inventories), f"--extra-vars={json.dumps(variables)}", *options,
            str(REPO / "tests" / "molecule" / "converge.yml"),
        ]  # fmt: skip
        env = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "default" if plain else "progress"}
        done = subprocess.run(
            argv, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=BOUND_S
        )  # fmt: skip
        outcome = read_events(done.stdout.splitlines(), lambda _: None)
        assert plain or bool(done.returncode) == bool(outcome.failures), done.stdout
        return Run(outcome, done.stdout)

    return run
