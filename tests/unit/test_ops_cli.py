"""The command line: every command explains itself with an example; bad input is one sentence and exit code 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mobula.lab import network
from ops import cli
from ops import region as regions
from ops.errors import OperatorError

Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group, `./mobula` itself first."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


ALL = list(commands(cli.main))
IDS = [" ".join(path) or "mobula" for path in ALL]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command as a process does, with no region up: exit code, standard output, standard error."""
    monkeypatch.setattr(regions, "STATE", tmp_path)

    def run(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["mobula", *argv])
        code = 0
        try:
            cli.run()
        except SystemExit as end:
            code = int(str(end.code))  # a sentence in place of a code fails here
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def machine(tmp_path: Path) -> str:
    """A storage host that region `lab` has, as far as its folder goes."""
    name = "lab-a-storage-01"
    folder = tmp_path / "lab/machines" / name
    (folder / "disks").mkdir(parents=True)
    label = {
        "region": "lab", "cidr": "10.77.0.0/16", "name": name, "zone": 1, "address": "10.77.1.41", "disks": 0,
        "disk_size_bytes": 4, "state_dir": str(tmp_path / "lab"), "image": "image",
    }  # fmt: skip
    (folder / "label.json").write_text(json.dumps(label))
    return name


@pytest.mark.parametrize("path", ALL, ids=IDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_of_every_command_has_an_example_of_that_command(path: tuple[str, ...], flag: str) -> None:
    done = CliRunner().invoke(cli.main, [*path, flag])
    assert done.exit_code == 0
    assert re.search(rf"^  (  |Example: ).*\./mobula( -R \w+)?\b.*{'.*'.join(path)}", done.output, re.MULTILINE)


def test_what_prints_data_prints_json_too() -> None:
    for path in [("status",), ("audit",), ("plan",), ("env",), ("account", "list")]:
        assert "--json" in CliRunner().invoke(cli.main, [*path, "--help"]).output


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("bogus", "No such command 'bogus'"),
        ("lab bogus", "./mobula lab --help says what it takes"),
        ("status --yaml", "No such option"),
        ("-R nowhere status", "find region 'nowhere': terraform/regions/ has only lab, test; name one of these"),
        ("-R ../lab status", "find region '../lab'"),
        ("-R", "requires an argument"),
        ("up --profile huge", "use profile 'huge': terraform/profiles/ has only lab, small; name one of these"),
        ("plan --profile huge", "use profile 'huge'"),
        ("ssh", "Missing argument 'HOST'"),
        ("ssh lab-z-api-09", "find host 'lab-z-api-09' in region 'lab': it has no hosts yet"),
        ("logs lab-z-api-09", "find host 'lab-z-api-09'"),
        ("logs lab-a-api-01 -n many", "'many' is not a valid integer"),
        ("logs lab-a-api-01 -n -5", "-5 is not in the range x>=1"),
        ("audit -n -1", "-1 is not in the range x>=0"),
        ("account create", "Missing argument 'LOGIN'"),
        ("account create alice/backup --operator", "create 'alice/backup': a sub-user has no --email"),
        ("account key add alice", "Missing argument 'FILE'"),
        ("account key add alice missing.pub", "read 'missing.pub': [Errno 2]"),
        ("account key add alice .", "read '.': [Errno 21]"),
        ("lab power-off lab-z-api-09", "find machine 'lab-z-api-09': there is lab-a-storage-01"),
        ("lab fail-disk lab-z-api-09 d01", "find machine 'lab-z-api-09': there is lab-a-storage-01"),
        ("lab fail-disk lab-a-storage-01 d01", "fail disk 'd01' of lab-a-storage-01: it has no disks"),
        ("lab cut a", "Missing argument 'OTHER'"),
        ("lab cut a z", "find AZ 'a': there are none yet"),
        ("lab isolate Z", "find AZ 'Z'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run: Run, machine: str, argv: str, says: str) -> None:
    code, out, err = run(*argv.split())
    assert (code, out) == (2, "")
    assert err.startswith("mobula: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("status", "look at region 'lab': it is not up; run ./mobula up"),
        ("audit", "audit region 'lab': it is not up; run ./mobula up"),
        ("-R test env", "print the environment of region 'test': it is not up; run ./mobula -R test up"),
        ("shell", "open a shell in region 'lab': it is not up; run ./mobula up"),
        ("account list", "region 'lab' has no api hosts; run ./mobula up"),
    ],
)
def test_a_region_that_is_not_up_is_one_sentence_and_exit_code_1(run: Run, argv: str, says: str) -> None:
    code, out, err = run(*argv.split())
    assert (code, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


def test_advice_names_a_region_that_is_not_the_default_one() -> None:
    text = "api-01: is down -> ./mobula ssh api-01; ./mobula up"
    assert cli.addressed(text, "lab") == text
    assert cli.addressed(text, "test") == "api-01: is down -> ./mobula -R test ssh api-01; ./mobula -R test up"


def test_without_a_command_the_commands_are_listed(run: Run) -> None:
    code, _, err = run()
    assert code == 2
    assert "Usage: ./mobula [OPTIONS] COMMAND [ARGS]..." in err


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "mobula: ended by Ctrl-C; run the same command again to go on"),
        (OperatorError("start x: no; try y"), 1, "mobula: start x: no; try y"),
    ],
)
def test_what_ends_a_command_is_told_in_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, says: str
) -> None:
    def fail(_: object) -> None:
        raise raised

    monkeypatch.setattr(cli.Context, "load_standing", fail)
    found, _, err = run("down")
    assert found == code
    assert err.strip().splitlines() == [says]


def test_healing_passes_over_a_machine_that_was_never_finished(
    run: Run, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab/machines/lab-a-api-01").mkdir()
    monkeypatch.setattr(network, "nft", lambda *_: None)
    assert run("lab", "heal") == (0, "no cuts, no bad links, nobody frozen\n", "")


def test_help_does_not_load_what_only_commands_need() -> None:
    """Every command starts with this module: Terraform, Ansible and SSH come when they are asked for."""
    source = Path(cli.__file__).read_text()
    top = [line for line in source.splitlines() if re.match(r"(from|import) ", line)]
    assert {line.split()[1] for line in top if "ops" in line} == {
        "ops.errors", "ops.options", "ops.progress", "ops.region",
    }  # fmt: skip
