"""What runs on a storage host to spoil copies: it touches files of the drill's own objects, and looks at no others."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ops.drills.storage_faults import ROT

ACCOUNT = str(uuid.UUID(int=7))
OURS = [f"known {number} ".encode() * 8 for number in range(3)]


def called(body: bytes) -> str:
    """Behind an object id."""
    return f"{len(body)}.{hashlib.md5(body, usedforsecurity=False).hexdigest()}"


def rot(root: Path, verb: str, *bodies: bytes) -> dict[str, int | list[str]]:
    names = "\n".join(map(called, bodies))
    argv = [sys.executable, "-c", ROT, verb, str(root)]
    said = subprocess.run(argv, input=names, capture_output=True, text=True, check=True, timeout=60).stdout
    found: dict[str, int | list[str]] = json.loads(said)
    return found


def name(number: int) -> str:
    """Of one of our objects' files."""
    return f"{ACCOUNT}/{uuid.UUID(int=number)}.{called(OURS[number])}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data directory with objects of ours, somebody else's, an upload, and a segment of the log that has one of ours."""
    for folder in (ACCOUNT, str(uuid.UUID(int=8)), "tmp", "log"):
        (tmp_path / folder).mkdir()
    for number, body in enumerate([*OURS, b"somebody else's"]):
        store(tmp_path, number, body)
    store(tmp_path, 9, b"", account=str(uuid.UUID(int=8)))
    (tmp_path / "tmp" / str(uuid.UUID(int=5))).write_bytes(OURS[0])
    (tmp_path / "log/7").write_bytes(OURS[0])
    (tmp_path / f"tmp/{uuid.UUID(int=5)}.{called(OURS[0])}").write_bytes(OURS[0])
    return tmp_path


def store(root: Path, number: int, body: bytes, account: str = ACCOUNT) -> Path:
    path = root / account / f"{uuid.UUID(int=number)}.{called(body)}"
    path.write_bytes(body)
    return path


def put_aside(root: Path, path: Path) -> None:
    """As the object server does."""
    (root / "quarantine").mkdir(exist_ok=True)
    path.rename(root / "quarantine" / f"{path.parent.name}.{path.name}")


def everything(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def test_one_byte_of_our_files_is_another_one_and_nothing_else_has_changed(root: Path) -> None:
    before = everything(root)
    assert rot(root, "look", *OURS[:2]) == {"right": 2, "wrong": [], "aside": 0, "missing": []}
    assert everything(root) == before
    assert sorted(rot(root, "spoil", *OURS[:2], b"")["wrong"]) == [name(0), name(1)]  # type: ignore[arg-type]
    after = everything(root)
    changed = [path for path in before if before[path] != after[path]]
    assert sorted(changed) == [name(0), name(1)]
    for path in changed:
        (old, old_ns), (new, new_ns) = before[path], after[path]
        assert (len(new), new_ns) == (len(old), old_ns)
        assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
    found = rot(root, "look", *OURS)
    assert (found["right"], len(found["wrong"])) == (1, 2)  # type: ignore[arg-type]


def test_what_was_put_aside_is_missing_until_something_is_in_its_place_and_is_removed_if_it_is_ours(root: Path) -> None:
    theirs = store(root, 3, b"somebody else's")
    for path in (store(root, 0, OURS[0]), store(root, 1, OURS[1]), theirs):
        put_aside(root, path)
    (root / "quarantine/round").write_bytes(b"{}")
    found = rot(root, "look", *OURS)
    assert (found["right"], found["wrong"], found["aside"]) == (1, [], 2)
    assert sorted(found["missing"]) == [name(0), name(1)]  # type: ignore[arg-type]
    store(root, 0, OURS[0])
    assert rot(root, "look", *OURS) == {"right": 2, "wrong": [], "aside": 2, "missing": [name(1)]}
    assert rot(root, "sweep", *OURS) == {"right": 2, "wrong": [], "aside": 0, "missing": []}
    assert {p.name for p in (root / "quarantine").iterdir()} == {"round", f"{ACCOUNT}.{theirs.name}"}


def test_a_data_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROT, "look", str(tmp_path / "gone")], input="", capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("look copies: ")
    assert "Traceback" not in done.stderr
