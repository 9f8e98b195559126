"""The command-line tools against a real HTTP server: what they print, what they change, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mobula.client.commands import COMMANDS
from mobula.client.commands.command import run
from mobula.wire.http_exchange import Request, Response
from tests.contract.manta import Manta, md5, serving

REPO = Path(__file__).parents[2]
BIG = hashlib.sha512(b"seed").digest() * 40_000


class Shell:
    """Runs commands in this process; `out` and `err` are what the last one printed."""

    def __init__(self, manta: Manta, environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        self.manta = manta
        self.environment = environment
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, name: str, *words: object, code: int = 0) -> list[str]:
        """The lines that the command prints; its exit code must be `code`."""
        try:
            found = run(name, [str(w) for w in words], self.environment)
        except SystemExit as end:  # argparse
            found = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        assert found == code, self.err
        assert "Traceback" not in self.err
        return self.out.splitlines()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    made = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    path.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    public = made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return path, public.decode()


@pytest.fixture
def manta(key: tuple[Path, str]) -> Iterator[Manta]:
    with serving(Manta(key[1])) as service:
        yield service


@pytest.fixture
def shell(manta: Manta, key: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> Shell:
    environment = {"MANTA_URL": manta.url, "MANTA_USER": "demo", "MANTA_KEY_ID": str(key[0]), "HOME": "/nonexistent"}
    return Shell(manta, environment, capsys)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    with contextlib.ExitStack() as stack, monkeypatch.context() as patch:

        def give(data: bytes) -> None:
            path = tmp_path / "stdin"
            path.write_bytes(data)
            patch.setattr("sys.stdin", stack.enter_context(path.open()))

        yield give


# every command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(shell: Shell, name: str) -> None:
    text = "\n".join(shell(name, "--help"))
    assert f"usage: {name} [options]" in text
    assert f"  {name} " in text.partition("example:")[2]
    assert "exit codes:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_link_in_bin_stands_for_every_command(name: str) -> None:
    assert (REPO / "bin" / name).resolve() == REPO / "bin" / "run"


def test_there_are_no_other_links_in_bin() -> None:
    assert {path.name for path in (REPO / "bin").iterdir()} == {*COMMANDS, "run"}


def test_a_wheel_has_a_script_for_every_command() -> None:
    scripts = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == dict.fromkeys(COMMANDS, "mobula.client.commands.command:main")


@pytest.mark.parametrize(
    ("name", "words"),
    [("mget", ["/demo/stor/x"]), ("mls", ["/demo/stor/x"]), ("minfo", ["/demo/stor/x"]), ("mmd5", ["/demo/stor/x"]),
     ("mrm", ["/demo/stor/x"]), ("mrmdir", ["/demo/stor/x"]), ("mfind", ["/demo/stor/x"]), ("mmkdir", ["/demo/stor/x/y"]),
     ("mchattr", ["-H", "m-a: b", "/demo/stor/no/x"])],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence_and_exit_code_1(shell: Shell, name: str, words: list[str]) -> None:
    shell(name, *words, code=1)
    assert shell.err.startswith(f"{name}: /demo/stor/")
    assert shell.err.count("\n") == 1


def test_what_can_not_be_understood_is_exit_code_2(shell: Shell) -> None:
    shell("mls", "--no-such-option", code=2)
    shell("mchattr", "/demo/stor/x", code=2)
    shell("mput", "-H", "no colon", "/demo/stor/x", code=2)
    assert "name: value" in shell.err
    shell("mfind", "-n", "(", code=2)
    shell("mfind", "-s", "10x", code=2)
    shell("msign", "-E", "soon", "/demo/stor/x", code=2)
    shell("mget", "-o", "f", "/a/stor/x", "/a/stor/y", code=2)
    shell("mget", "-O", "/a/stor/x", "/b/stor/x", code=2)
    del shell.environment["MANTA_URL"]
    shell("mls", code=2)
    assert "MANTA_URL" in shell.err
    assert run("mfoo", [], {}) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_its_version(shell: Shell, name: str) -> None:
    assert re.fullmatch(r"mobula-client/\d+\.\d+", shell(name, "--version")[0])


def test_roles_are_sent_along(shell: Shell) -> None:
    roles = []

    def look(request: Request, response: Response) -> Any:
        roles.append(request.headers.get("role"))
        return shell.manta.serve(request, response)

    shell.manta.faults = [look] * 2
    shell.environment["MANTA_ROLE"] = "c"
    shell("mls", "--role", "a,b", "--role=c")
    shell("mls")
    assert roles == ["a,b,c", "c"]


def test_options_stand_for_the_environment(shell: Shell, manta: Manta, key: tuple[Path, str]) -> None:
    shell.environment = {}
    shell("mmkdir", "-u", manta.url, "-a", "demo", "--keyId", key[0], "~~/stor/x")
    assert list(manta.things) == ["/demo/stor/x"]


# one after the other


def test_mput_and_mget_by_file_and_by_pipe(shell: Shell, stdin: Callable[[bytes], None], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(BIG)
    shell(
        "mput",
        "-m",
        "-c",
        "3",
        "-p",
        "-H",
        "m-colour: red",
        "--role-tag",
        "r,s",
        "--role-tag",
        "t",
        "-f",
        file,
        "~~/stor/a/page",
    )
    thing = shell.manta.things["/demo/stor/a/page"]
    assert thing.data == BIG
    assert thing.headers == {
        "content-type": "text/html",
        "m-colour": "red",
        "role-tag": "r,s,t",
        "x-durability-level": "3",
    }
    stdin(b"from a pipe")
    shell("mput", "~~/stor/pipe.txt")
    assert shell.manta.things["/demo/stor/pipe.txt"].headers["content-type"] == "text/plain"
    assert shell("mget", "/demo/stor/pipe.txt", "/demo/stor/pipe.txt") == ["from a pipefrom a pipe"]
    target = tmp_path / "got"
    shell("mget", "-o", target, "/demo/stor/a/page")
    assert target.read_bytes() == BIG
    assert target.stat().st_mode == file.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["got", "page.html", "stdin"]


def test_mput_onto_a_directory_goes_into_it(shell: Shell, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    shell.manta.directory("/demo/stor/d")
    shell("mput", "-f", tmp_path / "one", "~~/stor/d")
    shell("mput", "-f", tmp_path / "one", "-f", tmp_path / "two", "~~/stor/d/")
    assert shell.manta.things["/demo/stor/d/one"].data == b"one"
    assert shell.manta.things["/demo/stor/d/two"].data == b"two"
    shell("mput", "-f", tmp_path / "three", "~~/stor/d", code=1)
    assert "three" in shell.err
    shell("mput", "-f", tmp_path, "~~/stor/d", code=1)
    assert "msync" in shell.err


def test_mget_leaves_no_half_of_a_file(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobula.client.download.PAUSE_S", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big").write_bytes(b"old")
    shell.manta.object("/demo/stor/big", BIG)
    shell.manta.object("/demo/stor/small", b"small")
    shell.manta.cut_after_bytes = [100] + [0] * 9
    shell("mget", "-q", "-p", "1", "-O", "/demo/stor/big", "/demo/stor/small", code=1)
    assert (tmp_path / "big").read_bytes() == b"old"
    shell.manta.cut_after_bytes = [100]
    shell("mget", "-O", "/demo/stor/big", "/demo/stor/small")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"big": BIG, "small": b"small"}
    shell("mget", "-o", "/dev/null", "/demo/stor/big")
    assert not Path("/dev/null").is_file()


def partial(folder: Path) -> Path:
    """The one file that an interrupted `mget` left."""
    (found,) = folder.glob(".*.part")
    return found


@pytest.fixture
def interrupted(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where an `mget -o f` of `BIG` got 1,000,000 bytes."""
    monkeypatch.setattr("mobula.client.download.PAUSE_S", 0.01)
    folder = tmp_path / "here"
    folder.mkdir()
    shell.manta.object("/demo/stor/big", BIG)
    shell.manta.cut_after_bytes = [1_000_000] + [0] * 9
    shell("mget", "-q", "-o", folder / "f", "/demo/stor/big", code=1)
    assert partial(folder).read_bytes() == BIG[:1_000_000]
    shell.manta.cut_after_bytes = []
    shell.manta.seen.clear()
    return folder


