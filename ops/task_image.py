"""The task image: the root file system that tasks of jobs see, and `sandbox-init`, which makes their sandboxes on the host.

    <cache>/task-image/<digest>/root            read only, under an overlay, with its owners mapped
    <cache>/task-image/<digest>/sandbox-init    static, compiled by the image's own gcc: the host needs none

Named and built as the base image is (`image`). Beside Debian's packages it holds jsontool from npm, and our command-line tools with what
they import, and nothing else of ours: only a change of theirs makes another image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mobula.client.commands import COMMANDS
from mobula.core.medusa import AGENT
from ops import image, release
from ops.errors import OperatorError
from ops.imports import Needs, needs
from ops.region import REPO

VERSION = "1.0.0"
"""as jobs ask for it (`image`, npm's ranges): a patch has fixes, a minor version more programs, a major one may lack some that were there.
It is a name, and not among the ingredients"""
RECIPE = 1
"""counts changes of how the image is made that its ingredients below don't show"""
WHAT = "the task image"
PACKAGES = Path(__file__).with_name("task_image.packages")
SOURCE = REPO / "src"
CLIENT = SOURCE / "mobula" / "client"
INIT = SOURCE / "mobula" / "sandbox" / "init.c"
NPM = REPO / "requirements" / "task"
"""package.json, and the lock with the hashes"""
LIBRARIES = ("cffi", "cryptography", "h11", "httptools", "pycparser", "wsproto")
"""what the client imports, and what that needs, of the services' pins"""
ROOM_BYTES = 3 << 30
"""what a build needs at its peak: unpacked root (730 MB), archives, and some air"""

TOOLS = "usr/local/lib/mobula"
"""its `bin` is first on a task's PATH"""
# -I: whatever a task has in PYTHONPATH and the like is for its own programs. -S: no site-packages, 5 ms less.
LAUNCHER = f"""#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/{TOOLS}/lib")
from mobula.client.commands.command import main

main()
"""
AGENT_LAUNCHER = LAUNCHER.replace("commands.command", "medusa_agent")
# Of illumos: the stock mlogin has the agent run its command in a process contract by this, of which there are none here. Options and
# operands as ctrun(1) has them.
CTRUN = """#!/bin/sh
while getopts A:F:f:i:l:o:r:tvV option; do
  [ "$option" != "?" ] || exit 2
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
  echo "usage: ctrun [options] command [argument ...]; there are no contracts here, and options do nothing" >&2
  exit 2
fi
exec "$@"
"""
# glibc knows localhost from this file alone; sudo looks up the host's name.
HOSTS = "127.0.0.1 localhost task\n::1 localhost ip6-localhost\n"
# Documentation and translations; drivers of graphics cards, which come with ffmpeg's player, and their compiler; what gcc has for link-time
# optimisation and, as archives, for its sanitizers.
EXCLUDED = (
    *image.TEXTS,
    "/usr/lib/*/libLLVM*", "/usr/lib/*/libgallium*", "/usr/lib/*/dri/*", "/usr/lib/*/libz3.so*", "/usr/share/icons/*",
    "/usr/libexec/gcc/*/*/lto1", "/usr/bin/*lto-dump*", "/usr/lib/gcc/*/*/lib*san.a",
)  # fmt: skip
COMPILE = ("gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", "/mnt/sandbox-init", "/mnt/init.c")


class TaskImage(NamedTuple):
    root: Path
    init: Path


def digest() -> str:
    """Name of the image that this clone wants: 16 hex digits over all that it is made from."""
    client = client_needs()
    made_from = (
        RECIPE,
        image.SUITE,
        image.read_packages(PACKAGES.read_text()),
        EXCLUDED,
        HOSTS,
        COMPILE,
        LAUNCHER,
        AGENT_LAUNCHER,
        CTRUN,
        sorted(COMMANDS),
        [(str(path.relative_to(SOURCE)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in client.files],
        release.pins_of(release.PINS.read_text(), LIBRARIES),
        INIT.read_text(),
        (NPM / "package-lock.json").read_text(),
    )
    return image.digest_of(made_from)


def client_needs() -> Needs:
    """What the tools are made of."""
    return needs(SOURCE, CLIENT)


def folder(cache: Path) -> Path:
    """Where all of them lie, each in a folder that is called by its digest."""
    return cache / "task-image"


def wanted(cache: Path) -> TaskImage:
    """Where the wanted image lies or will lie."""
    here = folder(cache) / digest()
    return TaskImage(here / "root", here / "sandbox-init")


def ensure(cache: Path, progress: Callable[[str], None]) -> TaskImage:
    """Return the wanted image, building it first if it is not in the cache.

    Raises:
        OperatorError: no room, no mirror, no npm, or the build failed.
    """

    def build(new: Path) -> None:
        image.check_room(cache, WHAT, ROOM_BYTES)
        if shutil.which("npm") is None:
            raise OperatorError(f"build {WHAT}: there is no npm on PATH; ops/setup installs it")
        options = [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
        image.bootstrap(new, WHAT, image.read_packages(PACKAGES.read_text()), options, progress)
        _prepare(new / "root")
        _install_json(new)
        _install_tools(new)
        _compile_init(new)

    found = wanted(cache)
    image.build_once(found.root.parent, WHAT, build, progress)
    return found


def _prepare(root: Path) -> None:
    """No identity, and no word of where the packages came from."""
    (root / "etc/machine-id").write_text("")
    (root / "etc/hosts").write_text(HOSTS)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for path in (root / "etc/apt").glob("sources.list*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)


def _install_json(new: Path) -> None:
    """jsontool, whose hash npm compares with the lock's."""
    work = new / "npm"
    shutil.copytree(NPM, work)
    argv = [
        "npm",
        "ci",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        f"--prefix={work}",
        f"--cache={work / 'cache'}",
    ]
    _run(argv)
    package = work / "node_modules" / "jsontool"
    target = new / "root/usr/local/lib/node_modules/jsontool"
    target.parent.mkdir(parents=True)
    shutil.copytree(package / "lib", target / "lib")
    for name in ("package.json", "LICENSE.txt"):
        shutil.copyfile(package / name, target / name)
    os.chmod(target / "lib" / "jsontool.js", 0o755)  # noqa: PTH101, S103 (a program)
    (new / "root/usr/local/bin/json").symlink_to("../lib/node_modules/jsontool/lib/jsontool.js")
    shutil.rmtree(work)


def _install_tools(new: Path) -> None:
    tools = new / "root" / TOOLS
    pins = new / "pins.txt"
    pins.write_text(release.pins_of(release.PINS.read_text(), LIBRARIES))
    release.install_wheels(pins, tools / "lib", "the tools' libraries")
    pins.unlink()
    for source in client_needs().files:
        path = tools / "lib" / source.relative_to(SOURCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    (tools / "bin").mkdir()
    for path, text in (
        (tools / "launch", LAUNCHER),
        (new / "root" / AGENT.lstrip("/"), AGENT_LAUNCHER),
        (new / "root/usr/bin/ctrun", CTRUN),
    ):
        path.write_text(text)
        path.chmod(0o755)
    for name in COMMANDS:
        (tools / "bin" / name).symlink_to("../launch")
    # Unchecked: these files never change, and a start is cheaper without a look at the source.
    _run_inside(
        new, "/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", f"/{TOOLS}/lib"
    )


def _compile_init(new: Path) -> None:
    shutil.copyfile(INIT, new / "root/mnt/init.c")
    _run_inside(new, *COMPILE)
    (new / "root/mnt/init.c").unlink()
    shutil.move(new / "root/mnt/sandbox-init", new / "sandbox-init")


def _run_inside(new: Path, *argv: str) -> None:
    _run(["chroot", str(new / "root"), *argv])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise OperatorError(f"build {WHAT}: {argv[0]} ended with {done.returncode}: {tail}")
