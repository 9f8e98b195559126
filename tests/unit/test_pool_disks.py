"""What a look at a disk's own bytes says."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mobula.pool.disks import NAMES_START, is_blank, look

SIZE = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """One that ZFS has labelled."""
    path = tmp_path / "d01"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(NAMES_START)
        file.write(b"\x01\x01")
    return path


def test_a_disk_with_a_label_is_well(disk: Path) -> None:
    seen = look(disk, None)
    assert (seen.failure, seen.blank, seen.size_bytes) == ("", False, SIZE)
    assert look(disk, seen) == seen


def test_a_disk_that_was_cut_to_nothing(disk: Path) -> None:
    before = look(disk, None)
    os.truncate(disk, 0)
    assert look(disk, before).failure == "has 0 bytes"


def test_a_disk_that_is_gone(disk: Path) -> None:
    disk.unlink()
    assert look(disk, None).failure == "is gone"


def test_a_disk_that_has_shrunk_stays_failed(disk: Path) -> None:
    before = look(disk, None)
    os.truncate(disk, SIZE // 2)
    once = look(disk, before)
    assert once.failure == f"has shrunk from {SIZE} to {SIZE // 2} bytes"
    assert look(disk, once) == once


def test_another_disk_in_its_place_has_not_shrunk(disk: Path) -> None:
    before = look(disk, None)
    assert look(disk, replace(before, identity=(0, 1), size_bytes=2 * SIZE)).failure == ""


def test_a_disk_that_grew_back_after_it_was_cut_has_lost_its_label(disk: Path) -> None:
    # ZFS goes on writing: the label's other parts (here at 128 KiB) come back by themselves.
    with disk.open("wb") as file:
        file.truncate(SIZE)
        file.seek(128 * 1024)
        file.write(b"uberblock")
    assert (look(disk, None).failure, look(disk, None).blank) == ("has lost its ZFS label", False)


def test_a_new_disk_is_blank(disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(SIZE)
    assert (look(disk, None).failure, look(disk, None).blank) == ("is blank", True)


def test_what_can_not_be_read_has_failed(tmp_path: Path) -> None:
    assert look(tmp_path, None).failure == "can't be read (Is a directory)"
    (tmp_path / "loop").symlink_to("loop")
    assert look(tmp_path / "loop", None).failure == "can't be read (Too many levels of symbolic links)"


def test_the_label_of_a_whole_disk_that_openzfs_has_partitioned_is_in_its_partition(disk: Path) -> None:
    whole = disk.with_name("wwn-1")
    whole.write_bytes(b"partition table".ljust(SIZE, b"\0"))
    disk.rename(disk.with_name("wwn-1-part1"))
    assert look(whole, None).failure == ""


def test_a_label_at_either_end_makes_a_disk_not_blank(tmp_path: Path) -> None:
    disk = tmp_path / "d01"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(SIZE)
        assert is_blank(disk)
        for place in (0, 511 * 1024, SIZE - 1):
            file.seek(place)
            file.write(b"x")
            file.flush()
            assert not is_blank(disk)
            file.seek(place)
            file.write(b"\0")
            file.flush()
    assert is_blank(disk)


def test_a_disk_without_room_for_labels_is_not_blank(tmp_path: Path) -> None:
    disk = tmp_path / "d01"
    disk.touch()
    assert not is_blank(disk)
