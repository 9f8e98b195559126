"""A stock Manta client stores a tree of files and reads it back; the machines hold what was promised."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobula.client import Client as Sdk
from ops.region import REPO
from tests.region.conftest import Machines
from tests.region.signed import Client, encode
from tests.stock_clients import Output

pytestmark = pytest.mark.region
ODD_NAMES = (
    "with space", "quote'single", 'quote"double', "100%", "%41", "ümläut", "日本語", "emoji-🚀", "(paren)*!~", "a=b&c?d#e", "plus+plus",
    "back\\slash", "x" * 255, "é" * 127, ".hidden", "-dash", "semi;colon,comma", "brace{}[]",
)  # fmt: skip


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324


def tree_of(root: Path) -> dict[str, str]:
    """MD5 by relative path of every file below root."""
    return {str(p.relative_to(root)): md5_of(p) for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 real files of this machine's documentation, and a tree of odd names, empty files among them."""
    root = tmp_path_factory.mktemp("tree")
    documents = sorted(p for p in Path("/usr/share/doc").rglob("*") if p.is_file() and not p.is_symlink())
    assert len(documents) >= 300
    for source in random.Random(7).sample(documents, 300):  # noqa: S311
        target = root / "doc" / source.relative_to("/usr/share/doc")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for number, name in enumerate(ODD_NAMES):
        folder = root / "odd" / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(os.urandom(number * 1000))
        (folder / "empty").touch()
    return root


@pytest.fixture(scope="module")
def stored(tree: Path, manta: Callable[..., Output], demo: Client) -> Iterator[str]:
    """The tree, put into the region by `msync`."""
    top = f"/demo/stor/tree-{uuid.uuid4()}"
    path = f"{top}/of files"
    made = manta("mmkdir", "-p", path)
    assert made.returncode == 0, made.stderr
    synced = manta("msync", str(tree), path, timeout_s=900)
    assert synced.returncode == 0, synced.stderr
    yield path
    demo.remove_tree(top)


def test_every_file_reads_back_with_an_equal_md5(stored: str, tree: Path, demo: Client) -> None:
    wrong = []
    for name, digest in tree_of(tree).items():
        answer = demo.get(f"{stored}/{name}")
        if answer.status != 200 or hashlib.md5(answer.body).hexdigest() != digest:  # noqa: S324
            wrong.append((name, answer.status))
    assert not wrong


def test_the_sdk_walks_the_same_tree_and_reads_it(stored: str, tree: Path, sdk: Sdk) -> None:
    found = sorted(f.path for f in sdk.walk(stored) if not f.entry.is_directory)
    digests = {path: hashlib.md5(b"".join(sdk.get(path))).hexdigest() for path in found}  # noqa: S324
    assert {path.removeprefix(f"{stored}/"): digest for path, digest in digests.items()} == tree_of(tree)


