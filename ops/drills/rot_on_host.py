"""Runs on a storage host (as its python3's program, standard library only): spoils copies of objects, and says what became of them.

argv: a verb, and the data directory. On standard input: what copies may be called behind their object ids, ``<size>.<md5>``, one a line; no
file of another name is opened, nor a segment of the log: a wrong byte there would end it, and cut off what others have in it. Says JSON:

    spoil   the middle byte of these files becomes another one; size and mtime stay
    look    nothing
    sweep   those that the object server has put aside are removed

and then how it is: {"right": how many are in their places, "wrong": which of those there are not, as <account>/<object id>.<size>.<md5>,
"aside": how many were put aside, "missing": which of those have nothing in their places}
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ACCOUNT = re.compile(UUID, re.ASCII)
FILE = re.compile(rf"{UUID}\.((?:0|[1-9][0-9]*)\.[0-9a-f]{{32}})", re.ASCII)
QUARANTINE = "quarantine"


def in_place(root: Path, names: Collection[str]) -> Iterator[Path]:
    """The object files that are called so."""
    for account in root.iterdir():
        if ACCOUNT.fullmatch(account.name):
            for file in account.iterdir():
                found = FILE.fullmatch(file.name)
                if found and found[1] in names and file.is_file() and not file.is_symlink():
                    yield file


def aside(root: Path, names: Collection[str]) -> Iterator[tuple[Path, Path]]:
    """Files of these names that were put aside, and their places."""
    folder = root / QUARANTINE
    for file in folder.iterdir() if folder.is_dir() else ():
        account, _, name = file.name.partition(".")
        found = FILE.fullmatch(name)
        if found and found[1] in names and ACCOUNT.fullmatch(account):
            yield file, root / account / name


def is_right(file: Path) -> bool:
    """Its bytes are what its name says. A file that is not there is not."""
    try:
        body = file.read_bytes()
    except FileNotFoundError:
        return False
    _, size, md5 = file.name.split(".")
    return (len(body), hashlib.md5(body, usedforsecurity=False).hexdigest()) == (int(size), md5)


def spoil(file: Path) -> None:
    """Its middle byte is another one."""
    facts = file.stat()
    with file.open("r+b", buffering=0) as handle:
        at = facts.st_size // 2
        (byte,) = os.pread(handle.fileno(), 1, at)
        os.pwrite(handle.fileno(), bytes([byte ^ 0xFF]), at)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def main(verb: str, root: Path, names: frozenset[str]) -> dict[str, int | list[str]]:
    if verb == "spoil":
        for file in in_place(root, names):
            if file.stat().st_size:
                spoil(file)
    elif verb == "sweep":
        for file, _ in aside(root, names):
            file.unlink()
    # What is put aside meanwhile is missing, rather than nowhere.
    wrong, right = [], 0
    for file in in_place(root, names):
        if is_right(file):
            right += 1
        elif file.exists():
            wrong.append(f"{file.parent.name}/{file.name}")
    places = [place for _, place in aside(root, names)]
    missing = [f"{place.parent.name}/{place.name}" for place in places if not place.exists()]
    return {"right": right, "wrong": wrong, "aside": len(places), "missing": missing}


if __name__ == "__main__":
    try:
        said = main(sys.argv[1], Path(sys.argv[2]), frozenset(sys.stdin.read().split()))
    except OSError as error:
        sys.exit(f"{sys.argv[1]} copies: {error}")
    sys.stdout.write(json.dumps(said))
