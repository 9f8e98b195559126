"""Control groups in a folder that looks like the kernel's, as far as names go. The kernel of this machine: tests/probe/test_sandbox.py."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from mobula.sandbox import cgroups
from mobula.sandbox.cgroups import Group, Limits, prepare, remove_all

LIMITS = Limits(64 << 20, 100)


@pytest.fixture
def wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel is told, in its order."""
    told: list[str] = []
    monkeypatch.setattr(cgroups, "_write", lambda path, value: told.append(f"{path.relative_to(tmp_path)} {value}"))
    return told


def refuse(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    before: Callable[[Path, object], None] = cgroups._write

    def write(path: Path, value: object) -> None:
        if what in f"{path} {value}":
            raise OSError(22, "Invalid argument")
        before(path, value)

    monkeypatch.setattr(cgroups, "_write", write)


def version_1(root: Path, *kinds: str) -> None:
    for kind in kinds:
        (root / kind).mkdir()


def test_version_1_has_a_tree_for_each_kind(tmp_path: Path, wrote: list[str]) -> None:
    version_1(tmp_path, *cgroups.KINDS)
    assert prepare("tasks", tmp_path) == ""
    group = Group("tasks", "7", "job", tmp_path)
    group.make(LIMITS)
    assert wrote == [
        "cpu/tasks/cpu.idle 1",
        "memory/tasks/job/7/memory.limit_in_bytes 67108864",
        "pids/tasks/job/7/pids.max 100",
    ]
    assert [str(door.relative_to(tmp_path)) for door in group.doors] == [
        f"{kind}/tasks/job/7/cgroup.procs" for kind in cgroups.KINDS
    ]
    assert group.remove()
    assert sorted(path.name for path in tmp_path.glob("*/tasks/*")) == []


def test_a_share_stays_until_its_last_sandbox_goes(
    tmp_path: Path, wrote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(tmp_path, *cgroups.KINDS)
    prepare("tasks", tmp_path)
    one, other = (Group("tasks", name, "job", tmp_path) for name in "12")
    one.make(LIMITS)
    other.make(LIMITS)
    rmdir = Path.rmdir

    def as_the_kernel(path: Path) -> None:
        if any(path.iterdir()):
            raise OSError(errno.EBUSY, "Device or resource busy")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", as_the_kernel)
    assert one.remove()
    assert [path.name for path in (tmp_path / "cpu/tasks/job").iterdir()] == ["2"]
    assert other.remove()
    assert list(tmp_path.glob("*/tasks/*")) == []


def test_a_parent_that_is_mounted_stays_empty(
    tmp_path: Path, wrote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(tmp_path, *cgroups.KINDS)
    prepare("tasks", tmp_path)
    Group("tasks", "7", "job", tmp_path).make(LIMITS)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"57 56 0:30 /region/tasks/host {tmp_path}/cpu/tasks rw,relatime - cgroup cgroup rw,cpu\n")
    monkeypatch.setattr(cgroups, "MOUNTS", mounts)
    assert remove_all("tasks", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")] == ["cpu/tasks"]


def test_without_the_kind_for_processors_all_else_is_bounded(tmp_path: Path, wrote: list[str]) -> None:
    version_1(tmp_path, *cgroups.BOUNDS)
    assert "the kernel's controller 'cpu' can't be used" in prepare("tasks", tmp_path)
    group = Group("tasks", "7", "job", tmp_path)
    group.make(LIMITS)
    assert len(group.doors) == len(wrote) == 2
    assert remove_all("tasks", tmp_path)
    assert list(tmp_path.glob("*/*")) == []


def test_processors_that_can_not_be_shared_leave_no_group(
    tmp_path: Path, wrote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version_1(tmp_path, *cgroups.KINDS)
    refuse(monkeypatch, "cpu.idle")
    assert "Invalid argument" in prepare("tasks", tmp_path)
    assert len(Group("tasks", "7", "job", tmp_path).doors) == 2


def test_without_a_bound_of_memory_there_is_no_sandbox(tmp_path: Path, wrote: list[str]) -> None:
    version_1(tmp_path, "pids", "cpu")
    with pytest.raises(FileNotFoundError):
        prepare("tasks", tmp_path)


def test_a_bound_is_never_a_file_of_ours(tmp_path: Path) -> None:
    version_1(tmp_path, *cgroups.KINDS)
    prepare("tasks", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"memory\.limit_in_bytes"):
        Group("tasks", "7", "", tmp_path).make(LIMITS)


def version_2(root: Path) -> None:
    (root / "cgroup.controllers").touch()


def test_version_2_has_one_tree_and_switches_kinds_on_from_above(tmp_path: Path, wrote: list[str]) -> None:
    version_2(tmp_path)
    assert prepare("tasks", tmp_path) == ""
    assert wrote == [
        "cgroup.subtree_control +memory", "cgroup.subtree_control +pids",
        "tasks/cgroup.subtree_control +memory", "tasks/cgroup.subtree_control +pids",
        "cgroup.subtree_control +cpu", "tasks/cpu.idle 1", "tasks/cgroup.subtree_control +cpu",
    ]  # fmt: skip
    wrote.clear()
    (tmp_path / "tasks/cgroup.subtree_control").write_text("cpu memory pids\n")
    group = Group("tasks", "7", "job", tmp_path)
    group.make(LIMITS)
    assert wrote == [
        *(f"tasks/job/cgroup.subtree_control +{kind}" for kind in ("cpu", "memory", "pids")),
        "tasks/job/7/memory.max 67108864", "tasks/job/7/pids.max 100",
    ]  # fmt: skip
    assert [str(door.relative_to(tmp_path)) for door in group.doors] == ["tasks/job/7/cgroup.procs"]


def test_version_2_without_processors_goes_on(
    tmp_path: Path, wrote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version_2(tmp_path)
    refuse(monkeypatch, "+cpu")
    assert "can't be used" in prepare("tasks", tmp_path)
    refuse(monkeypatch, "+memory")
    with pytest.raises(OSError, match="Invalid argument"):
        prepare("tasks", tmp_path)
