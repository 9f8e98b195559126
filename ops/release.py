"""One release of Mobula for the machines: a tar of ``<version>/{lib,bin}``, pushed by Ansible and switched by a link.

`lib` is the pinned wheels unpacked, with their byte code, and our package. The byte code is made by the image's own Python,
so that a service's start costs no compilation and its user needs no right to write there. The wheels are unpacked once per
list of pins, into the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from mobula import VERSION
from ops.errors import OperatorError
from ops.region import REPO, Region

PINS = REPO / "requirements" / "services.txt"
PYTHON_VERSION = "3.13"
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "any")
LAUNCHER = """#!/bin/sh
release=$(dirname "$(dirname "$(readlink -f "$0")")")
PYTHONPATH=$release/lib PYTHONNOUSERSITE=1 exec /usr/bin/python3 "$@"
"""


@dataclass(frozen=True, slots=True)
class Release:
    version: str
    tarball: Path
    sha256: str


def version() -> str:
    """Version of what this clone would install: the package's version and a digest over its files and pins."""
    digest = hashlib.sha256(PINS.read_bytes() + LAUNCHER.encode())
    for path in _package_files():
        digest.update(str(path.relative_to(REPO)).encode() + b"\0" + path.read_bytes())
    return f"{VERSION}-{digest.hexdigest()[:8]}"


def installed(region: Region) -> str:
    """The release that `region` was last brought to; empty before the first time."""
    note = region.state_dir / "release" / "release.json"
    return str(json.loads(note.read_text())["version"]) if note.exists() else ""


def _package_files() -> list[Path]:
    files = (REPO / "src" / "mobula").rglob("*")
    return sorted(p for p in files if p.is_file() and p.suffix in {".py", ".sql", ".typed"})


def ensure(region: Region, cache: Path, image_root: Path, progress: Callable[[str], None]) -> Release:
    """Build the release of this clone for `region` unless it is there, and note it in ``release/release.json``."""
    name = version()
    folder = region.state_dir / "release"
    tarball = folder / f"mobula-{name}.tar.gz"
    if not tarball.exists():
        unpacked = libraries(cache, image_root, progress)
        progress(f"packing release {name}")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("mobula-*"):
            old.unlink() if old.is_file() else shutil.rmtree(old)
        work = folder / f"mobula-{name}.new"
        install_package(work / "lib" / "mobula", image_root)
        with tarfile.open(work / "tar", "w:gz", compresslevel=1) as tar:
            tar.add(unpacked, f"{name}/lib", filter=_owned_by_root)
            tar.add(work / "lib" / "mobula", f"{name}/lib/mobula", filter=_owned_by_root)
            launcher = work / "python"
            launcher.write_text(LAUNCHER)
            launcher.chmod(0o755)
            tar.add(launcher, f"{name}/bin/python", filter=_owned_by_root)
        (work / "tar").rename(tarball)
        shutil.rmtree(work)
    release = Release(name, tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())
    note = {"version": name, "tarball": str(tarball), "sha256": release.sha256}
    (folder / "release.json").write_text(json.dumps(note))
    return release


def _owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return info


def install_package(target: Path, image_root: Path) -> None:
    """Put our own package there, with its byte code."""
    for source in _package_files():
        path = target / source.relative_to(REPO / "src" / "mobula")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    _compile(target, image_root)


def libraries(cache: Path, image_root: Path, progress: Callable[[str], None]) -> Path:
    """The folder with the services' libraries of this clone's pins; unpacked into the cache first unless it is there.

    Raises:
        OperatorError: pip could not.
    """
    digest = hashlib.sha256(PINS.read_bytes() + repr((PYTHON_VERSION, PLATFORMS)).encode()).hexdigest()[:12]
    done = cache / "wheels" / digest
    if done.is_dir():
        return done
    progress("unpacking the services' libraries (pinned, hashed)")
    new = done.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    install_wheels(PINS, new, "the services' libraries")
    _compile(new, image_root)
    new.rename(done)
    return done


def install_wheels(pins: Path, target: Path, what: str) -> None:
    """Unpack the wheels of a list of pins, for the image's Python.

    Raises:
        OperatorError: pip could not.
    """
    argv = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps",
        "--no-compile", "--no-build-isolation", "--implementation=cp", f"--python-version={PYTHON_VERSION}",
        *(f"--abi={abi}" for abi in ("cp313", "abi3", "none")), *(f"--platform={p}" for p in PLATFORMS),
        f"--target={target}", f"--requirement={pins}",
    ]  # fmt: skip
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-3:])
        raise OperatorError(f"unpack {what} of requirements/{PINS.name}: pip says {tail}")


def pins_of(text: str, names: Collection[str]) -> str:
    """Those of a list of pins, with their hashes. Pure.

    Raises:
        ValueError: one of them is not there.
    """
    blocks = re.findall(r"^[\w.-]+(?:\[[^\]]*\])?==.*(?:\n[ \t]+.*)*", text, re.MULTILINE)
    found = {re.split(r"[\[=]", block, maxsplit=1)[0]: block for block in blocks}
    missing = sorted(set(names) - set(found))
    if missing:
        raise ValueError(f"find the pins of {', '.join(missing)}: they are not in the list")
    return "".join(f"{found[name]}\n" for name in sorted(names))


def _compile(folder: Path, image_root: Path) -> None:
    """Make the byte code with the image's Python. Unchecked hashes: files under /opt/mobula never change once installed."""
    # The bind mount lives in a mount namespace of its own and ends with the command.
    script = (
        'mount --bind "$1" "$2/mnt" && exec chroot "$2" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash'
        " -s /mnt -p /opt/mobula/current/lib /mnt"
    )
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder), str(image_root)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        raise OperatorError(
            f"compile {str(folder)!r} with the image's Python: {result.stdout[-300:]}{result.stderr[-300:]}"
        )
