"""The pure parts of the commands, and the bar."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.client.commands import COMMANDS
from mobula.client.commands.command import UsageError
from mobula.client.commands.mfind import parse_size
from mobula.client.commands.mls import long_line
from mobula.client.commands.mmd5 import hexadecimal
from mobula.client.commands.msign import parse_time
from mobula.client.commands.msync import Plan, Thing, plan
from mobula.client.commands.muntar import safe_path
from mobula.client.commands.output import Failures, human_size, printable, say_document
from mobula.client.commands.progress import Bar, Part, line
from mobula.client.commands.workers import run_all
from mobula.client.errors import MobulaError
from mobula.client.model import Entry

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.builds(
    Thing, st.sampled_from(["file", "other"]), st.integers(0, 2), st.sampled_from([0.0, 1.0]), st.just("")
)


@st.composite
def sides(draw: st.DrawFn) -> dict[str, Thing]:
    """A tree: what is above a thing is a directory."""
    things: dict[str, Thing] = {}
    for path, thing in draw(st.dictionaries(PATHS, FILES | st.just(Thing("directory")))).items():
        above = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
        if all(things.get(a, Thing("directory")).kind == "directory" for a in above) and path not in things:
            things.update({a: Thing("directory") for a in above})
            things[path] = thing
    return things


def carried_out(wanted: Plan, source: dict[str, Thing], target: dict[str, Thing]) -> dict[str, Thing]:
    """The target after a plan; every step must be possible when it comes."""
    result = dict(target)

    def has_parent(path: str) -> bool:
        parent = path.rpartition("/")[0]
        return not parent or result[parent].kind == "directory"

    for path in (*wanted.make, *wanted.move):
        assert has_parent(path)
        assert path not in result or path in wanted.move
        result[path] = source[path]
    for path in wanted.remove:
        assert not any(other.startswith(f"{path}/") for other in result if result[other].kind != "other")
        del result[path]
    return result


@given(sides(), sides(), st.booleans(), st.booleans())
def test_a_plan_carried_out_makes_the_target_equal(
    source: dict[str, Thing], target: dict[str, Thing], delete: bool, by_md5: bool
) -> None:
    wanted = plan(source, target, delete=delete, by_md5=by_md5)
    if delete and any(t.kind == "other" for t in target.values()):
        return  # a directory with something strange in it can't go, and rmdir will say so
    result = carried_out(wanted, source, target)
    below = tuple(f"{path}/" for path in wanted.conflicts)
    for path, thing in source.items():
        if thing.kind != "other" and path not in wanted.conflicts and not path.startswith(below):
            assert (result[path].kind, result[path].size_bytes) == (thing.kind, thing.size_bytes)
    if not delete:
        assert target.keys() <= result.keys()
    elif not wanted.conflicts:
        assert result.keys() <= source.keys()
    for path, thing in target.items():
        if path in wanted.conflicts or path.startswith(below):
            assert result.get(path) == thing
    again = plan(source, result, delete=delete, by_md5=False)
    assert not again.make
    assert not again.remove


@given(st.text())
def test_a_tar_s_name_never_leads_out(name: str) -> None:
    found = safe_path(name)
    if found is not None:
        assert not found.startswith("/")
        assert not {"..", "."} & set(found.split("/"))


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("10", 10), ("2k", 2048), ("3M", 3 << 20), ("1g", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("5s", 5), ("2m", 120), ("1h", 3600), ("7d", 604_800)])
def test_times(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@given(st.text(max_size=8))
def test_what_is_no_size_or_time_is_said(text: str) -> None:
    for parse in (parse_size, parse_time):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert repr(text) in str(error)  # noqa: PT017 (both ways are right)


def test_sizes_for_people() -> None:
    assert [human_size(n) for n in (0, 1023, 1024, 1536, 1 << 30)] == ["0", "1023", "1.0K", "1.5K", "1.0G"]


def test_a_name_can_not_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\nc\x9b\udcff é") == "a?[2Jb?c?? é"


def test_a_document_keeps_its_lines_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_document({"a": {"b": "é\n\x9b"}})
    assert capsys.readouterr().out == '{\n    "a": {\n        "b": "é\\n?"\n    }\n}\n'


def test_an_md5_that_is_none_is_said() -> None:
    with pytest.raises(MobulaError):
        hexadecimal("no")


@pytest.mark.parametrize(("days", "when"), [(1, "Jan 01 00:00"), (400, "Jan 01  2026"), (-400, "Jan 01  2026")])
def test_a_long_line_has_the_time_or_the_year(days: int, when: str) -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    entry = Entry("d", "directory", at, {})
    assert (
        long_line(entry, "me", at + dt.timedelta(days=days), human=False) == f"drwxr-xr-x 1 me            0 {when} d/"
    )


def test_a_bar_as_text() -> None:
    assert line("x", 512, 1024, 2.0) == "x [###############               ]  50% 512 256/s"
    assert line("x\x1b", 512, None, 0.0) == "x?  512  "
    assert line("x", 2048, 1024, 1.0).startswith("x [##############################] 100%")


def test_a_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mobula.client.commands.progress.PERIOD_S", -1.0)
    with Bar("x", 10) as bar:
        Part(bar).at(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar("x", 10, quiet=True) as bar:
        Part(bar).at(5)
    assert capsys.readouterr().err == ""
    with Bar("x", 10) as bar:
        part = Part(bar)
        for so_far in (5, 0, 10):  # a second try began anew
            part.at(so_far)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("\x1b[Kx [##############################] 100% 10 ")
    assert last.endswith("/s\n")


def test_jobs_that_fail_do_not_hold_up_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def job(number: int) -> None:
        if number % 2:
            raise MobulaError("Odd", f"{number} is odd")
        done.append(number)

    failures = Failures("test")
    run_all((lambda n=n: job(n) for n in range(100)), 8, failures)  # type: ignore[misc]
    assert sorted(done) == list(range(0, 100, 2))
    assert failures.count == 50
    assert "test: 7 is odd (Odd)\n" in capsys.readouterr().err


def test_a_job_that_is_wrong_is_raised() -> None:
    def wrong() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([wrong] * 50, 4, Failures("test"))


SLOW = (
    "asyncio", "click", "concurrent.futures", "cryptography.hazmat.primitives.serialization", "dataclasses", "email", "http", "inspect",
    "msgspec", "shutil", "structlog", "tempfile", "uvloop",
)  # fmt: skip
"""each costs 5 to 50 ms of the 120 that a command may take to start"""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["PEM", "PKCS8", "RFC4716"])
def test_a_command_with_an_rsa_key_in_a_file_imports_nothing_slow(name: str, form: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    argv = ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(key)]
    subprocess.run([*argv, *([] if form == "RFC4716" else ["-m", form])], check=True, timeout=60)
    script = f"""
import sys
from mobula.client.commands import {name}
from mobula.client.commands.command import parser_of
from mobula.client import Client, Settings
parser_of("{name}", {name}.COMMAND)
Client(Settings("https://localhost:1", "demo", {str(key)!r}, tls_insecure=True)).sign_url("~~/stor/x", expires_s=1)
print([m for m in {SLOW} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-sP", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ("[]\n" if name != "muntar" else "['shutil']\n")