def test_our_own_commands_store_find_and_fetch_a_tree(
    tree: Path, environment: dict[str, str], demo: Client, tmp_path: Path
) -> None:
    def ours(command: str, *argv: str) -> str:
        # No ~/.ssh, no other variable: what `env` says is enough.
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", **environment}
        done = subprocess.run(
            [REPO / "bin" / command, *argv], env=variables, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    top = f"/demo/stor/ours-{uuid.uuid4()}"
    ours("mmkdir", "-p", f"{top}/tree")
    ours("msync", "-q", str(tree), f"{top}/tree")
    found = ours("mfind", "-t", "o", f"{top}/tree").splitlines()
    assert sorted(path.removeprefix(f"{top}/tree/") for path in found) == sorted(tree_of(tree))
    ours("msync", "-q", "-r", f"{top}/tree", str(tmp_path / "back"))
    assert tree_of(tmp_path / "back") == tree_of(tree)
    ours("mrm", "-r", top)
    assert demo.get(top).status == 404


def test_the_stock_client_downloads_the_same_tree(
    stored: str, tree: Path, manta: Callable[..., Output], tmp_path: Path
) -> None:
    done = manta("msync", "-r", stored, str(tmp_path / "back"), timeout_s=900)
    assert done.returncode == 0, done.stderr
    assert tree_of(tmp_path / "back") == tree_of(tree)


def test_mfind_finds_every_file(stored: str, tree: Path, manta: Callable[..., Output]) -> None:
    found = manta("mfind", "-t", "o", stored)
    assert found.returncode == 0, found.stderr
    assert sorted(found.stdout.splitlines()) == sorted(f"{stored}/{name}" for name in tree_of(tree))


def test_every_non_empty_object_lies_on_two_machines_in_two_azs_and_an_empty_one_on_none(
    stored: str, tree: Path, machines: Machines
) -> None:
    files = machines.files()
    by_object: dict[str, set[str]] = {}
    for host, names in files.items():
        for name in names:
            by_object.setdefault(Path(name).name, set()).add(machines.region.hosts[host].az)
    sizes = {md5_of(p): p.stat().st_size for p in tree.rglob("*") if p.is_file()}
    rows = machines.sql("SELECT object_id, size, encode(md5, 'hex') FROM metadata.entry WHERE kind = 'object'")
    in_tree = [row for row in rows if row[2] in sizes]
    assert len(in_tree) >= len(tree_of(tree))
    for object_id, size, digest in in_tree:
        azs = by_object.get(f"{object_id}.{size}.{digest}", set())
        assert len(azs) == (2 if int(size) else 0), (object_id, size, azs)


def test_audit_is_clean_with_the_tree_in_it(stored: str, tree: Path, mobula: Callable[..., Output]) -> None:
    said = mobula("audit", "--json", "--read")
    report = json.loads(said.stdout)
    assert (report["ok"], said.returncode) == (True, 0), report["findings"] or report["unknown"]
    sizes = [p.stat().st_size for p in tree.rglob("*") if p.is_file()]
    assert report["objects"] >= sum(1 for size in sizes if size)
    assert report["empty"] >= sum(1 for size in sizes if not size)
    assert report["bytes"] >= 2 * sum(sizes)


def garbage_rows(machines: Machines) -> int:
    return sum(int(row[0]) for row in machines.sql("SELECT count(*) FROM metadata.garbage"))


def test_mrm_leaves_no_entry_and_one_garbage_row_per_deleted_object(
    tree: Path, manta: Callable[..., Output], machines: Machines, demo: Client
) -> None:
    path = f"/demo/stor/doomed-{uuid.uuid4()}"
    small = tree / "odd"
    assert manta("mmkdir", "-p", path).returncode == 0
    assert manta("msync", str(small), path, timeout_s=600).returncode == 0
    before = garbage_rows(machines)
    removed = manta("mrm", "-r", path, timeout_s=600)
    assert removed.returncode == 0, removed.stderr
    assert demo.get(path).status == 404
    rows = machines.sql("SELECT directory FROM metadata.entry WHERE directory LIKE '%/stor/doomed-%'")
    assert not [row for row in rows if Path(path).name in row[0]]
    assert garbage_rows(machines) - before == sum(1 for p in small.rglob("*") if p.is_file() and p.stat().st_size)


def test_pages_are_full_inclusive_and_complete(folder: str, demo: Client) -> None:
    names = [f"{number:03}" for number in range(25)]
    for name in names:
        assert demo.put(f"{folder}/{name}", b"").status == 204
    first = demo.request("GET", f"{encode(folder)}?limit=10")
    assert [e["name"] for e in first.lines()] == names[:10]
    assert first.headers["result-set-size"] == "25"
    second = demo.request("GET", f"{encode(folder)}?limit=10&marker=009")
    assert [e["name"] for e in second.lines()] == names[9:19]
    assert [e["name"] for e in demo.request("GET", f"{encode(folder)}?limit=1024&sort_order=reverse").lines()] == names[
        ::-1
    ]
    assert demo.request("GET", f"{encode(folder)}?limit=0").json()["code"] == "InvalidArgumentError"


@pytest.mark.skipif(not os.environ.get("MOBULA_BIG"), reason="one object of 1 GiB; set MOBULA_BIG=1")
def test_an_object_of_one_gibibyte(manta: Callable[..., Output], tmp_path: Path, folder: str) -> None:
    big = tmp_path / "big"
    subprocess.run(["openssl", "rand", "-out", str(big), str(1 << 30)], check=True)
    put = manta("mput", "-q", "-f", str(big), f"{folder}/big", timeout_s=600)
    assert put.returncode == 0, put.stderr
    got = manta("mget", "-q", "-o", str(tmp_path / "back"), f"{folder}/big", timeout_s=600)
    assert got.returncode == 0, got.stderr
    assert md5_of(tmp_path / "back") == md5_of(big)
