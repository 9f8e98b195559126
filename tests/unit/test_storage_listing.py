"""A storage host's files in pages: each is shown, whatever comes, goes or is asked meanwhile."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.storage.listing import MarkerRefused, Walk

MD5 = "0" * 32


def make(root: Path, account: uuid.UUID, count: int) -> set[str]:
    folder = root / str(account)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {str(uuid.uuid4()) for _ in range(count)}
    for object_id in ids:
        (folder / f"{object_id}.1.{MD5}").write_bytes(b"x")
    return ids


def walked(walk: Walk, *, older_s: int = 0) -> list[str]:
    found, after = [], ""
    while True:
        page = walk.page(after, older_s=older_s)
        found += [file.object_id for file in page.files]
        after = page.next
        if not after:
            return found


@pytest.mark.parametrize("page_files", [1, 2, 3, 7, 100])
def test_each_file_is_shown_once_and_nothing_else(tmp_path: Path, page_files: int) -> None:
    wanted = {i for count in (3, 0, 5) for i in make(tmp_path, uuid.uuid4(), count)}
    for other in ("tmp", "log", "lost+found"):
        (tmp_path / other).mkdir()
        (tmp_path / other / str(uuid.uuid4())).touch()
    (tmp_path / "file").touch()
    strange = tmp_path / str(uuid.uuid4())
    strange.mkdir()
    (strange / "README").touch()
    assert sorted(walked(Walk(tmp_path, page_files=page_files))) == sorted(wanted)


def test_young_files_are_looked_at_but_not_shown(tmp_path: Path) -> None:
    make(tmp_path, uuid.uuid4(), 3)
    page = Walk(tmp_path).page("", older_s=1000)
    assert (page.files, page.looked_at, page.next) == ([], 3, "")


def test_a_changed_name_or_mode_makes_old_bytes_young(tmp_path: Path) -> None:
    make(tmp_path, uuid.uuid4(), 1)
    (file,) = tmp_path.glob("*/*")
    os.utime(file, (time.time() - 5000, time.time() - 5000))
    assert Walk(tmp_path).page("", older_s=1000).files == []


def test_a_marker_of_another_walk_begins_its_account_anew(tmp_path: Path) -> None:
    first, second = sorted((uuid.uuid4(), uuid.uuid4()))
    make(tmp_path, first, 2)
    ids = make(tmp_path, second, 3)
    walk = Walk(tmp_path, page_files=3)
    marker = walk.page("", older_s=0).next
    assert marker.startswith(str(second))
    restarted = Walk(tmp_path, page_files=3)
    assert {file.object_id for file in restarted.page(marker, older_s=0).files} == ids
    assert {file.object_id for file in walk.page(marker, older_s=0).files} < ids
    # The same page again, as after an answer that got lost: the account comes anew.
    assert {file.object_id for file in walk.page(marker, older_s=0).files} == ids


@pytest.mark.parametrize("marker", ["x", "../..", f"{uuid.UUID(int=0)}.{'0' * 32}", f"{'/' * 36}.{'0' * 32}.1", "\x00"])
def test_what_is_no_marker_is_refused(tmp_path: Path, marker: str) -> None:
    with pytest.raises(MarkerRefused):
        Walk(tmp_path).page(marker, older_s=0)


@given(st.lists(st.integers(0, 6), max_size=5), st.integers(1, 4), st.lists(st.booleans(), max_size=10))
def test_a_walk_that_another_one_interrupts_sees_everything_all_the_same(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], page_files: int, interrupted: list[bool]
) -> None:
    root = tmp_path_factory.mktemp("files")
    wanted = {i for count in counts for i in make(root, uuid.uuid4(), count)}
    walk, seen, after = Walk(root, page_files=page_files), set[str](), ""
    while True:
        page = walk.page(after, older_s=0)
        seen |= {file.object_id for file in page.files}
        after = page.next
        if not after:
            break
        if interrupted and interrupted.pop():
            walk.page("", older_s=0)
    assert seen == wanted
