"""Terraform, by python-terraform: the only importer, and the only way in which anything here drives it.

Variables go into files (never ``-var``), so that every run, a destroying one too, sees the same values; a plan is saved, shown, and
that very plan applied. Works with OpenTofu as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import python_terraform

from ops.errors import BadInput, OperatorError
from ops.region import REPO, Region

PROVIDER = "terraform.local/mobula/lab"
PROVIDER_VERSION = "0.1.0"
PARALLELISM = 8
"""machines that boot at once: on two cores more of them only wait for each other"""


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that an apply would change. `machine`: its host's name; empty for the networks of the region."""

    machine: str
    line: str


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What an apply would change, and the file that says it to Terraform."""

    todo: tuple[Change, ...]
    file: Path
    settings: tuple[str, ...] = ()
    """a line for each of the region's own values"""

    @property
    def lines(self) -> tuple[str, ...]:
        """A line per change, for people."""
        return (*(change.line for change in self.todo), *self.settings)

    @property
    def changes(self) -> int:
        return len(self.lines)


def summarize(plan: dict[str, Any]) -> tuple[Change, ...]:
    """The changes of ``terraform show -json``'s plan."""
    words = {("create",): "create", ("update",): "change", ("delete",): "remove"}
    found = []
    for change in plan.get("resource_changes", []):
        actions = tuple(change["change"]["actions"])
        if actions in {("no-op",), ("read",)}:
            continue
        before, after = (change["change"][when] or {} for when in ("before", "after"))
        name = (after or before).get("name", change["address"])
        word = words.get(actions, "replace")
        if change["type"] != "lab_server":
            found.append(Change("", f"{word} networks of {name}"))
            continue
        # The provider reads what keeps a machine from being as wanted into its desired_state.
        state = before.get("desired_state", "") if actions == ("update",) else ""
        word = "start" if state == "stopped" else word
        found.append(Change(name, f"{word} machine {name}" + (f": {state}" if state not in _STATES else "")))
    return tuple(sorted(found, key=lambda c: c.line))


_STATES = {"", "running", "stopped"}


def settings_of(plan: dict[str, Any]) -> tuple[str, ...]:
    """What changes of a standing region as a whole, by the same plan's output `region`. Hosts are resources: see `summarize`."""
    change = plan.get("output_changes", {}).get("region", {})
    before, after = change.get("before") or {}, change.get("after") or {}
    changed = [key for key in sorted(after) if before and key != "hosts" and before.get(key) != after[key]]
    return tuple(f"set {key} of region {after['name']} to {json.dumps(after[key])}" for key in changed)


# Of a diagnostic: where in our own files it was found, and by which of our rules; of no use to an operator.
_OURS = re.compile(r"on \S+ line \d+|\d+: |├|This was checked by the validation rule")


