"""The machines that roles are tested on: a throw-away region, laid out as Terraform lays one out, of which only the named hosts are made.

So a role finds every variable that it has in a region, and the lab's own code makes and removes the machines. Nothing is remembered
between runs: whatever an earlier one left is found by the region's name and by its folder.

    python -m tests.molecule.lab create HOST...    what molecule's create.yml calls
    python -m tests.molecule.lab remove            what its destroy.yml calls
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mobula.lab import host, machines, network
from mobula.lab.machines import Machine
from ops import ansible, image, release, secrets
from ops.progress import Progress
from ops.region import CACHE, REPO, SHAPE, Host, Region, read_output

NAME, DOMAIN, CIDR = "mol", "mobula.test", "10.79.0.0/16"
PROFILE = REPO / "terraform" / "profiles" / "small.tfvars.json"
STATE = Path(tempfile.gettempdir()) / "mobula-molecule"
STATE_DIR = STATE / NAME
EPHEMERAL = STATE / "molecule"
"""molecule's own notes, which it wants even after `destroy`"""


def _layout() -> dict[str, Any]:
    """The outputs of Terraform's module `layout`, which needs no provider."""
    tool = "terraform" if shutil.which("terraform") else "tofu"
    with tempfile.TemporaryDirectory() as work:
        config = Path(work) / "rc"
        config.touch()  # nothing of the user's
        env = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "TF_DATA_DIR": f"{work}/data"}
        values = [f"-var={key}={value}" for key, value in (("name", NAME), ("domain", DOMAIN), ("cidr", CIDR))]
        for argv in (
            ["init", "-input=false", "-backend=false"],
            ["apply", "-input=false", "-auto-approve", f"-state={work}/state", f"-var-file={PROFILE}", *values],
            ["output", "-json", f"-state={work}/state"],
        ):
            argv = [tool, f"-chdir={REPO / 'terraform' / 'modules' / 'layout'}", *argv]  # noqa: PLW2901
            said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    return {name: output["value"] for name, output in json.loads(said).items()}


def _write_output() -> None:
    """The region as `mobula up` would note it."""
    output = {
        "shape": SHAPE, "name": NAME, "domain": DOMAIN, "backend": "lab", "cidr": CIDR, "profile": "small", "relay_port": 1024, "shards": 1,
        **_layout(),
    }  # fmt: skip
    path = STATE_DIR / "terraform" / "region.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(output))


def region() -> Region:
    """The throw-away region; without hosts before `prepare`."""
    known = read_output(STATE_DIR).get("hosts", {})
    return Region(
        name=NAME, domain=DOMAIN, cidr=CIDR, relay_port=1024, state_dir=STATE_DIR, terraform_dir=STATE_DIR / "terraform", profile="small",
        hosts={name: Host(**{field: values[field] for field in Host.__slots__}) for name, values in known.items()},
    )  # fmt: skip


def prepare(progress: Progress) -> Region:
    """All that `mobula up` has before its first machine: image, layout, secrets, release."""
    root = image.ensure(CACHE, progress)
    STATE_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (STATE_DIR / "terraform" / "region.json").exists():
        _write_output()
    found = region()
    secrets.ensure(found)
    release.ensure(found, CACHE, root, progress)
    return found


def create(names: list[str]) -> None:
    """Make the networks and these of the region's machines, and wait until their sshd greets."""
    found = region()
    addresses = {pool: [h.address for h in found.pool(pool)] for pool in ("nameservice", "loadbalancer")}
    network.ensure_region(NAME, CIDR, addresses["nameservice"], addresses["loadbalancer"])
    output = read_output(STATE_DIR)
    for name in names:
        wanted = output["hosts"][name]
        machines.ensure(
            Machine(
                region=NAME, cidr=CIDR, name=name, zone=output["azs"][wanted["az"]]["index"], address=wanted["address"],
                disks=wanted["disks"], disk_size_bytes=wanted["disk_size_bytes"], state_dir=STATE_DIR, image=image.root_of(CACHE),
            )
        )  # fmt: skip


def remove() -> None:
    """Everything of the region, also what a crash left."""
    host.teardown(NAME, CIDR, STATE_DIR, lambda _: None)


def left() -> list[str]:
    """What of the region is still on this machine."""
    groups = [p for depth in ("*", "*/*") for p in machines.CGROUP.glob(f"{depth}/mobula-{NAME}*")]
    found = [*network.NETNS.glob(f"{NAME}-*"), *groups, *([STATE_DIR] if STATE_DIR.exists() else [])]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{STATE_DIR}/" in line]
    routes = [line for line in network.run(["ip", "route", "show", "type", "blackhole"]).splitlines() if CIDR in line]
    return [*map(str, found), *mounts, *routes]


def environment(found: Region) -> dict[str, str]:
    """What molecule and its Ansible run in: the way into the region, and nothing of the user's."""
    values = ansible.environment(found)
    del values["ANSIBLE_STDOUT_CALLBACK"], values["ANSIBLE_INVENTORY"]
    return {
        **values,
        # Molecule's own inventory (YAML) says which hosts are made, ours what they are.
        "ANSIBLE_INVENTORY_ENABLED": "region,yaml",
        "MOBULA_REPO": str(REPO),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(EPHEMERAL),
        # Before `create` and after `destroy` there is no inventory of ours.
        "MOLECULE_ANSIBLE_ARGS_STRICT_MODE": "1",
        "HOME": str(EPHEMERAL),
    }


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "create":
        create(arguments)
    else:
        remove()
