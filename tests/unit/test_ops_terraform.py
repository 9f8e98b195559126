"""Terraform's words, recorded from version 1.11: its plan as lines, its diagnostics as one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.errors import BadInput, OperatorError
from ops.region import REPO, Region
from ops.terraform import Change, PlanSummary, Terraform, condense, settings_of, summarize

VALIDATION = """
Error: Invalid value for variable

  on variables.tf line 38:
  38: variable "pools" {
    ├────────────────
    │ var.pools is object with 4 attributes

every pool has 1 to 9 hosts per zone.

This was checked by the validation rule at variables.tf:50,3-13.

Error: Invalid value for variable

  on variables.tf line 56:
  56: variable "shards" {
    ├────────────────
    │ var.shards is 12

shards must be 1 to 9.

This was checked by the validation rule at variables.tf:60,3-13.
"""
COLOURED = (
    "\x1b[33m╷\x1b[0m\x1b[0m\n\x1b[33m│\x1b[0m \x1b[0m\x1b[1m\x1b[33mWarning: \x1b[0m\x1b[0m\x1b[1mValue for undeclared variable\x1b[0m\n"
    '\x1b[33m│\x1b[0m \x1b[0m\x1b[0mThe root module does not declare a variable named "nmae" but a value was\n\x1b[33m╵\x1b[0m\x1b[0m\n'
    "\x1b[31m╷\x1b[0m\x1b[0m\n\x1b[31m│\x1b[0m \x1b[0m\x1b[1m\x1b[31mError: \x1b[0m\x1b[0m\x1b[1mInvalid value for input variable\x1b[0m\n"
    "\x1b[31m│\x1b[0m \x1b[0m\n\x1b[31m│\x1b[0m \x1b[0m\x1b[0m  on x.auto.tfvars.json line 1:\n"
    '\x1b[31m│\x1b[0m \x1b[0m   1: {"nmae": 3}\x1b[0m\n\x1b[31m│\x1b[0m \x1b[0m\n'
    "\x1b[31m│\x1b[0m \x1b[0mThe given value is not suitable for var.pools declared at\n"
    "\x1b[31m│\x1b[0m \x1b[0mvariables.tf:38,1-17: a number is required.\n\x1b[31m╵\x1b[0m\x1b[0m\n"
)
PLANNED = "\nChanges to Outputs:\n  + azs      = {\n      + a = {\n          + index   = 1\n        }\n    }\n"
POOLS = "Invalid value for variable var.pools is object with 4 attributes every pool has 1 to 9 hosts per zone."
SHARDS = "Invalid value for variable var.shards is 12 shards must be 1 to 9."
SUITABLE = "The given value is not suitable for var.pools declared at variables.tf:38,1-17: a number is required."
BOOT = "\nError: boot lab-a-api-01: no sshd within 120 s\n"


@pytest.mark.parametrize(
    ("err", "out", "sentence"),
    [
        (VALIDATION, "", f"{POOLS}; {SHARDS}"),
        (VALIDATION, PLANNED, f"{POOLS}; {SHARDS}"),
        (COLOURED, PLANNED, f"Invalid value for input variable {SUITABLE}"),
        (BOOT * 3, "lab_server.a: Creating...", "boot lab-a-api-01: no sshd within 120 s"),
        ("", BOOT, "boot lab-a-api-01: no sshd within 120 s"),
        ("Killed\n", "half a\n  plan\n", "Killed half a plan"),
        ("", "", "it said nothing"),
        ("\n╷\n╵\n", " \n", "╷ ╵"),
    ],
)
def test_diagnostics_become_one_sentence_without_our_own_files(err: str, out: str, sentence: str) -> None:
    assert condense(err, out) == sentence


@given(st.text() | st.lists(st.sampled_from(["Error: ", "Warning: x", "│", "\n", "on a line 3", "word "])).map("".join))
def test_whatever_terraform_says_is_a_short_sentence(text: str) -> None:
    said = condense(text)
    assert said
    assert len(said) <= 600
    assert "\n" not in said


def change(actions: list[str], kind: str = "lab_server", **values: Any) -> dict[str, Any]:
    return {
        "address": f"x.{kind}",
        "type": kind,
        "change": {"actions": actions, "before": None, "after": None, **values},
    }


ONE = {"name": "lab-a-api-01"}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ([], ()),
        ([change(["no-op"], after=ONE), change(["read"], after=ONE)], ()),
        ([change(["create"], after=ONE)], ("create machine lab-a-api-01",)),
        ([change(["update"], before={**ONE, "desired_state": "running"}, after=ONE)], ("change machine lab-a-api-01",)),
        ([change(["update"], before={**ONE, "desired_state": "stopped"}, after=ONE)], ("start machine lab-a-api-01",)),
        (
            [change(["update"], before={**ONE, "desired_state": "disk d03 missing"}, after=ONE)],
            ("change machine lab-a-api-01: disk d03 missing",),
        ),
        ([change(["delete"], before=ONE)], ("remove machine lab-a-api-01",)),
        ([change(["delete", "create"], before=ONE, after=ONE)], ("replace machine lab-a-api-01",)),
        ([change(["create", "delete"], before=ONE, after=ONE)], ("replace machine lab-a-api-01",)),
        ([change(["create"], "lab_network", after={"name": "lab"})], ("create networks of lab",)),
        ([change(["create"], "lab_network", after={"cidr": "?"})], ("create networks of x.lab_network",)),
        (
            [change(["delete"], before={"name": "b"}), change(["create"], after=ONE), change(["delete"], before={"name": "a"})],
            ("create machine lab-a-api-01", "remove machine a", "remove machine b"),
        ),
    ],
)  # fmt: skip
def test_a_plan_is_a_line_for_each_change(changes: list[dict[str, Any]], lines: tuple[str, ...]) -> None:
    assert PlanSummary(summarize({"resource_changes": changes}), Path("plan")).lines == lines


def test_a_plan_without_resources_has_no_changes() -> None:
    assert PlanSummary(summarize({}), Path("plan")).changes == 0


BEFORE = {"name": "t", "drillable": True, "hosts": {}}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (BEFORE, BEFORE, ()),
        (BEFORE, {**BEFORE, "drillable": False}, ("set drillable of region t to false",)),
        ({"name": "t", "hosts": {}}, BEFORE, ("set drillable of region t to true",)),
        (BEFORE, {**BEFORE, "hosts": {"t-a-api-01": {}}}, ()),  # a machine is a line of its own
        (None, BEFORE, ()),  # as is everything of a new region
        (BEFORE, None, ()),
    ],
)
def test_a_regions_own_values_are_planned_in_a_line_each(
    before: dict[str, Any] | None, after: dict[str, Any] | None, lines: tuple[str, ...]
) -> None:
    assert settings_of({"output_changes": {"region": {"before": before, "after": after}}}) == lines


def test_a_value_alone_is_a_change_to_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {"region": {"actions": ["update"], "before": BEFORE, "after": {**BEFORE, "drillable": False}}}
    shown = json.dumps({"resource_changes": [change(["no-op"], after=ONE)], "output_changes": changed})
    plan = terraform(tmp_path, monkeypatch, plan=(2, "", ""), show=(0, shown, "")).plan()
    assert (plan.changes, plan.lines, plan.todo) == (1, ("set drillable of region t to false",), ())


class Recorded:
    """Stands in for python-terraform: notes what is run, and answers what was recorded of it."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers = answers
        self.run: list[tuple[str, ...]] = []

    def cmd(self, verb: str, *args: str, **_: object) -> tuple[int, str, str]:
        self.run.append((verb, *args))
        return self.answers.get(verb, (0, "", ""))


def terraform(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: tuple[int, str, str]) -> Terraform:
    """A region's Terraform with recorded answers."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    region = Region("t", "mobula.test", "10.1.0.0/16", 1, folder / "t", folder / "stack", {}, None)
    (folder / "t/terraform").mkdir(parents=True)
    made = Terraform(
        region,
        profile=REPO / "terraform/profiles/small.tfvars.json",
        image=folder,
        task_images=folder,
        progress=lambda _: None,
    )
    made._terraform = Recorded(**answers)
    return made


def test_a_plan_is_saved_shown_and_that_very_plan_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.dumps({"resource_changes": [change(["create"], after=ONE)]})
    made = terraform(tmp_path, monkeypatch, plan=(2, "", ""), show=(0, shown, ""))
    plan = made.plan()
    made.apply(plan)
    file = str(tmp_path / "t/terraform/plan")
    assert plan == PlanSummary((Change("lab-a-api-01", "create machine lab-a-api-01"),), Path(file))
    assert made._terraform.run == [("plan",), ("show", file), ("apply", file)]


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        ((1, PLANNED, VALIDATION), BadInput, f"with terraform/profiles/small.tfvars.json and region.auto.tfvars.json: {POOLS}"),
        ((1, "", BOOT), OperatorError, "terraform plan of region 't': boot lab-a-api-01"),
        ((0, 'Warning: x\nThe root module does not\ndeclare a variable named "nmae" but', ""), BadInput, "no variable 'nmae'"),
    ],
)  # fmt: skip
def test_a_plan_that_fails_says_whether_it_was_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[int, str, str], kind: type[Exception], says: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        terraform(tmp_path, monkeypatch, plan=said).plan()
    assert type(caught.value) is kind
    assert says in str(caught.value)


def test_a_machine_without_terraform_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        made = terraform(tmp_path, patch)
        patch.setattr("shutil.which", lambda _: None)
        with pytest.raises(OperatorError, match="neither terraform nor tofu is on PATH; run ops/setup"):
            Terraform(made._region, profile=tmp_path, image=tmp_path, task_images=tmp_path, progress=lambda _: None)


def test_terraforms_environment_is_the_regions_and_nothing_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_VAR_shards", "9")
    monkeypatch.setenv("TF_LOG", "trace")
    environment = terraform(tmp_path, monkeypatch)._environment()
    assert {name for name in environment if name.startswith("TF_")} == {
        "TF_CLI_CONFIG_FILE", "TF_DATA_DIR", "TF_INPUT", "TF_IN_AUTOMATION",
    }  # fmt: skip


def test_the_output_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = terraform(tmp_path, monkeypatch, output=(0, '{"shape":1}', ""))
    made.write_output()
    assert json.loads((tmp_path / "t/terraform/region.json").read_text()) == {"shape": 1}
    assert [p.name for p in (tmp_path / "t/terraform").iterdir()] == ["region.json"]
