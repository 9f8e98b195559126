"""The base image's ingredients and the mirror it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import image
from ops.errors import OperatorError
from ops.mirror import mirror_lines


def test_a_package_list_is_read_without_its_comments_and_roles() -> None:
    text = "# every machine\nbase: systemd python3\n\nstorage: zfs-fuse python3 # twice\n"
    assert image.read_packages(text) == ["python3", "systemd", "zfs-fuse"]


def test_another_package_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = image.digest()
    changed = tmp_path / "packages"
    changed.write_text(image.PACKAGES.read_text() + "more: jq2\n")
    monkeypatch.setattr(image, "PACKAGES", changed)
    assert image.digest() != before


def test_a_disk_without_room_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image, "ROOM_BYTES", 1 << 62)
    with pytest.raises(OperatorError, match=r"MiB are free, .* are needed; free some room"):
        image.ensure(tmp_path, lambda _: None)
    assert not list(tmp_path.glob("image/*.new"))


def test_an_interrupted_build_leaves_nothing_that_looks_like_an_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(new: Path, _progress: object) -> None:
        (new / "root").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "_bootstrap", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image.ensure(tmp_path, lambda _: None)
    assert not image.root_of(tmp_path).exists()
    assert [p.name for p in (tmp_path / "image").iterdir()] == ["lock"]


def test_the_mirror_follows_the_machines_own_apt() -> None:
    targets = (
        "http://m/debian bookworm main Debian\nhttp://m/debian bookworm-updates main Debian\n"
        "http://s/security bookworm-security main Debian\nhttp://m/debian bookworm contrib Debian\n"
        "http://v/vendor bookworm main Vendor\n"
    )
    lines = mirror_lines(targets, "trixie")
    assert [line.split("] ")[1] for line in lines] == [
        "http://m/debian trixie main",
        "http://m/debian trixie-updates main",
        "http://s/security trixie-security main",
    ]
    assert all("signed-by" in line for line in lines)


def test_a_machine_without_a_debian_mirror_gets_no_lines() -> None:
    assert mirror_lines("http://u/ubuntu noble main Ubuntu\n", "trixie") == []


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            "I: x\ndpkg: error: No space left on device\nE: mmdebstrap failed to run\n",
            "the disk is full; free some room or",
        ),
        ("E: You don't have enough free space in /var/cache/apt/archives/.\n", "the disk is full"),
        ("I: x\nE: no such suite\nE: no such suite\nmore\n", "no such suite"),
        ("a\nb\nc\nd\n", "b | c | d"),
        ("", "mmdebstrap said nothing"),
    ],
)
def test_what_ended_a_build_is_one_sentence(log: str, why: str) -> None:
    assert image.why_failed(log).startswith(why)
