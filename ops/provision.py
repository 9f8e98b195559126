"""`mobula up`, `plan` and `down`: one direction, each step looking at what is there.

    tfvars -> image, secrets -> plan -> terraform -> region.json -> release -> site.yml -> region data -> door, agent -> status

No step remembers what an earlier run did; running it again continues. Whatever ended the last run, the next one finishes the job.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobula.lab import door, faults, host
from mobula.lab.network import LabError
from ops import ansible, image, preflight, release, secrets, status, task_image
from ops.accounts import Administration
from ops.environment import DEMO_ACCOUNT
from ops.errors import BadInput, OperatorError
from ops.progress import Progress
from ops.region import CACHE, REPO, Region, load, lock, profiles
from ops.remote import SshRemote
from ops.terraform import PlanSummary, Terraform

DEFAULT_PROFILE = "lab"
SETTLE_BOUND_S = 60.0
SETTLE_POLL_S = 1.0
STORAGE_PORT = 8060


@dataclass(frozen=True, slots=True)
class Summary:
    """What `mobula up` says at its end."""

    status: status.Status
    region: Region
    elapsed_s: float

    def text(self) -> str:
        """For people: what stands, where, and what to type next."""
        if not self.status.ok:
            return status.table(self.status)
        return (
            f"{status.table(self.status)}\n\n"
            f"{len(self.status.hosts)} hosts, version {self.status.version}, up in {self.elapsed_s:.0f} s\n"
            f"the API: https://localhost:{self.region.relay_port} here, https://{self.region.zone} in ./mobula shell\n\n"
            f'next:  eval "$(./mobula env)"    then any Manta client: mmkdir, mput, mls, mget\n'
            f"       ./mobula status           what runs, what is wrong, what to do"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` would change on the machines."""

    lines: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"changes": len(self.lines), "lines": list(self.lines)}

    def text(self) -> str:
        """For people."""
        return "\n".join(self.lines) if self.lines else "no changes"


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
        try:
            with _all_or_nothing(region):
                terraform = _prepare(region, profile, progress)
                changes = terraform.plan()
            with progress.step("terraform"):
                _apply(terraform, changes, progress)
            region = load(region.name)
            secrets.ensure(region)
            built = release.ensure(region, CACHE, image.root_of(CACHE), progress)
            with progress.step("door and key agent"):
                _open_door(region)
            with progress.step("ansible"):
                ansible.run_playbook(region, "site.yml", on_progress=progress)
            with progress.step("region data"):
                _region_data(region)
            with progress.step("verify"):
                seen = _settle(region, built.version, progress)
        except LabError as error:
            raise OperatorError(f"up region {region.name!r}: {error}") from error
    return Summary(seen, region, progress.elapsed_s)


@contextlib.contextmanager
def _all_or_nothing(region: Region) -> Iterator[None]:
    """Refused before its first machine, a new region leaves nothing behind."""
    new = not region.state_dir.exists()
    try:
        yield
    except BaseException:
        if new:
            _forget(region)
        raise


def _forget(region: Region) -> None:
    """Remove the region's working files."""
    shutil.rmtree(region.state_dir, ignore_errors=True)
    for name in ("profile", "place"):
        (region.terraform_dir / f"{name}.auto.tfvars.json").unlink(missing_ok=True)


def _prepare(region: Region, profile: str, progress: Progress) -> Terraform:
    """Everything before the plan: checks, image, first secrets, Terraform's inputs."""
    preflight.check_addresses(region)
    preflight.check(region, _hosts_count(profile))
    if not door.door_is_open(region.name):
        preflight.check_relay_port(region)
    with progress.step("base image"):
        root = image.ensure(CACHE, progress)
    with progress.step("task image"):
        task_image.ensure(CACHE, progress)
    terraform = Terraform(
        region, profile=_profile_file(profile), image=root, task_images=task_image.folder(CACHE), progress=progress
    )
    region.state_dir.mkdir(parents=True, exist_ok=True)
    region.state_dir.chmod(0o700)
    (region.state_dir / "profile").write_text(profile + "\n")
    secrets.ensure(region)
    terraform.init()
    return terraform


def _profile_file(profile: str) -> Path:
    return REPO / "terraform" / "profiles" / f"{profile}.tfvars.json"