def test_mget_goes_on_in_a_later_call(shell: Shell, interrupted: Path) -> None:
    asked = []

    def look(request: Request, response: Response) -> Any:
        asked.append((request.headers.get("range"), request.headers.get("if-match")))
        return shell.manta.serve(request, response)

    shell.manta.faults = [shell.manta.serve, look]
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert [method for method, _ in shell.manta.seen] == ["HEAD", "GET"]
    assert asked == [(f"bytes=1000000-{len(BIG) - 1}", shell.manta.things["/demo/stor/big"].etag)]
    assert tree(interrupted) == {"f": BIG}


def test_mget_goes_on_more_than_once(shell: Shell, interrupted: Path) -> None:
    shell.manta.cut_after_bytes = [500_000] + [0] * 9
    shell("mget", "-o", interrupted / "f", "/demo/stor/big", code=1)
    assert partial(interrupted).read_bytes() == BIG[:1_500_000]
    shell.manta.cut_after_bytes = []
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert tree(interrupted) == {"f": BIG}


def test_mget_of_what_had_all_but_its_name_asks_for_no_byte(shell: Shell, interrupted: Path) -> None:
    partial(interrupted).write_bytes(BIG)
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert [method for method, _ in shell.manta.seen] == ["HEAD"]
    assert tree(interrupted) == {"f": BIG}


