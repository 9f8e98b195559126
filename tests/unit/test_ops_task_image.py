"""The task image's ingredients: what another image is made of, and what is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobula.client.commands import COMMANDS
from mobula.jobs.runner import PATH
from ops import image, release, task_image
from ops.errors import OperatorError
from ops.imports import imported, needs


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The image's ingredients, to be changed."""
    for name in ("PACKAGES", "INIT"):
        path = tmp_path / name
        path.write_text(getattr(task_image, name).read_text())
        monkeypatch.setattr(task_image, name, path)
    lock = tmp_path / "npm" / "package-lock.json"
    lock.parent.mkdir()
    lock.write_text((task_image.NPM / lock.name).read_text())
    monkeypatch.setattr(task_image, "NPM", lock.parent)
    pins = tmp_path / "PINS"
    pins.write_text(release.PINS.read_text())
    monkeypatch.setattr(release, "PINS", pins)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("PACKAGES", "ffmpeg", ""), ("INIT", "", "/* changed */"), ("npm/package-lock.json", "7.0.2", "7.0.3"),
     ("PINS", "httptools==", "httptools==9")],
)  # fmt: skip
def test_another_ingredient_is_another_image(copies: Path, name: str, old: str, new: str) -> None:
    before = task_image.digest()
    path = copies / name
    path.write_text(path.read_text().replace(old, new, 1))
    assert task_image.digest() != before


def test_what_only_services_have_makes_no_other_image(copies: Path) -> None:
    before = task_image.digest()
    path = copies / "PINS"
    path.write_text(path.read_text().replace("patroni", "patronus"))
    assert task_image.digest() == before


def test_another_client_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before, found = task_image.digest(), task_image.client_needs()
    monkeypatch.setattr(task_image, "client_needs", lambda: found._replace(files=found.files[1:]))
    assert task_image.digest() != before


def test_the_tools_take_what_they_import_and_no_service() -> None:
    found = task_image.client_needs()
    names = {path.relative_to(task_image.SOURCE / "mobula").as_posix() for path in found.files}
    assert {
        "__init__.py",
        "core/dates.py",
        "wire/http_blocking.py",
        *(f"client/commands/{name}.py" for name in COMMANDS),
    } <= names
    assert not [name for name in names if name.startswith(("webapi/", "metadata/", "storage/", "jobs/"))]
    assert found.libraries <= set(task_image.LIBRARIES)


def test_a_tasks_path_begins_with_the_tools() -> None:
    assert PATH.split(":")[0] == f"/{task_image.TOOLS}/bin"


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = "import a.b, c\nfrom d import e\ndef f():\n    from g.h import i as j\n    from . import k\n"
    assert sorted(imported(text)) == ["a.b", "c", "d", "d.e", "g.h", "g.h.i"]
    for name, text in {
        "part/one": "from mobula.two import x\nimport json", "two": "from mobula import three", "three": "import lib.inner, mobula.two",
        "four": "import other", "__init__": "", "part/__init__": "",
    }.items():  # fmt: skip
        path = tmp_path / "mobula" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = needs(tmp_path, tmp_path / "mobula" / "part")
    assert {path.stem for path in found.files} == {"__init__", "one", "two", "three"}
    assert found.libraries == {"lib"}


def test_pins_are_taken_with_their_hashes() -> None:
    hashes = [f" \\\n    --hash=sha256:{letter}" for letter in "xyzq"]
    text = f"# head\na==1{hashes[0]}{hashes[1]}\n    # via b\nb[c]==2{hashes[2]}\nab==3{hashes[3]}\n"
    assert release.pins_of(text, ["b", "a"]).splitlines() == [
        "a==1 \\", "    --hash=sha256:x \\", "    --hash=sha256:y", "    # via b", "b[c]==2 \\", "    --hash=sha256:z",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="zlib"):
        release.pins_of(text, ["zlib"])


def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(new: Path, *_: object) -> None:
        (new / "root").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "bootstrap", interrupted)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(KeyboardInterrupt):
        task_image.ensure(tmp_path, lambda _: None)
    assert [path.name for path in (tmp_path / "task-image").iterdir()] == ["lock"]
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(OperatorError, match="no npm on PATH"):
        task_image.ensure(tmp_path, lambda _: None)
    monkeypatch.setattr(task_image, "ROOM_BYTES", 1 << 62)
    with pytest.raises(OperatorError, match=r"build the task image in .* are needed"):
        task_image.ensure(tmp_path, lambda _: None)


def test_packages_are_named_once() -> None:
    text = task_image.PACKAGES.read_text()
    lines = [line.split("#")[0].partition(":")[2] for line in text.splitlines()]
    assert sorted(" ".join(lines).split()) == image.read_packages(text)
