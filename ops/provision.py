"""`mobula up`, `plan` and `down`: one direction, each step looking at what is there.

    tfvars -> secrets, image -> terraform -> region.json -> release -> site.yml -> region data -> door, agent -> status

No step remembers what an earlier run did; running it again continues. Whatever ended the last run, the next one finishes the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mobula.lab import door
from ops import ansible, image, preflight, release, secrets, status
from ops.errors import BadInput
from ops.progress import Progress
from ops.region import CACHE, REPO, Region, load, lock, profiles
from ops.terraform import PlanSummary, Terraform

DEMO_ACCOUNT = "demo"
DEFAULT_PROFILE = "lab"
SETTLE_BOUND_S = 90.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What `mobula up` says at its end."""

    status: status.Status
    url: str
    elapsed_s: float


def choose_profile(asked: str | None, standing: str | None, known: Iterable[str]) -> str:
    """The profile to use: what was asked, what stands, or the default.

    Raises:
        BadInput: unknown, or another one than the standing region's.
    """
    known = list(known)
    if asked is not None and asked not in known:
        raise BadInput(f"use profile {asked!r}: terraform/profiles/ has only {', '.join(known)}; name one of these")
    if asked and standing and asked != standing:
        raise BadInput(
            f"use profile {asked!r}: the region stands with profile {standing!r}; leave the profile out, or take the region down first"
        )
    return asked or standing or DEFAULT_PROFILE


def up(region: Region, asked_profile: str | None, progress: Progress) -> Summary:
    """Bring `region` to what this clone says, whatever is there now."""
    profile = choose_profile(asked_profile, region.profile, profiles())
    with lock(region, "up"):
        terraform = prepare(region, profile, progress)
        with progress.step("terraform"):
            apply(terraform, terraform.plan(), progress)
        region = load(region.name)
        secrets.ensure(region)
        built = release.ensure(region, CACHE, image.root_of(CACHE), progress)
        with progress.step("door and key agent"):
            open_door(region)
        with progress.step("ansible"):
            ansible.run_playbook(region, "site.yml", on_progress=progress)
        with progress.step("region data"):
            region_data(region)
        with progress.step("verify"):
            seen = settle(region, built.version)
    return Summary(seen, f"https://127.0.0.1:{region.relay_port}", progress.elapsed_s)


def prepare(region: Region, profile: str, progress: Progress) -> Terraform:
    """Everything before the first change to a machine: checks, image, first secrets, Terraform's inputs."""
    preflight.check_addresses(region)
    preflight.check(region, _hosts_count(profile))
    if not door.is_running(region.state_dir):
        preflight.check_relay_port(region)
    with progress.step("base image"):
        root = image.ensure(CACHE, progress)
    region.state_dir.mkdir(parents=True, exist_ok=True)
    region.state_dir.chmod(0o700)
    (region.state_dir / "profile").write_text(profile + "\n")
    secrets.ensure(region)
    terraform = Terraform(
        region, profile=REPO / "terraform" / "profiles" / f"{profile}.tfvars.json", image=root, progress=progress
    )
    terraform.init()
    return terraform


def _hosts_count(profile: str) -> int:
    values = json.loads((REPO / "terraform" / "profiles" / f"{profile}.tfvars.json").read_text())
    return 27 if not isinstance(values, dict) else 15


def apply(terraform: Terraform, plan: PlanSummary, progress: Progress) -> None:
    """Show the plan, then do exactly that."""
    for line in plan.lines:
        progress(line)
    if plan.changes:
        terraform.apply(plan)
    terraform.write_output()
