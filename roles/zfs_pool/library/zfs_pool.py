#!/usr/bin/python
"""`zfs_pool`: raidz2 vdevs and hot spares from the disks of a folder; never touches a disk that is not blank or ours.

Decided by a pure planner (`plan`): what is wanted and what was observed give commands, or a refusal that names the disk.
A pool is ours if its property ``mobula:owner`` says region and host. Destroying is not among the things this module can do, nor is anything
about disks that have failed: that is the pool agent's (`mobula.pool`), with which it shares what it knows of disks and of zpool's words.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Not Ansible's own: the folder src/mobula/pool, named in ansible.cfg.
from ansible.module_utils.disks import is_blank
from ansible.module_utils.zpool_status import OWNER_PROPERTY as PROPERTY
from ansible.module_utils.zpool_status import NotUnderstood, parse_status

DOCUMENTATION = """
module: zfs_pool
short_description: A ZFS pool of raidz2 vdevs and hot spares, in safe mode
description: [Creates the pool and a dataset where they are missing; refuses whatever is not blank or ours.]
options:
  name: {type: str, required: true, description: Name of the pool.}
  dataset: {type: str, required: true, description: Dataset below it.}
  folder: {type: path, required: true, description: Folder of the disks.}
  vdevs: {type: int, required: true, description: Number of raidz2 vdevs.}
  spares: {type: int, required: true, description: Number of hot spares.}
  owner: {type: str, required: true, description: "Region and host, as <region>/<host>."}
author: [Mobula]
"""
EXAMPLES = """
- name: Create the pool
  zfs_pool: {name: tank, dataset: objects, folder: /disks, vdevs: 3, spares: 2, owner: lab/lab-a-storage-01}
"""
RETURN = """
items: {description: "Commands that were run, or would be in check mode", returned: always, type: list, elements: str}
"""
WIDTH_MIN = 4


class Refused(Exception):
    """The wish can't be met without touching what is not ours."""


@dataclass(frozen=True)
class Wanted:
    name: str
    dataset: str
    vdevs: int
    spares: int
    owner: str


@dataclass(frozen=True)
class Observed:
    """`disks`: path -> blank; `owner` None: there is no such pool, "": it has no owner; `members`: disks of the pool, spares too."""

    disks: dict = field(default_factory=dict)
    owner: str | None = None
    members: frozenset = frozenset()
    datasets: frozenset = frozenset()


def layout(disks: list, vdevs: int, spares: int) -> tuple[list, list]:
    """Disks by vdev, and the spares: the last ones.

    Raises:
        Refused: they can't be divided evenly, or the vdevs would be too narrow.
    """
    width, rest = divmod(len(disks) - spares, vdevs)
    if rest or width < WIDTH_MIN:
        raise Refused(
            f"make {vdevs} raidz2 vdevs and {spares} spares of {len(disks)} disks: {vdevs} x n + {spares} with n >= {WIDTH_MIN} are needed"
        )
    data = disks[: len(disks) - spares]
    return [data[n * width : (n + 1) * width] for n in range(vdevs)], disks[len(disks) - spares :]


def plan(wanted: Wanted, observed: Observed) -> list:
    """Commands that make the pool as wanted; none when it is.

    Raises:
        Refused: names the pool or disk that is in the way.
    """
    dataset = f"{wanted.name}/{wanted.dataset}"
    commands = []
    if observed.owner is None:
        foreign = sorted(path for path, blank in observed.disks.items() if not blank)
        if foreign:
            raise Refused(
                f"create pool {wanted.name!r} for {wanted.owner}: disk {foreign[0]} is not blank (or has failed) and belongs to "
                "no pool of ours; find out whose it is, then wipe it or take it out of the layout"
            )
        vdevs, spares = layout(sorted(observed.disks), wanted.vdevs, wanted.spares)
        argv = ["zpool", "create", wanted.name]
        for vdev in vdevs:
            argv += ["raidz2", *vdev]
        commands.append([*argv, "spare", *spares])
        commands.append(["zfs", "set", f"{PROPERTY}={wanted.owner}", wanted.name])
        commands.append(["zpool", "set", "failmode=continue", wanted.name])
    elif observed.owner == "" and not observed.datasets and observed.members == frozenset(observed.disks):
        # Interrupted between its creation and its label: empty, and of exactly our disks.
        commands.append(["zfs", "set", f"{PROPERTY}={wanted.owner}", wanted.name])
    elif observed.owner != wanted.owner:
        raise Refused(
            f"use pool {wanted.name!r} for {wanted.owner}: its owner is {observed.owner or 'not named'}; "
            "if its data is not needed, destroy it by hand first"
        )
    if dataset not in observed.datasets:
        commands.append(["zfs", "create", dataset])
    return commands


def members_of(status: str, name: str) -> frozenset:
    """Disks of the pool, spares too."""
    try:
        pool = parse_status(status, name)
    except NotUnderstood:
        return frozenset()
    return frozenset(leaf.name for node in (*pool.vdevs, *pool.spares) for leaf in node.leaves())


def run(argv: list) -> subprocess.CompletedProcess:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def observe(wanted: Wanted, folder: Path) -> Observed:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if not paths:
        raise Refused(f"create pool {wanted.name!r} for {wanted.owner}: {folder} has no disks; look at the layout")
    owner = run(["zfs", "get", "-H", "-o", "value", PROPERTY, wanted.name])
    if owner.returncode:
        return Observed(disks={str(p): is_blank(p) for p in paths})
    datasets = run(["zfs", "list", "-H", "-r", "-o", "name", wanted.name]).stdout.split()
    value = owner.stdout.strip()
    status = run(["zpool", "status", wanted.name]).stdout
    return Observed(
        disks={str(p): is_blank(p) for p in paths},
        owner="" if value == "-" else value,
        members=members_of(status, wanted.name),
        datasets=frozenset(datasets) - {wanted.name},
    )


def main() -> None:
    text, number = {"type": "str", "required": True}, {"type": "int", "required": True}
    module = AnsibleModule(
        argument_spec={
            "name": text, "dataset": text, "folder": {"type": "path", "required": True}, "vdevs": number, "spares": number, "owner": text,
        },
        supports_check_mode=True,
    )  # fmt: skip
    p = module.params
    wanted = Wanted(p["name"], p["dataset"], p["vdevs"], p["spares"], p["owner"])
    try:
        commands = plan(wanted, observe(wanted, Path(p["folder"])))
        for argv in [] if module.check_mode else commands:
            done = run(argv)
            if done.returncode:
                raise Refused(f"run {' '.join(argv)}: {done.stderr.strip()}")
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(commands), items=[" ".join(argv) for argv in commands])


if __name__ == "__main__":
    main()
