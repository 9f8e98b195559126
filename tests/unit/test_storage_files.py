from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.storage.files import NameRefused, NoSpace, ObjectExists, ObjectFiles, ObjectMissing, ObjectName, check_id

ACCOUNT = "930896af-bf8c-48d4-885c-6573a94b1853"


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def files(tmp_path: Path) -> ObjectFiles:
    files = ObjectFiles(tmp_path, fill_max=1.0)
    files.start()
    return files


def put(files: ObjectFiles, object_id: str, *pieces: bytes) -> ObjectName:
    """A whole upload."""
    upload = files.create(ACCOUNT, object_id, None)
    try:
        for piece in pieces:
            upload.write(memoryview(piece))
        return upload.commit()
    except BaseException:
        upload.abort()
        raise


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_stored_object_is_named_by_what_it_holds(files: ObjectFiles, tmp_path: Path) -> None:
    object_id = new_id()
    name = put(files, object_id, b"ab", b"c")
    assert name.path == f"{ACCOUNT}/{object_id}.3.900150983cd24fb0d6963f7d28e17f72"
    assert everything(tmp_path) == [name.path]
    assert (tmp_path / name.path).read_bytes() == b"abc"


def test_the_file_is_synced_before_and_after_its_rename(
    files: ObjectFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a crash on zfs-fuse as well as on other file systems."""
    calls: list[str] = []

    def record(name: str, describe: Callable[..., str]) -> None:
        original = getattr(os, name)

        def wrapper(*args: Any, **options: Any) -> Any:
            calls.append(f"{name} {describe(*args)}")
            return original(*args, **options)

        monkeypatch.setattr(os, name, wrapper)

    def target(fd: int) -> str:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return "directory" if path.is_dir() else path.parent.name

    record("fsync", target)
    record("rename", lambda _old, new: Path(new).parent.name)
    upload = files.create(ACCOUNT, new_id(), 3)
    upload.write(memoryview(b"abc"))
    assert calls == []
    (tmp_path / ACCOUNT).mkdir()
    upload.commit()
    assert calls == ["fsync tmp", f"rename {ACCOUNT}", f"fsync {ACCOUNT}", "fsync directory"]


def test_an_id_is_used_once(files: ObjectFiles, tmp_path: Path) -> None:
    object_id = new_id()
    put(files, object_id, b"abc")
    with pytest.raises(ObjectExists):
        put(files, object_id, b"other")
    restarted = ObjectFiles(tmp_path, fill_max=1.0)
    restarted.start()
    with pytest.raises(ObjectExists):
        put(restarted, object_id, b"abc")
    assert len(everything(tmp_path)) == 1


def test_two_uploads_of_an_id_do_not_meet(files: ObjectFiles, tmp_path: Path) -> None:
    object_id = new_id()
    first = files.create(ACCOUNT, object_id, None)
    with pytest.raises(ObjectExists):
        files.create(ACCOUNT, object_id, None)
    first.write(memoryview(b"abc"))
    first.commit()
    assert len(everything(tmp_path)) == 1


def test_an_upload_that_began_while_another_of_its_id_was_placed_is_refused(files: ObjectFiles, tmp_path: Path) -> None:
    object_id = new_id()
    first = files.create(ACCOUNT, object_id, None)
    first.write(memoryview(b"abc"))
    first.temporary = str(
        Path(first.temporary).rename(tmp_path / "tmp" / "moved")
    )  # as far as a rename under way has come
    second = files.create(ACCOUNT, object_id, None)
    second.write(memoryview(b"other"))
    first.commit()
    with pytest.raises(ObjectExists):
        second.commit()
    second.abort()
    assert len(everything(tmp_path)) == 1


def test_an_upload_that_could_not_be_placed_does_not_use_its_id_up(
    files: ObjectFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_old: str, _new: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    object_id = new_id()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(NoSpace):
            put(files, object_id, b"abc")
    put(files, object_id, b"abc")
    assert len(everything(tmp_path)) == 1


def test_an_aborted_upload_leaves_nothing_and_its_id_free(files: ObjectFiles, tmp_path: Path) -> None:
    object_id = new_id()
    upload = files.create(ACCOUNT, object_id, None)
    upload.write(memoryview(b"abc"))
    upload.abort()
    upload.abort()
    assert everything(tmp_path) == []
    put(files, object_id, b"abc")


def test_a_start_removes_what_a_crash_left(files: ObjectFiles, tmp_path: Path) -> None:
    upload = files.create(ACCOUNT, new_id(), None)
    upload.write(memoryview(b"abc"))
    os.close(upload.fd)
    kept = put(files, new_id(), b"x")
    assert ObjectFiles(tmp_path, fill_max=1.0).start() == 1
    assert everything(tmp_path) == [kept.path]


def test_a_full_pool_takes_nothing(files: ObjectFiles, tmp_path: Path) -> None:
    with pytest.raises(NoSpace):
        files.create(ACCOUNT, new_id(), 1 << 60)
    full = ObjectFiles(tmp_path, fill_max=0.0)
    full.start()
    with pytest.raises(NoSpace):
        put(full, new_id(), b"abc")
    assert everything(tmp_path) == []


def test_a_disk_that_fills_up_in_the_middle_says_so(files: ObjectFiles, tmp_path: Path) -> None:
    upload = files.create(ACCOUNT, new_id(), None)
    os.dup2(os.open("/dev/full", os.O_WRONLY), upload.fd)
    with pytest.raises(NoSpace):
        upload.write(memoryview(b"abc"))
    upload.abort()
    assert everything(tmp_path) == []


def test_a_deleted_object_is_gone(files: ObjectFiles) -> None:
    name = put(files, new_id(), b"abc")
    assert files.exists(name)
    files.delete(name)
    assert not files.exists(name)
    for call in (files.delete, files.open):
        with pytest.raises(ObjectMissing):
            call(name)


@given(st.text(max_size=60), st.text(max_size=120))
def test_no_name_leads_out_of_the_data_directory(account: str, file_name: str) -> None:
    for account_given, name_given in ((account, file_name), (ACCOUNT, file_name), (account, f"{ACCOUNT}.1.{'0' * 32}")):
        with pytest.raises(NameRefused):
            ObjectName.parse(account_given, name_given)
        with pytest.raises(NameRefused):
            check_id(account_given, name_given)


@pytest.mark.parametrize(
    "name",
    [
        f"{ACCOUNT}.01.{'0' * 32}",
        f"{ACCOUNT}.-1.{'0' * 32}",
        f"{ACCOUNT}.1.{'0' * 31}",
        f"{ACCOUNT}.1.{'A' * 32}",
        f"{ACCOUNT}.1.{'0' * 32}\n",
        f"{ACCOUNT.upper()}.1.{'0' * 32}",
        f"../{ACCOUNT}.1.{'0' * 32}",
        f"{ACCOUNT}.٣.{'0' * 32}",
    ],
)
def test_a_name_that_is_nearly_right_is_refused(name: str) -> None:
    with pytest.raises(NameRefused):
        ObjectName.parse(ACCOUNT, name)


def test_a_cached_read_gives_all_bytes_or_none(files: ObjectFiles) -> None:
    data = os.urandom(10_000)
    name = put(files, new_id(), data)
    assert files.read_cached(name) in (None, data)
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == name.md5
