"""`mobula drill`: bad input is a sentence and exit code 2, a verdict is an exit code, and nothing is harmed by mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops import cli, drill_cli
from ops import region as regions
from ops.drills import engine, judge, matrix
from ops.drills.engine import Recorded
from ops.drills.findings import Checked, Verdict
from ops.drills.judge import Judged
from ops.drills.model import Drill
from ops.drills.standing import Standing
from ops.errors import OperatorError
from ops.region import Region
from tests.drills import region_in, scene

Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the engine was asked to run. It never runs."""
    asked: list[dict[str, Any]] = []

    def run(region: Region, drill: Drill, variant: str, **rest: Any) -> Recorded:
        asked.append({"region": region.name, "drill": drill, "variant": variant, **rest})
        found = scene("small")
        return Recorded(
            drill, variant, found, drill.act(found, variant), rest["seed"], 0.0, 100.0, injected_s=106.0, healed_s=136.0,
            settled_s=140.0, ended_s=150.0,
        )  # fmt: skip

    monkeypatch.setattr(engine, "run", run)
    return asked


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran: list[dict[str, Any]]
) -> Run:
    """Runs `mobula` as a process does: exit code, standard output, standard error."""
    monkeypatch.setattr(regions, "STATE", tmp_path)

    def run(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["mobula", *argv])
        code = 0
        try:
            cli.run()
        except SystemExit as end:
            code = int(str(end.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize("path", [("drill",), ("drill", "run"), ("drill", "heal"), ("drill", "list")])
def test_the_help_has_an_example(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.main, [*path, "--help"])
    assert done.exit_code == 0
    assert f"Example: ./mobula {' '.join(path)}" in done.output


def test_the_help_says_what_the_exit_codes_are() -> None:
    assert "0 pass, 1 fail, 2 unknown" in CliRunner().invoke(cli.main, ["drill", "--help"]).output


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("drill bogus", "No such command 'bogus'"),
        ("drill run", "Missing argument 'NAME'"),
        ("drill run fire", "run drill 'fire': there are az-loss, partition, "),
        ("drill run ../az-loss", "run drill '../az-loss': there are az-loss, "),
        ("drill run az-loss --variant z", "run drill 'az-loss' as 'z': it has the variants worst, a, b, c"),
        ("drill run az-loss --az z", "run drill 'az-loss' as 'z': it has the variants worst, a, b, c"),
        ("drill run partition --az a", "run drill 'partition' as 'a': it has the variants isolate-worst, "),
        ("drill run az-loss --az a --variant b", "--variant b and --az a both say which; give one of them"),
        ("drill run az-loss --seed x", "'x' is not a valid integer"),
        ("drill run az-loss --hold 0", "0.0 is not in the range x>=1"),
        ("drill run az-loss --hold nan", "hold it for nan s; 86400 s are the most"),
        ("drill run az-loss --hold inf", "hold it for inf s; 86400 s are the most"),
        ("drill run az-loss --hold 1e12", "hold it for 1e+12 s; 86400 s are the most"),
        ("-R nowhere drill run az-loss", "find region 'nowhere'"),
        ("drill heal all", "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_harms_nobody(
    run: Run, ran: list[dict[str, Any]], argv: str, says: str
) -> None:
    code, out, err = run(*argv.split())
    assert (code, out) == (2, "")
    assert err.startswith("mobula: ")
    assert err.count("\n") == 1
    assert says in err
    assert ran == []


def test_a_matrix_runs_what_it_is_asked_for_and_refuses_what_there_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(matrix, "run_all", lambda *given: asked.append(given[:3]) or [])
    into = tmp_path / "reports"
    for only, says in [("az-loss/z", "run drill 'az-loss' as 'z': it has"), ("fire/a", "run drill 'fire': there are")]:
        code, out, err = run("drill", "matrix", "--only", "az-loss", "--only", only, "--into", str(into))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"mobula: {says}")
    assert asked == []
    assert run("drill", "matrix", "--times", "1", "--only", "az-loss/b", "--into", str(into))[0] == 0
    assert asked == [("lab", [("az-loss", "b")], into)]


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.PASS, 0), (Verdict.FAIL, 1), (Verdict.UNKNOWN, 2)])
def test_a_verdict_is_an_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int) -> None:
    judged = Judged(verdict, [Checked("O1", verdict, ())], [], [], {}, {1: 1})
    monkeypatch.setattr(judge, "judge", lambda *_: judged)
    found, out, _ = run("drill", "run", "az-loss")
    assert found == code
    assert f"verdict: {verdict}\n" in out


def test_a_run_has_its_variant_its_seed_its_time_and_a_folder_of_its_own(
    run: Run, ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    code, out, _ = run("drill", "run", "az-loss", "--az", "b", "--seed", "0", "--hold", "2.5")
    assert code == 2  # an empty history shows nothing
    assert "drill az-loss (b), seed 0" in out
    (asked,) = ran
    assert (asked["variant"], asked["seed"], asked["drill"].hold_s) == ("b", 0, 2.5)
    assert asked["folder"].parent == tmp_path / "lab/drill"
    assert asked["folder"].name.endswith("-az-loss-b")
    assert str(asked["folder"]) in out
    run("drill", "run", "az-loss")
    run("-R", "test", "drill", "run", "partition", "--variant", "all")
    assert [a["variant"] for a in ran[1:]] == ["worst", "all"]
    assert [a["region"] for a in ran[1:]] == ["lab", "test"]
    assert all(0 <= a["seed"] < 10**6 and a["drill"].hold_s == 30 for a in ran[1:])


def test_a_region_that_is_not_well_is_a_sentence_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Recorded:
        raise OperatorError("begin a drill: x: is down; a drill needs a region that is well: ./mobula up")

    monkeypatch.setattr(engine, "run", refuse)
    code, out, err = run("-R", "test", "drill", "run", "az-loss")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith("a drill needs a region that is well: ./mobula -R test up")


def test_nobody_drills_or_heals_a_region_that_another_command_works_on(
    run: Run, ran: list[dict[str, Any]], tmp_path: Path
) -> None:
    with regions.lock(region_in(tmp_path / "lab", name="lab"), "up"):
        regions._held.clear()  # as another process sees it
        for argv in (["run", "az-loss"], ["heal"]):
            code, out, err = run("drill", *argv)
            assert (code, out) == (1, "")
            assert "holds its lock; wait until it has ended" in err
    assert ran == []


def test_healing_says_what_stands_no_more_and_what_still_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("drill", "heal")[:2] == (0, "nothing of a drill stands\n")
    monkeypatch.setattr(Standing, "heal", lambda _: ["heal 'frozen: x': no"])
    code, out, err = run("drill", "heal")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "mobula: heal 'frozen: x': no"


def test_help_does_not_load_what_only_a_run_needs() -> None:
    source = Path(drill_cli.__file__).read_text()
    assert "\nfrom ops.drills" not in source
    assert "\nimport ops.drills" not in source
