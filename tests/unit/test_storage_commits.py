"""Group commit of small objects: what is on disk when, and what a crash leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobula.storage.commits import Commits
from mobula.storage.files import NoSpace, ObjectExists, ObjectFiles, ObjectMissing, ObjectName, file_system
from mobula.storage.log import Kind, scan

ACCOUNT = "930896af-bf8c-48d4-885c-6573a94b1853"
BOUND_S = 5.0


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def started(root: Path) -> Iterator[Callable[..., Commits]]:
    """Makes Commits on the same data directory, each as after a restart; they end with the test."""
    made: list[Commits] = []

    def start(**limits: Any) -> Commits:
        files = ObjectFiles(root, fill_max=1.0)
        files.start()
        commits = Commits(files, **limits)
        commits.start()
        made.append(commits)
        return commits

    yield start
    for commits in made:
        commits.stop()


def keep_segments(commits: Commits) -> None:
    """Its checkpoints fail from now on: who starts after it finds its segments, as after a crash."""

    def fails(*_: object) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    commits._files.make_last = fails  # type: ignore[method-assign]


def put(commits: Commits, *bodies: bytes) -> list[ObjectName]:
    """Stored at once, each under an id of its own."""

    async def all_of_them() -> list[ObjectName]:
        return await asyncio.gather(*(commits.put(ACCOUNT, new_id(), body) for body in bodies))

    return asyncio.run(asyncio.wait_for(all_of_them(), BOUND_S))


def delete(commits: Commits, name: ObjectName) -> None:
    asyncio.run(asyncio.wait_for(commits.delete(name), BOUND_S))


def segments(root: Path) -> list[Path]:
    return sorted((root / "log").iterdir(), key=lambda path: int(path.name))


def objects(root: Path) -> dict[str, bytes]:
    return {f"{ACCOUNT}/{path.name}": path.read_bytes() for path in (root / ACCOUNT).glob("*")}


def until(state: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND_S
    while not state():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the kernel from now on: syncs, and the making of files, by the folder's name."""
    said: list[str] = []

    def where(fd: int) -> str:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return "folder" if path.is_dir() else path.parent.name

    def record(name: str, describe: Callable[..., str]) -> None:
        original = getattr(os, name)

        def wrapper(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            said.append(f"{name} {describe(result, *args)}")
            return result

        monkeypatch.setattr(os, name, wrapper)

    record("fdatasync", lambda _, fd: where(fd))
    record("write", lambda _, fd, _data: where(fd))
    return said


def test_the_record_is_on_disk_before_the_file_is_made_and_both_before_the_answer(
    started: Callable[..., Commits], root: Path, calls: list[str]
) -> None:
    commits = started()
    (name,) = put(commits, b"abc")
    assert calls == ["write log", "fdatasync log", f"write {ACCOUNT}"]
    assert objects(root) == {name.path: b"abc"}
    (segment,) = segments(root)
    assert [record.body for record in scan(int(segment.name), segment.read_bytes())] == [b"abc"]


def test_who_comes_together_shares_a_sync(started: Callable[..., Commits], root: Path, calls: list[str]) -> None:
    commits = started()
    bodies = [os.urandom(100) for _ in range(50)]
    names = put(commits, *bodies)
    assert calls.count("fdatasync log") < 25
    assert objects(root) == {name.path: body for name, body in zip(names, bodies, strict=True)}


def test_files_that_a_crash_took_come_back(started: Callable[..., Commits], root: Path) -> None:
    names = put(started(), b"abc", b"", b"x" * 65_536)
    (root / names[0].path).unlink()
    (root / names[2].path).write_bytes(b"x")
    again = started()
    assert objects(root) == {names[0].path: b"abc", names[1].path: b"", names[2].path: b"x" * 65_536}
    until(lambda: segments(root) == [])
    assert not again.holds(names[0])


def test_what_was_deleted_stays_deleted(started: Callable[..., Commits], root: Path) -> None:
    commits = started(segment_bytes=1)  # each batch its own segment
    keep_segments(commits)
    kept, gone = put(commits, b"kept", b"gone")
    assert commits.holds(gone)
    delete(commits, gone)
    with pytest.raises(ObjectMissing):
        delete(commits, gone)
    assert len(segments(root)) > 1
    started()
    assert objects(root) == {kept.path: b"kept"}


def test_an_id_is_used_once(started: Callable[..., Commits], root: Path) -> None:
    commits, object_id = started(), new_id()

    async def twice() -> list[Any]:
        puts = (commits.put(ACCOUNT, object_id, body) for body in (b"one", b"two"))
        return await asyncio.gather(*puts, return_exceptions=True)

    first, second = asyncio.run(twice())
    assert isinstance(first, ObjectName)
    assert isinstance(second, ObjectExists)
    assert objects(root) == {first.path: b"one"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_log_that_can_not_be_written_acknowledges_nothing_and_begins_anew(
    started: Callable[..., Commits], root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    commits = started()
    keep_segments(commits)
    (before,) = put(commits, b"before")
    original = getattr(os, call)

    def fails(fd: int, *args: Any) -> Any:
        if args:
            original(fd, args[0][:20])  # a part of it went
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(NoSpace if code == errno.ENOSPC else OSError):
        put(commits, b"lost")
    monkeypatch.setattr(os, call, original)
    (after,) = put(commits, b"after")
    (root / after.path).unlink()
    started()
    found = objects(root)
    assert {before.path: b"before", after.path: b"after"}.items() <= found.items()


def test_a_segment_whose_name_may_not_last_takes_no_record(
    started: Callable[..., Commits], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, original = started(), os.fsync

    def fails(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink() == root / "log":
            raise OSError(errno.EIO, "Input/output error")
        original(fd)

    monkeypatch.setattr(os, "fsync", fails)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            put(commits, b"lost")
    assert objects(root) == {}
    monkeypatch.setattr(os, "fsync", original)
    (name,) = put(commits, b"abc")
    assert [path.stat().st_size > 0 for path in segments(root)] == [False, False, True]
    assert objects(root) == {name.path: b"abc"}


def test_a_file_that_can_not_be_made_is_not_acknowledged(
    started: Callable[..., Commits], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, object_id = started(), new_id()
    original = os.write

    def fails(fd: int, data: Any) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().parent.name == ACCOUNT:
            raise OSError(errno.EDQUOT, "quota")
        return original(fd, data)

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(NoSpace):
        asyncio.run(commits.put(ACCOUNT, object_id, b"abc"))
    monkeypatch.setattr(os, "write", original)
    assert asyncio.run(commits.put(ACCOUNT, object_id, b"abc")).size_bytes == 3


@pytest.mark.parametrize("whole", [True, False])
def test_a_full_segment_goes_when_its_files_last(
    started: Callable[..., Commits], root: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    synced: list[str] = []
    original = os.fsync

    def fsync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    commits = started(segment_bytes=1)
    commits._files._sync_all = (lambda _: not synced.append("all")) if whole else None
    (name,) = put(commits, b"abc")
    until(lambda: not commits.holds(name))
    assert segments(root) == []
    wanted = ["all"] if whole else [str(root / name.path), str(root / ACCOUNT)]
    assert synced[-len(wanted) :] == wanted


def test_an_old_segment_goes_though_nobody_comes(started: Callable[..., Commits], root: Path) -> None:
    put(started(segment_age_s=0.1), b"abc")
    until(lambda: segments(root) == [])


def test_a_checkpoint_that_fails_keeps_its_segment_says_so_and_is_made_again(
    started: Callable[..., Commits], root: Path
) -> None:
    commits = started(segment_bytes=1)
    broken = [True]

    def sync(_stopped: object) -> bool:
        if broken:
            raise OSError(errno.EIO, "Input/output error")
        return True

    commits._files._sync_all = sync
    put(commits, b"abc")
    until(lambda: "Input/output error" in commits.trouble)
    assert len(segments(root)) == 1
    broken.clear()
    until(lambda: segments(root) == [] and not commits.trouble)


def test_a_stop_leaves_no_segment(started: Callable[..., Commits], root: Path) -> None:
    commits = started()
    (name,) = put(commits, b"abc")
    commits.stop()
    assert segments(root) == []
    assert objects(root) == {name.path: b"abc"}


def test_a_record_tells_of_a_deletion_by_the_whole_name(started: Callable[..., Commits], root: Path) -> None:
    commits = started()
    (name,) = put(commits, b"abc")
    delete(commits, name)
    (segment,) = segments(root)
    last = list(scan(int(segment.name), segment.read_bytes()))[-1]
    assert (last.kind, last.size_bytes, last.md5.hex(), last.body) == (Kind.DELETED, 3, name.md5, b"")


def test_where_making_files_last_takes_long_a_stop_leaves_segments_to_the_next_start(
    started: Callable[..., Commits], root: Path
) -> None:
    commits = started(segment_bytes=1)
    asked = threading.Event()

    def wait(stopped: threading.Event) -> bool:
        asked.set()
        return not stopped.wait(BOUND_S)

    commits._files._sync_all = wait
    names = put(commits, b"abc", b"def")
    assert asked.wait(BOUND_S)
    commits.stop()
    assert segments(root) != []
    for name in names:
        (root / name.path).write_bytes(b"")
    started()
    assert objects(root) == {names[0].path: b"abc", names[1].path: b"def"}
    until(lambda: segments(root) == [])


MOUNTS = (
    "overlay / overlay rw 0 0\n/dev/sda /data ext4 rw 0 0\ntank /tank fuse.zfs rw 0 0\n/dev/sdb /a\\040b xfs rw 0 0\n"
)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/data", "ext4"), ("/data/x", "ext4"), ("/data2", "overlay"), ("/tank/objects", "fuse.zfs"), ("/", "overlay"), ("/a b/c", "xfs")],
)  # fmt: skip
def test_a_folder_lies_on_the_file_system_of_the_longest_place(folder: str, kind: str) -> None:
    assert file_system(MOUNTS, Path(folder)) == kind


def test_a_later_mount_hides_an_earlier_one() -> None:
    assert file_system("/dev/sda /data ext4 rw 0 0\ntank /data fuse.zfs rw 0 0\n", Path("/data")) == "fuse.zfs"
