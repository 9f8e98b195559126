"""`mls` and `mfind`: what of a tree they show, in which order, in which form."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass

import pytest

from tests.region.signed import Client
from tests.stock_clients import Shell

DAY = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d"


@dataclass(frozen=True, slots=True)
class Tree:
    """Made in this order: `one`, `d/`, `d/e/`, `d/two.txt`, `d/e/deep.txt`, `big.bin`."""

    path: str
    mtimes: dict[str, str]
    """of the entries at its top"""

    def words(self, line: str) -> list[str]:
        """The arguments that a line of a table stands for; `@` is the tree's path, `#name` an entry's modification time."""
        words = [word.replace("@", self.path) for word in line.split()]
        return [self.mtimes[word[1:]] if word.startswith("#") else word for word in words]


@pytest.fixture(scope="module")
def tree(shared: str, demo: Client) -> Tree:
    bodies = {
        "one": b"one\n",
        "d": None,
        "d/e": None,
        "d/two.txt": b"two2\n",
        "d/e/deep.txt": b"deep\n",
        "big.bin": bytes(3000),
    }
    for name, body in bodies.items():
        made = demo.mkdir(f"{shared}/{name}") if body is None else demo.put(f"{shared}/{name}", body)
        assert made.status == 204
        time.sleep(0.005)  # times have milliseconds
    return Tree(shared, {entry["name"]: entry["mtime"] for entry in demo.list_all(shared)})


MLS = {
    "@": ["big.bin", "d/", "one"],
    "--type=d @": ["d/"],
    "-r @": ["one", "d/", "big.bin"],
    "-t @": ["big.bin", "d/", "one"],
    "--time --reverse --type=o @": ["one", "big.bin"],
    "--type o @": ["big.bin", "one"],
    "-m d @": ["d/", "one"],
    "--marker=d -r @": ["d/", "big.bin"],
    "-t -m #d @": ["d/", "one"],
    "-t -r -m #d @": ["d/", "big.bin"],
    "-l @": [
        rf"-rwxr-xr-x 1 demo +3000 {DAY} big\.bin",
        rf"drwxr-xr-x 1 demo +0 {DAY} d",
        rf"-rwxr-xr-x 1 demo +4 {DAY} one",
    ],
    "-lh --type=o @": [rf"-rwxr-xr-x 1 demo +2\.93K {DAY} big\.bin", rf"-rwxr-xr-x 1 demo +4 {DAY} one"],
}


@pytest.mark.parametrize("line", MLS)
def test_mls(line: str, tree: Tree, manta: Shell) -> None:
    found = manta.lines("mls", *tree.words(line))
    wanted = MLS[line] if "-l" in line else [re.escape(name) for name in MLS[line]]
    assert len(found) == len(wanted), found
    for text, pattern in zip(found, wanted, strict=True):
        assert re.fullmatch(pattern, text), found


def test_mls_prints_every_field_of_an_entry_as_json(tree: Tree, manta: Shell, demo: Client) -> None:
    found = [json.loads(line) for line in manta.lines("mls", "-j", tree.path)]
    assert found == [{**entry, "parent": tree.path} for entry in demo.list_all(tree.path)]


def test_mls_of_an_object_tells_what_head_tells(tree: Tree, manta: Shell, demo: Client) -> None:
    head = demo.request("HEAD", f"{tree.path}/one").headers
    brief = json.loads(manta.lines("mls", "-j", f"{tree.path}/one")[0])
    assert (brief["name"], brief["size"], brief["durability"]) == ("one", 4, "2")
    assert (brief["etag"], brief["md5"], brief["mtime"]) == (head["etag"], head["content-md5"], head["last-modified"])
    full = json.loads(manta.lines("mls", "--fulljson", f"{tree.path}/one")[0])
    assert full["headers"]["content-length"] == "4"
    assert re.fullmatch(rf"-rwxr-xr-x 1 demo +4 {DAY} one", manta.lines("mls", "-l", f"{tree.path}/one")[0])


def test_mls_of_nothing_says_the_services_sentence(tree: Tree, manta: Shell) -> None:
    said = manta("mls", f"{tree.path}/nope")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == f"mls: ResourceNotFoundError: {tree.path}/nope was not found\n"


MFIND = {
    "@": "d one big.bin d/e d/two.txt d/e/deep.txt",
    "-p 1 -l 2 @": "d one big.bin d/e d/two.txt d/e/deep.txt",
    "--parallel=1 --limit=2 --name=two --type=o @": "d/two.txt",
    r"-n \.txt$ @": "d/two.txt d/e/deep.txt",
    "-s 5 @": "d d/e big.bin d/two.txt d/e/deep.txt",  # directories have no size, and are always shown
    "-s 6 -t o @": "big.bin",
    "-t d @": "d d/e",
    "--mindepth 2 @": "d/e/deep.txt",
    "--maxdepth 1 @": "d one big.bin",
    "--mindepth=1 --maxdepth=2 -t o @": "d/two.txt",
    "@/d/e @/d": "d/e d/two.txt d/e/deep.txt d/e/deep.txt",
}  # fmt: skip


@pytest.mark.parametrize("line", MFIND)
def test_mfind(line: str, tree: Tree, manta: Shell) -> None:
    found = manta.lines("mfind", *tree.words(line))
    assert sorted(found) == sorted(f"{tree.path}/{name}" for name in MFIND[line].split())


def test_mfind_prints_every_field_of_an_entry_as_json(tree: Tree, manta: Shell, demo: Client) -> None:
    found = {entry["name"]: entry for entry in map(json.loads, manta.lines("mfind", "-j", tree.path))}
    for depth, folder in enumerate((tree.path, f"{tree.path}/d", f"{tree.path}/d/e")):
        for entry in demo.list_all(folder):
            assert found.pop(entry["name"]) == {**entry, "parent": folder, "depth": depth}
    assert not found


def test_mfind_in_nothing_fails(tree: Tree, manta: Shell) -> None:
    said = manta("mfind", f"{tree.path}/nope")
    assert (said.returncode, said.stdout) == (1, "")
    assert "NotFoundError" in said.stderr