def condense(err: str, out: str = "") -> str:
    """Terraform's diagnostics as one sentence: the words of each error.

    The errors end with standard error (`err`); `out` counts only when that tells of none.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", err if "Error: " in err else f"{err}\n{out}")
    lines = [line.strip("│╷╵ \t") for line in plain.splitlines()]
    errors: list[list[str]] = []
    within = False
    for line in lines:
        if line.startswith(("Error: ", "Warning: ")):
            within = line.startswith("Error: ")
            errors += [[]] if within else []
        if within and line and not _OURS.match(line):
            errors[-1].append(line.removeprefix("Error: "))
    return (
        "; ".join(dict.fromkeys(" ".join(e) for e in errors))[:600]
        or " ".join(plain.split())[-400:]
        or "it said nothing"
    )


class Terraform:
    """One region's Terraform. `init` first."""

    def __init__(
        self, region: Region, *, profile: Path, image: Path, task_images: Path, progress: Callable[[str], None]
    ) -> None:
        self._region = region
        self._folder = region.state_dir / "terraform"
        self._progress = progress
        self._profile = profile
        self._image = image
        self._task_images = task_images
        binary = shutil.which("terraform") or shutil.which("tofu")
        if binary is None:
            raise OperatorError("run Terraform: neither terraform nor tofu is on PATH; run ops/setup")
        self._terraform = python_terraform.Terraform(working_dir=str(region.terraform_dir), terraform_bin_path=binary)

    def _write_inputs(self) -> None:
        """The two generated variable files beside the region's own, and the provider where Terraform looks for it."""
        for file in (self._profile, self._region.terraform_dir / "region.auto.tfvars.json"):
            _must_be_object(file)
        values = self._profile.read_text()
        paths = {"state_dir": self._region.state_dir, "image": self._image, "task_images": self._task_images}
        place = json.dumps({name: str(path) for name, path in paths.items()})
        for name, text in (("profile", values), ("place", place)):
            (self._region.terraform_dir / f"{name}.auto.tfvars.json").write_text(text)
        mirror = self._folder / "mirror"
        wrapper = mirror / PROVIDER / PROVIDER_VERSION / "linux_amd64" / f"terraform-provider-lab_v{PROVIDER_VERSION}"
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        # No path of this machine in it: Terraform's lock file holds its hash.
        wrapper.write_text('#!/bin/sh\nexec "${LAB_PYTHON:-python3}" -m mobula.lab.serve "$@"\n')
        wrapper.chmod(0o755)
        installation = f'filesystem_mirror {{\n path = "{mirror}"\n include = ["terraform.local/*/*"]\n}}'
        (self._folder / "cli.tfrc").write_text(
            f"disable_checkpoint = true\nprovider_installation {{\n{installation}\n}}\n"
        )

    def _environment(self) -> dict[str, str]:
        source = str(REPO / "src")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        return {
            **inherited, "TF_CLI_CONFIG_FILE": str(self._folder / "cli.tfrc"), "TF_DATA_DIR": str(self._folder / "data"),
            "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "LAB_PYTHON": sys.executable, "PYTHONPATH": source, "CHECKPOINT_DISABLE": "1",
        }  # fmt: skip

    def _run(self, verb: str, *args: str, ok: Sequence[int] = (0,), **options: Any) -> tuple[int, str]:
        # python-terraform hands its own process's environment on; there is no other way in.
        before, wanted = dict(os.environ), self._environment()
        os.environ.clear()
        os.environ.update(wanted)
        try:
            code, out, err = self._terraform.cmd(verb, *args, capture_output=True, raise_on_error=False, **options)
        finally:
            os.environ.clear()
            os.environ.update(before)
        if code not in ok:
            said = condense(err or "", out or "")
            if re.search("variable|tfvars", said, re.IGNORECASE):
                raise self._bad_values(verb, said)
            raise OperatorError(f"terraform {verb} of region {self._region.name!r}: {said}")
        return code, out or ""

    def _bad_values(self, verb: str, said: str) -> BadInput:
        files = f"{self._profile.relative_to(REPO)} and region.auto.tfvars.json"
        return BadInput(f"terraform {verb} of region {self._region.name!r} with {files}: {said}")

    def init(self) -> None:
        """Write Terraform's inputs and make its working state; quick when nothing has changed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_inputs()
        # The lock file of another clone or provider version must not stand in the way: our one provider comes from this clone.
        (self._region.terraform_dir / ".terraform.lock.hcl").unlink(missing_ok=True)
        self._run(
            "init",
            backend_config=f"path={self._folder / 'terraform.tfstate'}",
            reconfigure=python_terraform.IsFlagged,
            no_color=python_terraform.IsFlagged,
        )

    def plan(self) -> PlanSummary:
        """What would change, saved to a file that `apply` takes."""
        file = self._folder / "plan"
        _, said = self._run(
            "plan", ok=(0, 2), out=str(file), detailed_exitcode=python_terraform.IsFlagged, no_color=python_terraform.IsFlagged,
            lock_timeout="20s",
        )  # fmt: skip
        if unknown := re.search(r'does not\s+declare a variable named\s+"(\w+)"', said):  # only a warning to Terraform
            raise self._bad_values("plan", f"there is no variable {unknown[1]!r}")
        _, shown = self._run("show", str(file), json=python_terraform.IsFlagged, no_color=python_terraform.IsFlagged)
        planned = json.loads(shown)
        return PlanSummary(summarize(planned), file, settings_of(planned))

    def apply(self, plan: PlanSummary) -> None:
        """Do what the plan says."""
        self._run(
            "apply", str(plan.file), parallelism=PARALLELISM, no_color=python_terraform.IsFlagged, lock_timeout="20s"
        )

    def write_output(self) -> None:
        """Put Terraform's output `region` where the later stages read it."""
        _, text = self._run("output", "region", json=python_terraform.IsFlagged)
        new = self._folder / "region.json.new"
        new.write_text(json.dumps(json.loads(text), indent=1))
        new.rename(self._folder / "region.json")


def _must_be_object(file: Path) -> None:
    """Refuse a malformed variable file before Terraform runs, by its name."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"read {str(file)!r}: {error}; mend the file") from error
    if not isinstance(value, dict):
        raise BadInput(f"read {str(file)!r}: it holds a {type(value).__name__}, not a JSON object; mend the file")
