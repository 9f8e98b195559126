"""`mmkdir`, `mrmdir`, `msync`, `muntar`: directories, and whole trees of them."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.region.signed import Client, encode
from tests.stock_clients import Shell

CROWD = [f"{number:04}" for number in range(1040)]
"""names of more entries than a page has (1024)"""


def names(demo: Client, path: str) -> list[str]:
    """Everything below `path`, relative to it; directories end in `/`."""
    return sorted(_names(demo, path, ""))


def _names(demo: Client, path: str, above: str) -> Iterator[str]:
    for entry in demo.list_all(path):
        if entry["type"] == "object":
            yield above + entry["name"]
        else:
            yield f"{above}{entry['name']}/"
            yield from _names(demo, f"{path}/{entry['name']}", f"{above}{entry['name']}/")


MMKDIRS = {
    "@/a @/b": ["a/", "b/"],
    "@/o": ["o/"],  # as the original: what was an object is a directory now
    "-p @/a/b/c": ["a/", "a/b/", "a/b/c/", "o"],
    "-p @": ["o"],
}


@pytest.mark.parametrize("line", MMKDIRS)
def test_mmkdir_a_second_time_too(line: str, folder: str, manta: Shell, demo: Client) -> None:
    demo.put(f"{folder}/o", b"")
    for _ in range(2):
        assert manta.lines("mmkdir", *line.replace("@", folder).split()) == []
        assert [name for name in names(demo, folder) if name != "o" or "o" in MMKDIRS[line]] == MMKDIRS[line]


def test_mmkdir_keeps_headers(folder: str, manta: Shell, demo: Client) -> None:
    manta.lines("mmkdir", "-H", "m-color: red", f"~~{folder.removeprefix('/demo')}/d")
    assert demo.request("HEAD", f"{encode(folder)}/d").headers["m-color"] == "red"


def test_mmkdir_and_mrmdir_refused(folder: str, manta: Shell, demo: Client) -> None:
    said = manta("mmkdir", f"{folder}/a/b")
    assert (said.returncode, said.stderr) == (1, f"mmkdir: DirectoryDoesNotExistError: {folder}/a does not exist\n")
    said = manta("mrmdir", f"{folder}/a")
    assert (said.returncode, said.stderr) == (1, f"mrmdir: ResourceNotFoundError: {folder}/a was not found\n")
    demo.put(f"{folder}/o", b"")
    said = manta("mrmdir", folder)
    assert (said.returncode, said.stderr) == (1, f"mrmdir: DirectoryNotEmptyError: {folder} is not empty\n")
    assert names(demo, folder) == ["o"]


def test_mrmdir(folder: str, manta: Shell, demo: Client) -> None:
    for name in ("a", "b", "c"):
        demo.mkdir(f"{folder}/{name}")
    assert manta.lines("mrmdir", f"{folder}/a", f"{folder}/b") == []
    assert names(demo, folder) == ["c/"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """`one`, `skip.me`, `sub/two.txt`, `sub/deep/big`, and `link` to `one`."""
    root = tmp_path / "source"
    (root / "sub" / "deep").mkdir(parents=True)
    for name, body in (
        ("one", b"one\n"),
        ("skip.me", b"no"),
        ("sub/two.txt", b"two\n"),
        ("sub/deep/big", os.urandom(9999)),
    ):
        (root / name).write_bytes(body)
    (root / "link").symlink_to("one")
    return root


ALL = ["link", "one", "skip.me", "sub/", "sub/deep/", "sub/deep/big", "sub/two.txt"]
MSYNCS = {
    "": ALL,
    "-n": [],
    "-l -p 1": ["one", "skip.me", "sub/", "sub/deep/", "sub/deep/big", "sub/two.txt"],
    "-q -x skip": ["link", "one", "sub/", "sub/deep/", "sub/deep/big", "sub/two.txt"],
}


@pytest.mark.parametrize("options", MSYNCS)
def test_msync_of_a_new_tree(options: str, folder: str, source: Path, manta: Shell, demo: Client) -> None:
    said = manta.lines("msync", *options.split(), str(source), f"{folder}/new")
    assert bool(said) == ("-q" not in options)
    found = names(demo, folder)
    assert found == (["new/", *(f"new/{name}" for name in MSYNCS[options])] if MSYNCS[options] else [])


def test_msync_keeps_headers_and_makes_copies(folder: str, source: Path, manta: Shell, demo: Client) -> None:
    manta.lines("msync", "-q", "-c", "3", "-H", "m-color: red", str(source), folder)
    headers = demo.request("HEAD", f"{encode(folder)}/sub/two.txt").headers
    assert (headers["m-color"], headers["durability-level"]) == ("red", "3")


def test_msync_brings_changes_and_deletes_only_when_told(folder: str, source: Path, manta: Shell, demo: Client) -> None:
    manta.lines("msync", "-q", str(source), folder)
    (source / "one").write_bytes(b"uno\n")
    (source / "sub" / "two.txt").unlink()
    manta.lines("msync", str(source), folder)  # it goes by sizes
    assert demo.get(f"{folder}/one").body == b"one\n"
    manta.lines("msync", "-m", str(source), folder)
    assert demo.get(f"{folder}/one").body == b"uno\n"
    manta.lines("msync", "-d", "-n", str(source), folder)
    assert names(demo, folder) == ALL
    manta.lines("msync", "-d", str(source), folder)
    assert names(demo, folder) == [name for name in ALL if name != "sub/two.txt"]


def test_msync_that_only_deletes(folder: str, source: Path, manta: Shell, demo: Client) -> None:
    manta.lines("msync", "-q", str(source), folder)
    (source / "one").write_bytes(b"longer\n")
    (source / "new").touch()
    (source / "sub" / "two.txt").unlink()
    manta.lines("msync", "-j", "-n", str(source), folder)
    assert names(demo, folder) == ALL
    manta.lines("msync", "-j", str(source), folder)
    assert names(demo, folder) == [name for name in ALL if name != "sub/two.txt"]
    assert demo.get(f"{folder}/one").body == b"one\n"


def test_msync_to_here(folder: str, source: Path, manta: Shell, tmp_path: Path) -> None:
    manta.lines("msync", "-q", str(source), folder)
    back = tmp_path / "back"
    back.mkdir()
    (back / "extra").touch()
    manta.lines("msync", "-r", folder, str(back))
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == {**files, "extra": b""}
    manta.lines("msync", "-r", "-d", folder, str(back))
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == files


def test_msync_from_nothing_fails(folder: str, manta: Shell, tmp_path: Path) -> None:
    said = manta("msync", "-r", f"{folder}/nope", str(tmp_path / "back"))
    assert said.returncode == 1
    assert "NotFoundError" in said.stdout + said.stderr


@pytest.mark.parametrize("options", [[], ["-c", "1", "-p", "1", "-r", "1", "-H", "m-color: red"]])
def test_muntar(options: list[str], folder: str, source: Path, manta: Shell, demo: Client) -> None:
    with tarfile.open(source.parent / "all.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("one", "sub", "sub/deep/big", "sub/two.txt"):
            tar.add(source / name, name, recursive=False)
    manta.lines("muntar", *options, "-f", str(source.parent / "all.tar"), f"{folder}/t")
    assert names(demo, folder) == ["t/", "t/one", "t/sub/", "t/sub/deep/", "t/sub/deep/big", "t/sub/two.txt"]
    answer = demo.get(f"{folder}/t/sub/deep/big")
    assert answer.body == (source / "sub/deep/big").read_bytes()
    wanted = ("1", "red") if options else ("2", None)
    assert (answer.headers["durability-level"], answer.headers.get("m-color")) == wanted


def test_more_entries_than_a_page_has(folder: str, manta: Shell, demo: Client, tmp_path: Path) -> None:
    """Put by `msync`, listed whole, from a marker and backwards, found, removed."""
    for name in CROWD:
        (tmp_path / name).touch()
    manta.lines("msync", "-q", str(tmp_path), f"{folder}/crowd")
    assert manta.lines("mls", f"{folder}/crowd") == CROWD
    assert manta.lines("mls", "-r", f"{folder}/crowd") == CROWD[::-1]
    times = sorted({entry["mtime"] for entry in demo.list_all(f"{folder}/crowd")}, reverse=True)
    newest_first = [json.loads(line)["mtime"] for line in manta.lines("mls", "-t", "-j", f"{folder}/crowd")]
    # Of entries with the same time the client shows one, and then takes a full page for the last.
    assert newest_first == times[: len(newest_first)] != []
    assert manta.lines("mls", "-m", CROWD[7], f"{folder}/crowd") == CROWD[7:]
    assert sorted(manta.lines("mfind", f"{folder}/crowd")) == [f"{folder}/crowd/{name}" for name in CROWD]
    manta.lines("mrm", "-r", f"{folder}/crowd")
    assert demo.list_all(folder) == []