def _hosts_count(profile: str) -> int:
    """Machines that a profile asks for, as far as its file can be read (Terraform says what is wrong with it)."""
    try:
        values = json.loads(_profile_file(profile).read_text())
        return 3 * (1 + int(values["shards"]) + sum(int(count) for count in values["pools"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _apply(terraform: Terraform, plan: PlanSummary, progress: Progress) -> None:
    """Show the plan, then do exactly that."""
    for line in plan.lines:
        progress(line)
    if plan.changes:
        terraform.apply(plan)
    terraform.write_output()


def _open_door(region: Region) -> None:
    nameservers = [h.address for h in region.pool("nameservice")]
    door.ensure_door(
        region.name,
        region.zone,
        port=region.relay_port,
        nameservers=nameservers,
        state_dir=region.state_dir,
        image=image.root_of(CACHE),
    )
    door.ensure_agent(region.state_dir, region.secrets / "demo.pem")


def _region_data(region: Region) -> None:
    """Shard map, placement groups, the demo account and its key: whatever of it is not there yet."""
    administration = Administration(region)
    storages = [{"id": h.name, "az": h.az, "address": h.address, "port": STORAGE_PORT} for h in region.pool("storage")]
    shards = max(h.shard for h in region.hosts.values())
    administration.call("region-init", {"storages": storages, "shards": shards})
    administration.call("account-create", {"login": DEMO_ACCOUNT})
    administration.call("key-add", {"login": DEMO_ACCOUNT, "public_key": (region.secrets / "demo.pub").read_text()})


def _settle(region: Region, version: str, progress: Progress) -> status.Status:
    """Wait until all is well, at most `SETTLE_BOUND_S`; answers what was seen last."""
    end = time.monotonic() + SETTLE_BOUND_S
    while True:
        seen = _look(region, version)
        if seen.ok or time.monotonic() > end:
            return seen
        first = seen.findings[0]
        progress(f"waiting at most {end - time.monotonic():.0f} s more: {first.host}: {first.what}"[:160])
        time.sleep(SETTLE_POLL_S)


def _look(region: Region, version: str) -> status.Status:
    remotes = {h.name: SshRemote(region, h.address) for h in region.hosts.values()}
    try:
        planted = faults.standing(region.name, region.zones, region.state_dir)
    except LabError as error:
        raise OperatorError(f"look at region {region.name!r}: {error}") from error
    return status.look(region, remotes, version, planted)


def look(region: Region) -> status.Status:
    """What `mobula status` shows.

    Raises:
        OperatorError: the region is not up.
    """
    if not region.hosts:
        raise OperatorError(f"look at region {region.name!r}: it is not up; run ./mobula up")
    return _look(region, release.installed(region))


def plan(region: Region, asked_profile: str | None, progress: Progress) -> Plan:
    """What `up` would change; changes nothing but the region's working files."""
    profile = choose_profile(asked_profile, region.profile, profiles())
    with lock(region, "plan"):
        if not region.hosts:
            return Plan((f"create region {region.name} with profile {profile}: {_hosts_count(profile)} machines",))
        terraform = Terraform(
            region,
            profile=_profile_file(profile),
            image=image.root_of(CACHE),
            task_images=task_image.folder(CACHE),
            progress=progress,
        )
        terraform.init()
        planned = terraform.plan()
        lines = list(planned.lines)
        if all(change.machine for change in planned.todo):  # without networks nobody can be asked
            todo = {change.machine for change in planned.todo}
            with progress.step("looking for changes on the machines that stand"):
                lines += ansible.drift(region, "site.yml", set(region.hosts) - todo, on_progress=lambda _: None)
        if release.version() != release.installed(region):
            lines.append(f"install release {release.version()} beside {release.installed(region)}")
        if not door.door_is_open(region.name):
            lines.append("open the door")
    return Plan(tuple(lines))


def down(region: Region, progress: Progress) -> None:
    """Remove everything of the region from this machine, also what a crash left behind."""
    with lock(region, "down"), progress.step(f"take region {region.name} down"):
        try:
            host.teardown(region.name, region.cidr, region.state_dir, progress)
        except LabError as error:
            raise OperatorError(f"take region {region.name!r} down: {error}; run the command again") from error
        _forget(region)
