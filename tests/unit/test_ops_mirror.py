"""The base image's mirror is what apt itself has understood of this machine's sources, in either of their formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.errors import OperatorError
from ops.mirror import mirror_lines, sources_list

DEB822 = """Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib

Types: deb
URIs: http://security.example/debian
Suites: bookworm-security
Components: main
Enabled: yes

Types: deb
URIs: http://old.example/debian
Suites: bookworm
Components: main
Enabled: no
"""
ONE_LINE = """# the same, as it was written before
deb [arch=amd64] http://mirror.example/debian bookworm main contrib
deb http://mirror.example/debian bookworm-updates main
deb http://security.example/debian bookworm-security main
#deb http://old.example/debian bookworm main
deb http://flat.example/deb /
"""
FETCHED = {
    "mirror.example_debian_dists_bookworm": "Debian",
    "mirror.example_debian_dists_bookworm-updates": "Debian",
    "security.example_debian_dists_bookworm-security": "Debian",
    "old.example_debian_dists_bookworm": "Debian",
}


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an apt without sources, which has fetched all lists that the tests name."""
    lists = tmp_path / "lists"
    (lists / "partial").mkdir(parents=True)
    (tmp_path / "parts").mkdir()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0"
    for name, origin in FETCHED.items():
        release = (
            f"Origin: {origin}\nCodename: {name.rpartition('_')[2]}\nArchitectures: amd64\nComponents: main contrib\n"
        )
        files = "".join(f" {empty} {component}/binary-amd64/Packages\n" for component in ("main", "contrib"))
        (lists / f"{name}_InRelease").write_text(f"{release}Date: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n{files}")
        for component in ("main", "contrib"):
            (lists / f"{name}_{component}_binary-amd64_Packages").touch()
    (lists / "flat.example_deb_InRelease").write_text(
        f"Date: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n {empty} Packages\n"
    )
    (lists / "flat.example_deb_Packages").touch()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{tmp_path}/sources.list";\nDir::Etc::SourceParts "{tmp_path}/parts";\n'
        f'Dir::State::Lists "{lists}";\nDir::Cache "{tmp_path}";\n'
        'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.delenv("MOBULA_MIRROR", raising=False)
    return tmp_path


def sources(text: str) -> list[str]:
    return [line.partition("] ")[2] for line in text.splitlines()]


@pytest.mark.parametrize(("file", "text"), [("parts/debian.sources", DEB822), ("sources.list", ONE_LINE)])
def test_the_sources_are_found_in_either_format(apt: Path, file: str, text: str) -> None:
    (apt / file).write_text(text)
    assert sources(sources_list("trixie")) == [
        "http://mirror.example/debian/ trixie main",
        "http://mirror.example/debian/ trixie-updates main",
        "http://security.example/debian/ trixie-security main",
    ]


def test_a_machine_whose_apt_knows_nothing_is_told_what_to_do(apt: Path) -> None:
    with pytest.raises(OperatorError, match=r"run `apt-get update` first; on Ubuntu name one in MOBULA_MIRROR"):
        sources_list("trixie")


def test_a_mirror_that_is_named_is_the_only_one(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (apt / "sources.list").write_text(ONE_LINE)
    monkeypatch.setenv("MOBULA_MIRROR", "http://other.example/debian")
    assert sources(sources_list("trixie")) == ["http://other.example/debian trixie main"]


@pytest.mark.parametrize(
    "target",
    [
        "",
        "http://v.example/x bookworm main Vendor",
        "http://m.example/debian bookworm contrib Debian",
        "http://m.example/debian bookworm-backports main Debian Backports",
        "http://m.example/debian bookworm-proposed-updates-x main Debian",
        "http://f.example/deb/ $(CODENAME) $(COMPONENT) $(ORIGIN)",
    ],
)
def test_what_is_not_debians_main_archive_is_no_mirror(target: str) -> None:
    assert mirror_lines(target, "trixie") == []


def test_a_mirror_that_is_named_twice_is_one_line() -> None:
    assert len(mirror_lines("http://m.example/debian bookworm main Debian\n" * 2, "trixie")) == 1
