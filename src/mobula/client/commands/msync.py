"""msync: make a directory equal to another one, between here and the store.

Both sides are read (`scan_here`, `scan_there`), what to do is decided (`plan`, pure), then done or only said (`--dry-run`).
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mobula.client.commands.command import (
    Call,
    Command,
    UsageError,
    header_options,
    headers_of,
    parallel_option,
    pattern_of,
    positive,
)
from mobula.client.commands.mput import md5_of, type_of
from mobula.client.commands.output import say, say_json
from mobula.client.commands.partial_file import is_partial, to_file
from mobula.client.commands.progress import Bar, Part
from mobula.client.commands.workers import Job, run_all
from mobula.client.errors import MobulaError


class Thing(NamedTuple):
    """What is at a relative path. `kind`: file, directory, or other (a link, a device: left alone). `md5` base64, where it is known."""

    kind: str
    size_bytes: int = 0
    mtime_s: float = 0.0
    md5: str = ""


Side = Mapping[str, Thing]
"""things by relative path"""


class Plan(NamedTuple):
    """What to do, in this order: make directories, move files, remove what is too much. `conflicts`: left alone, and why.

    `compare`: files of `move` that may be equal; their MD5 decides.
    """

    make: tuple[str, ...]
    move: tuple[str, ...]
    compare: frozenset[str]
    remove: tuple[str, ...]
    conflicts: tuple[str, ...]


def plan(source: Side, target: Side, *, delete: bool, by_md5: bool, exclude: re.Pattern[str] | None = None) -> Plan:
    """How to make `target` equal to `source`. Pure.

    A file is moved if it is missing, of another size, or older there; `by_md5`: of another size or MD5, whatever its time. What has a
    match of `exclude` in its path is left alone, and so are the directories that it is in.
    """
    kept = {path for path in (*source, *target) if exclude is not None and exclude.search(path)}
    source = {path: thing for path, thing in source.items() if path not in kept}
    make, move, compare, conflicts = [], [], [], list[str]()
    for path in sorted(source, key=_by_depth):
        wanted, found = source[path], target.get(path)
        if wanted.kind == "other":
            continue
        if _is_below(path, conflicts):
            continue
        if found is not None and found.kind != wanted.kind:
            conflicts.append(path)
        elif wanted.kind == "directory":
            make += [path] if found is None else []
        elif found is None or found.size_bytes != wanted.size_bytes:
            move.append(path)
        elif by_md5:
            move.append(path)
            compare.append(path)
        elif found.mtime_s < wanted.mtime_s:
            move.append(path)
    remove = []
    if delete:
        kept |= {"/".join(path.split("/")[:depth]) for path in kept for depth in range(1, path.count("/") + 1)}
        extra = [p for p in target if p not in source and p not in kept and target[p].kind != "other"]
        extra = [p for p in extra if not _is_below(p, conflicts)]
        remove = sorted(extra, key=_by_depth, reverse=True)
    return Plan(tuple(make), tuple(move), frozenset(compare), tuple(remove), tuple(conflicts))


def _is_below(path: str, directories: Sequence[str]) -> bool:
    return any(path.startswith(f"{above}/") for above in directories)


def _by_depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("-r", "--reverse", action="store_true", help="SOURCE is in the store, TARGET here")
    parser.add_argument("-d", "--delete", action="store_true", help="remove from TARGET what is not in SOURCE")
    parser.add_argument("-j", "--just-delete", action="store_true", help="only that: put and get nothing")
    parser.add_argument(
        "-x", "--exclude", metavar="REGEX", help="leave alone what has a match in its path below SOURCE or TARGET"
    )
    parser.add_argument("-m", "--md5", action="store_true", help="compare by MD5, not by time")
    parser.add_argument("-c", "--copies", type=positive, metavar="N", help="keep so many copies (2)")
    header_options(parser, role_tag=False)
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, and no word about what is done")
    parser.add_argument("--json", action="store_true", help="print what is done as JSON, an object a line")
    parallel_option(parser, 8)


def run(call: Call) -> None:
    wish = call.options
    here, there = (Path(wish.target), wish.source) if wish.reverse else (Path(wish.source), wish.target)
    if not wish.reverse and not here.is_dir():
        raise UsageError(f"read the directory {str(here)!r}: it is not one; with -r the SOURCE is in the store")
    sync = Sync(call, here, call.client.session.path(there))
    local, remote = dict(scan_here(here)), scan_there(call, there, required=wish.reverse)
    source, target = (remote, local) if wish.reverse else (local, remote)
    for path in (p for p, thing in source.items() if thing.kind == "other"):
        call.failures.note(f"{path}: neither file nor directory; passed over")
    exclude = None if wish.exclude is None else pattern_of(wish.exclude)
    wanted = plan(source, target, delete=wish.delete or wish.just_delete, by_md5=wish.md5, exclude=exclude)
    if wish.just_delete:
        wanted = wanted._replace(make=(), move=())
    for path in wanted.conflicts:
        call.failures.say(
            f"{path}: {source[path].kind} in the source, {target[path].kind} in the target; remove one of them"
        )
    total_bytes = sum(source[path].size_bytes for path in wanted.move)
    with Bar(f"{len(wanted.move)} files", total_bytes, quiet=wish.quiet or wish.dry_run) as bar:
        direction = sync.download if wish.reverse else sync.upload
        if not (wish.dry_run or wish.just_delete):
            sync.make_base(reverse=wish.reverse)
        for path in wanted.make:
            sync.do("make", path, sync.make_here if wish.reverse else sync.make_there)
        jobs = (partial(direction, path, remote.get(path), bar, wanted.compare) for path in wanted.move)
        run_all(jobs, max(1, min(wish.parallel, len(wanted.move))), call.failures)
        if wanted.remove and call.failures.count:
            call.failures.note("nothing is removed, as something else failed")
            return
        for jobs_of_depth in sync.removals(wanted.remove, reverse=wish.reverse):
            run_all(jobs_of_depth, max(1, min(wish.parallel, len(jobs_of_depth))), call.failures)


class Sync:
    """Does to relative paths below two directories what a plan says, or only says so."""

    def __init__(self, call: Call, here: Path, there: str) -> None:
        self._call = call
        self._client = call.client
        self._here = here
        self._there = there
        self._headers = headers_of(call.options)

    def do(self, verb: str, path: str, act: Callable[[str], None]) -> None:
        """Say what is done and do it, unless it is to be said only. Raises MobulaError, OSError."""
        wish = self._call.options
        if not wish.dry_run:
            act(path)
        if wish.json:
            say_json({"action": verb, "path": path, "done": not wish.dry_run})
        elif not wish.quiet:
            say(f"{verb} {path}")

    def make_base(self, *, reverse: bool) -> None:
        if reverse:
            self._here.mkdir(parents=True, exist_ok=True)
        elif self._there.count("/") > 2:
            self._client.mkdir(self._there, parents=True)

    def make_here(self, path: str) -> None:
        (self._here / path).mkdir(exist_ok=True)

    def make_there(self, path: str) -> None:
        self._client.mkdir(f"{self._there}/{path}")

    def upload(self, path: str, found: Thing | None, bar: Bar, compare: frozenset[str]) -> None:
        file, part = self._here / path, Part(bar)
        if self._equal(path, found, compare):
            return

        def act(_: str) -> None:
            target = f"{self._there}/{path}"
            self._client.put(
                target, file, copies=self._call.options.copies, content_type=type_of(file, path, self._headers), parents=True,
                headers=self._headers, progress=part.at,
            )  # fmt: skip

        self.do("put", path, act)

    def download(self, path: str, found: Thing | None, bar: Bar, compare: frozenset[str]) -> None:
        file = self._here / path
        if self._equal(path, found, compare):
            return

        def act(_: str) -> None:
            to_file(self._client, f"{self._there}/{path}", file, {}, bar)
            if found is not None:
                os.utime(file, (found.mtime_s, found.mtime_s))

        self.do("get", path, act)

    def _equal(self, path: str, found: Thing | None, compare: frozenset[str]) -> bool:
        return path in compare and found is not None and md5_of(self._here / path) == found.md5

    def removals(self, paths: tuple[str, ...], *, reverse: bool) -> Iterator[list[Job]]:
        """Jobs that remove, the deepest first; those of one depth can run together."""
        act = self._remove_here if reverse else self._remove_there
        for depth in sorted({p.count("/") for p in paths}, reverse=True):
            yield [partial(self.do, "delete", p, act) for p in paths if p.count("/") == depth]

    def _remove_here(self, path: str) -> None:
        target = self._here / path
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink()

    def _remove_there(self, path: str) -> None:
        self._client.delete(f"{self._there}/{path}")


def scan_here(base: Path) -> Iterator[tuple[str, Thing]]:
    """All below a directory of this machine; links are not followed. Raises OSError."""
    left = [""]
    while left:
        folder = left.pop()
        if not (base / folder).exists():
            return
        with os.scandir(base / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    left.append(path)
                    yield path, Thing("directory")
                elif is_partial(entry.name):
                    continue
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield path, Thing("file", status.st_size, status.st_mtime)
                else:
                    yield path, Thing("other")


def scan_there(call: Call, path: str, *, required: bool) -> dict[str, Thing]:
    """All below a directory of the store; one that is not there and need not be has nothing below it. Raises MobulaError."""
    base = call.client.session.path(path)
    things = {}
    try:
        for found in call.client.walk(base, parallel=call.options.parallel):
            relative = found.path[len(base) :].lstrip("/")
            entry = found.entry
            if not is_file_name(entry.name):
                raise MobulaError("InvalidAnswer", f"list {base!r}: {entry.name!r} can't be a file's name")
            kind = "directory" if entry.is_directory else "file"
            things[relative] = Thing(kind, entry.size_bytes, entry.mtime.timestamp(), entry.content_md5)
    except MobulaError as error:
        if required or error.status != 404:
            raise
    return things


def is_file_name(name: str) -> bool:
    """The name can be a file's in its directory, and in no other. Pure."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


COMMAND = Command("SOURCE TARGET", "msync -d photos ~~/stor/photos", options, run)