@pytest.mark.parametrize("damage", [b"x" * 1_000_000, BIG + b"more", b""])
def test_mget_begins_anew_if_what_it_had_is_damaged(shell: Shell, interrupted: Path, damage: bytes) -> None:
    partial(interrupted).write_bytes(damage)
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert tree(interrupted) == {"f": BIG}


def test_mget_begins_anew_if_the_object_changed(shell: Shell, interrupted: Path) -> None:
    other = bytes(len(BIG))
    shell.manta.object("/demo/stor/big", other)
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert tree(interrupted) == {"f": other}


def test_mget_begins_anew_if_the_object_changes_just_then(shell: Shell, interrupted: Path) -> None:
    def change(request: Request, response: Response) -> Any:
        shell.manta.object("/demo/stor/big", b"new")
        return shell.manta.serve(request, response)

    shell.manta.faults = [shell.manta.serve, change]
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert tree(interrupted) == {"f": b"new"}


def test_mget_goes_on_only_with_the_same_object_and_target(shell: Shell, interrupted: Path) -> None:
    shell.manta.object("/demo/stor/other", b"other")
    shell("mget", "-o", interrupted / "g", "/demo/stor/big")
    shell("mget", "-o", interrupted / "f", "/demo/stor/other")
    shell("mget", "-H", "Range: bytes=1-3", "-o", interrupted / "r", "/demo/stor/big")
    left = tree(interrupted)
    assert left.pop(partial(interrupted).name) == BIG[:1_000_000]
    assert left == {"g": BIG, "f": b"other", "r": BIG[1:4]}


def test_two_that_get_the_same_do_not_write_to_one_file(shell: Shell, interrupted: Path) -> None:
    part = partial(interrupted)
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert tree(interrupted) == {"f": BIG, part.name: BIG[:1_000_000]}


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_mget_writes_to_no_file_that_was_put_in_its_way(
    shell: Shell, interrupted: Path, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    part, precious = partial(interrupted), tmp_path / "precious"
    precious.write_bytes(b"precious")
    part.unlink()
    make(part, precious)
    shell("mget", "-o", interrupted / "f", "/demo/stor/big")
    assert precious.read_bytes() == b"precious"
    assert (interrupted / "f").read_bytes() == BIG
    assert (interrupted / "f").stat().st_nlink == 1


def test_msync_passes_over_what_an_interrupted_mget_left(shell: Shell, interrupted: Path) -> None:
    assert shell("msync", "-n", interrupted, "~~/stor/s") == []
    assert shell("msync", "-r", "-d", "~~/stor", interrupted) == ["get big"]
    assert partial(interrupted).exists()


def test_mls(shell: Shell) -> None:
    at = dt.datetime(2020, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    shell.manta.object("/demo/stor/b", b"x" * 2048, at)
    shell.manta.object("/demo/stor/a", b"", at + dt.timedelta(days=1))
    shell.manta.directory("/demo/stor/d")
    assert shell("mls") == ["a", "b", "d/"]
    assert shell("mls", "-m", "b", "~~/stor") == ["b", "d/"]
    assert shell("mls", "-t") == ["d/", "a", "b"]
    assert shell("mls", "-lh", "/demo/stor/b") == ["-rwxr-xr-x 1 demo         2.0K May 06  2020 b"]
    assert shell("mls", "-l")[1] == "-rwxr-xr-x 2 demo         2048 May 06  2020 b"
    found = [json.loads(line) for line in shell("mls", "-j")]
    assert [(f["name"], f["type"]) for f in found] == [("a", "object"), ("b", "object"), ("d", "directory")]
    assert json.loads(shell("mls", "--fulljson")[0])["parent"] == "/demo/stor"


def test_minfo_and_mmd5(shell: Shell) -> None:
    shell.manta.object("/demo/stor/a", b"abc")
    shell.manta.directory("/demo/stor/d")
    assert f"content-md5: {md5(b'abc')}" in [
        line.lower().replace(md5(b"abc").lower(), md5(b"abc")) for line in shell("minfo", "~~/stor/a")
    ]
    assert json.loads(shell("minfo", "-j", "~~/stor/a")[0])["content-length"] == "3"
    assert shell("mmd5", "~~/stor/a") == ["900150983cd24fb0d6963f7d28e17f72  ~~/stor/a"]
    assert shell("mmd5", "~~/stor/x", "~~/stor/d", "~~/stor/a", code=1)[0].endswith("~~/stor/a")
    assert shell.err.count("\n") == 2


def test_mln_and_mchattr(shell: Shell) -> None:
    shell.manta.object("/demo/stor/a b", b"abc")
    shell("mln", "~~/stor/a b", "~~/stor/c")
    shell("mchattr", "-H", "m-x: y: z", "--role-tag", "", "~~/stor/c")
    assert shell.manta.things["/demo/stor/c"].headers == {"m-x": "y: z", "role-tag": ""}


def test_what_removes_removes_only_what_it_says(shell: Shell) -> None:
    things = shell.manta.things
    for path in ("/demo/stor/d", "/demo/stor/d/e", "/demo/stor/empty"):
        shell.manta.directory(path)
    shell.manta.object("/demo/stor/d/e/f", b"")
    shell.manta.object("/demo/stor/o", b"")
    shell("mrm", "~~/stor/empty", "~~/stor/nothing", "~~/stor/o", code=1)
    assert "mrm -r" in shell.err
    assert "/demo/stor/empty" in things
    assert "/demo/stor/o" not in things
    shell("mrmdir", "~~/stor/d", code=1)
    assert "not empty" in shell.err
    shell("mrmdir", "~~/stor/d/e/f", code=1)
    assert len(things) == 4
    shell("mrmdir", "~~/stor/empty")
    shell("mrm", "-r", "~~/stor/d")
    assert not things
    shell("mrm", "-f", "~~/stor/d")


def test_mfind(shell: Shell) -> None:
    shell.manta.directory("/demo/stor/d")
    shell.manta.object("/demo/stor/d/a.log", b"x" * 1025)
    shell.manta.object("/demo/stor/a.txt", b"x")
    assert sorted(shell("mfind")) == ["/demo/stor/a.txt", "/demo/stor/d", "/demo/stor/d/a.log"]
    assert shell("mfind", "-n", r"\.log$", "~~/stor") == ["/demo/stor/d/a.log"]
    assert shell("mfind", "-t", "d", "~~/stor") == ["/demo/stor/d"]
    assert shell("mfind", "-s", "1k", "~~/stor") == ["/demo/stor/d/a.log"]
    assert shell("mfind", "--mindepth", "2", "~~/stor") == ["/demo/stor/d/a.log"]
    assert sorted(shell("mfind", "--maxdepth", "1", "~~/stor")) == ["/demo/stor/a.txt", "/demo/stor/d"]
    assert json.loads(shell("mfind", "-j", "-t", "d")[0])["path"] == "/demo/stor/d"


def test_msign(shell: Shell, manta: Manta) -> None:
    url = urlsplit(shell("msign", "-e", "99", "-m", "put", "-m", "GET", "~~/stor/a")[0])
    assert (f"{url.scheme}://{url.netloc}", url.path) == (manta.url, "/demo/stor/a")
    assert "expires=99&" in url.query
    assert "method=GET%2CPUT" in url.query
    assert not manta.seen
    assert "method=GET%2CHEAD" in shell("msign", "-m", "head,get", "~~/stor/a")[0]
    shell("msign", "-m", "STEAL", "~~/stor/a", code=2)
    shell("msign", "-g", "RSA-SHA256", "~~/stor/a", code=2)
    assert "ED25519-SHA512" in shell.err


def tree(base: Path) -> dict[str, bytes | None]:
    """All below a directory; None is a directory."""
    return {str(p.relative_to(base)): p.read_bytes() if p.is_file() else None for p in base.rglob("*")}


def test_msync_there_and_back(shell: Shell, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "a" / "empty").mkdir(parents=True)
    (here / "a" / "ü b").write_bytes(b"one")
    (here / "two").write_bytes(BIG)
    (here / "link").symlink_to("/etc/passwd")
    assert sorted(shell("msync", "-n", here, "~~/stor/new/s")) == ["make a", "make a/empty", "put a/ü b", "put two"]
    assert not shell.manta.things
    shell("msync", here, "~~/stor/new/s")
    assert "link: neither file nor directory" in shell.err
    assert shell.manta.things["/demo/stor/new/s/a/ü b"].data == b"one"
    assert shell("msync", here, "~~/stor/new/s") == []
    assert shell("msync", "-m", here, "~~/stor/new/s") == []
    (here / "link").unlink()
    shell("msync", "-r", "~~/stor/new/s", back)
    assert tree(back) == tree(here)
    assert shell("msync", "-r", "~~/stor/new/s", back) == []
    (here / "a" / "ü b").write_bytes(b"two")
    os.utime(here / "a" / "ü b", (0, 0))  # of the same size, and older: only the MD5 tells
    assert shell("msync", here, "~~/stor/new/s") == []
    assert shell("msync", "-m", here, "~~/stor/new/s") == ["put a/ü b"]


def test_msync_removes_only_if_asked(shell: Shell, tmp_path: Path) -> None:
    shell.manta.directory("/demo/stor/s")
    shell.manta.directory("/demo/stor/s/d")
    shell.manta.object("/demo/stor/s/d/old", b"")
    (tmp_path / "new").write_bytes(b"")
    shell("msync", tmp_path, "~~/stor/s")
    assert "/demo/stor/s/d/old" in shell.manta.things
    assert [json.loads(line) for line in shell("msync", "-d", "--json", tmp_path, "~~/stor/s")] == [
        {"action": "delete", "path": "d/old", "done": True}, {"action": "delete", "path": "d", "done": True},
    ]  # fmt: skip
    assert sorted(shell.manta.things) == ["/demo/stor/s", "/demo/stor/s/new"]


def test_msync_that_only_deletes(shell: Shell, tmp_path: Path) -> None:
    shell.manta.directory("/demo/stor/s")
    shell.manta.object("/demo/stor/s/old", b"")
    (tmp_path / "new").write_bytes(b"")
    assert shell("msync", "-j", tmp_path, "~~/stor/s") == ["delete old"]
    assert list(shell.manta.things) == ["/demo/stor/s"]


def test_msync_leaves_alone_what_it_is_told_to(shell: Shell, tmp_path: Path) -> None:
    for path in ("s", "s/d", "s/d/e"):
        shell.manta.directory(f"/demo/stor/{path}")
    shell.manta.object("/demo/stor/s/d/e/keep.log", b"")
    shell.manta.object("/demo/stor/s/d/old", b"")
    for name in ("a.log", "b"):
        (tmp_path / name).write_bytes(b"")
    said = shell("msync", "-d", "-x", r"\.log$", "-c", "3", "-H", "m-a: b", tmp_path, "~~/stor/s")
    assert said == ["put b", "delete d/old"]
    assert shell.manta.things["/demo/stor/s/b"].headers == {"m-a": "b", "x-durability-level": "3"}
    shell("msync", "-x", "(", tmp_path, "~~/stor/s", code=2)
    assert "regular expression" in shell.err


def test_mput_of_a_big_file_is_tried_again_from_its_beginning(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobula.client.effects.PAUSE_S", 0.01)
    (tmp_path / "big").write_bytes(BIG)

    async def break_off(request: Request, response: Response) -> None:
        request.accept_body()
        request._connection._transport.abort()  # type: ignore[attr-defined]

    shell.manta.faults = [break_off, break_off]
    shell("mput", "-f", tmp_path / "big", "~~/stor/big")
    assert shell.manta.things["/demo/stor/big"].data == BIG
    assert len(shell.manta.seen) == 3


def test_msync_leaves_alone_what_is_of_another_kind(shell: Shell, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    here = tmp_path / "here"
    outside.mkdir()
    here.mkdir()
    (here / "d").symlink_to(outside)
    shell.manta.directory("/demo/stor/s")
    shell.manta.directory("/demo/stor/s/d")
    shell.manta.object("/demo/stor/s/d/x", b"1")
    shell("msync", "-r", "-d", "~~/stor/s", here, code=1)
    assert "d: directory in the source, other in the target" in shell.err
    assert not list(outside.iterdir())
    shell("msync", tmp_path / "nothing", "~~/stor/s", code=2)


def test_msync_trusts_no_name(shell: Shell, tmp_path: Path) -> None:
    line = {"name": "../../evil", "type": "object", "mtime": "2026-01-01T00:00:00.000Z", "size": 1}

    async def evil(request: Request, response: Response) -> None:
        await response.send(
            200, [("Content-Type", "application/x-json-stream; type=directory")], json.dumps(line).encode() + b"\n"
        )

    shell.manta.faults = [evil]
    shell("msync", "-r", "~~/stor/s", tmp_path / "x", code=1)
    assert "can't be a file's name" in shell.err
    assert not list(tmp_path.iterdir())


def archive(path: Path, mode: Any, *members: tuple[str, bytes | None, bytes]) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return path


def test_muntar(shell: Shell, tmp_path: Path) -> None:
    path = archive(
        tmp_path / "t.tar.gz", "w:gz", ("./d", None, tarfile.DIRTYPE), ("d/a.txt", b"a", tarfile.REGTYPE),
        ("e/f/b", BIG * 3, tarfile.REGTYPE),
        ("../evil", b"x", tarfile.REGTYPE), ("link", None, tarfile.SYMTYPE), ("/abs", b"abs", tarfile.REGTYPE),
    )  # fmt: skip
    shell("muntar", "-f", path, "~~/stor/t")
    objects = {path: thing.data for path, thing in shell.manta.things.items() if thing.data is not None}
    assert objects == {"/demo/stor/t/d/a.txt": b"a", "/demo/stor/t/e/f/b": BIG * 3, "/demo/stor/t/abs": b"abs"}
    assert shell.manta.things["/demo/stor/t/d/a.txt"].headers["content-type"] == "text/plain"
    assert "../evil: passed over: its name leads elsewhere" in shell.err
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    shell("muntar", "-f", tmp_path / "junk", "~~/stor/t", code=1)
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-3000])
    shell("muntar", "-f", tmp_path / "cut", "~~/stor/t", code=1)


def test_a_clone_s_command_runs_as_a_process(manta: Manta, key: tuple[Path, str], tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin", "MOBULA_PYTHON": sys.executable, "MANTA_URL": manta.url, "MANTA_USER": "demo", "MANTA_KEY_ID": str(key[0]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    outer = tmp_path / "mput"
    outer.symlink_to(REPO / "bin" / "mput")
    subprocess.run([outer, "~~/stor/x"], env=environment, input=b"data", check=True, timeout=60)
    done = subprocess.run(
        [REPO / "bin/mget", "~~/stor/x"], env=environment, capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"data"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [REPO / "bin/mls"], env=environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, b"mls: write to standard output: No space left on device\n")
    for i in range(3000):
        manta.object(f"/demo/stor/n{i}", b"")
    with subprocess.Popen(
        [REPO / "bin/mls"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


def test_an_interrupt_ends_a_transfer_at_once_and_leaves_no_file_of_its_name(
    manta: Manta, key: tuple[Path, str], tmp_path: Path
) -> None:
    stalled = threading.Event()

    async def stall(request: Request, response: Response) -> None:
        stalled.set()
        await response.start(200, [("Etag", "e")], content_length=100)
        await response.write(b"some")
        while not request.aborted:
            await asyncio.sleep(0.01)

    manta.faults = [stall]
    environment = {
        "PATH": "/usr/bin:/bin", "MOBULA_PYTHON": sys.executable, "MANTA_URL": manta.url, "MANTA_USER": "demo", "MANTA_KEY_ID": str(key[0]),
    }  # fmt: skip
    argv = [REPO / "bin/mget", "-O", "~~/stor/x"]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert stalled.wait(60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"mget: interrupted\n"
    assert not (tmp_path / "x").exists()


def test_msync_removes_nothing_after_a_failure(shell: Shell, tmp_path: Path) -> None:
    shell.manta.directory("/demo/stor/s")
    shell.manta.object("/demo/stor/s/old", b"")
    shell.manta.directory("/demo/stor/s/new")
    shell.manta.object("/demo/stor/s/new/x", b"")
    (tmp_path / "new").write_bytes(b"")
    shell("msync", "-d", tmp_path, "~~/stor/s", code=1)
    assert "nothing is removed" in shell.err
    assert "/demo/stor/s/old" in shell.manta.things
    assert "/demo/stor/s/new/x" in shell.manta.things


def test_the_lists_of_an_archived_job_are_objects(shell: Shell) -> None:
    job = "8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10"
    status = {
        "id": job, "name": "", "state": "done", "cancelled": False, "inputDone": True, "timeCreated": "T", "phases": [{"exec": "x"}],
        "stats": {"errors": 1, "outputs": 150, "retries": 0, "tasks": 0, "tasksDone": 0},
    }  # fmt: skip
    shell.manta.object(f"/demo/jobs/{job}/job.json", json.dumps(status).encode())
    outputs = [f"/demo/stor/{n}" for n in range(150)]
    error = {"what": "phase 0", "code": "C", "message": "m"}
    for name, text in (
        ("in", "/a\n/b"),
        ("out", "\n".join(outputs)),
        ("fail", "/b\n"),
        ("err", json.dumps(error) + "\n"),
    ):
        shell.manta.object(f"/demo/jobs/{job}/{name}.txt", text.encode())
    shell("mjob", "get", f"{job}/")
    assert json.loads(shell.out) == status
    assert shell("mjob", "inputs", job) == ["/a", "/b"]
    assert shell("mjob", "outputs", job) == outputs
    assert shell("mjob", "failures", job) == ["/b"]
    assert json.loads(shell("mjob", "errors", job)[0]) == error
    assert json.loads("".join(shell("mjob", "watch", job))) == status
    shell("mjob", "share", job)
    assert "<li>phase 0: m (C)</li>" in str(shell.manta.things[f"/demo/public/jobshares/{job}/index.html"].data)

    def short(_: Request, response: Response) -> Any:
        return response.send(200, [("Result-Set-Size", "150")], b"/demo/stor/149\n")

    shell.manta.faults = [short]  # not taken from the service any more, but its list is there already
    assert shell("mjob", "outputs", job) == outputs
    del shell.manta.things[f"/demo/jobs/{job}/out.txt"]
    shell.manta.faults = [short]
    assert shell("mjob", "outputs", job, code=1) == ["/demo/stor/149"]
    shell("mjob", "outputs", job, code=1)
    assert shell.err == f"mjob outputs: /demo/jobs/{job}/live/out was not found (ResourceNotFound)\n"
