"""Which object files are there, in bounded pages: for whoever looks for files that nothing names. Blocking; called from threads.

A directory is read as the file system gives it, from one open iterator: a page costs what it shows, however many files an account has, and
nothing is held in memory. What is there during the whole of a walk is shown; what comes or goes meanwhile may or may not be. A marker says
which account, and which page of which walk. A marker of a walk that is not the one on its way (the server was restarted, or somebody else
asked) begins its account anew: files may be shown twice, none is left out.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mobula.storage.files import NameRefused, ObjectName

PAGE_FILES = 1000
_MARKER = re.compile(r"([0-9a-f-]{36})\.([0-9a-f]{32})\.([0-9]{1,12})", re.ASCII)


class MarkerRefused(Exception):
    """Not a marker of this server. -> 400"""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object file. `age_s`: since its bytes, its name or anything else of it changed."""

    account: str
    object_id: str
    size_bytes: int
    md5: str
    age_s: int


@dataclass(frozen=True, slots=True)
class Page:
    files: list[Listed]
    looked_at: int
    next: str
    """empty at the end"""


@dataclass(frozen=True, slots=True)
class _Seen:
    account: str
    file: Listed | None
    """None: gone meanwhile, or no object's file"""


class Walk:
    """One walk at a time over the files below a data directory."""

    def __init__(self, root: Path, *, page_files: int = PAGE_FILES) -> None:
        self._root = root
        self._page_files = page_files
        self._guard = threading.Lock()
        self._seen: Iterator[_Seen] = iter(())
        self._id = ""
        self._number = 0

    def page(self, after: str, *, older_s: int) -> Page:
        """The files after a marker (empty: from the beginning) that are older than that. Raises MarkerRefused, OSError."""
        match = _MARKER.fullmatch(after)
        if after and match is None:
            raise MarkerRefused(f"list files after {after[:80]!r}: take the marker of the page before")
        with self._guard:
            if match is None or (match[2], int(match[3])) != (self._id, self._number):
                self._begin(match[1] if match else "")
            try:
                seen = list(islice(self._seen, self._page_files))
            except OSError:
                self._id = ""  # the iterator has ended: whoever asks again begins this account anew
                raise
            self._number += 1
            files = [one.file for one in seen if one.file is not None and one.file.age_s >= older_s]
            following = f"{seen[-1].account}.{self._id}.{self._number}" if len(seen) == self._page_files else ""
        return Page(files, len(seen), following)

    def _begin(self, account: str) -> None:
        self._id, self._number = uuid.uuid4().hex, 0
        self._seen = self._files_from(account)

    def _files_from(self, first: str) -> Iterator[_Seen]:
        with os.scandir(self._root) as folders:
            accounts = sorted(folder.name for folder in folders if folder.is_dir(follow_symlinks=False))
        for account in accounts:
            if account >= first and len(account) == len(str(uuid.UUID(int=0))):
                with os.scandir(self._root / account) as found:
                    for file in found:
                        yield _Seen(account, _look(account, file))


def _look(account: str, file: os.DirEntry[str]) -> Listed | None:
    try:
        name = ObjectName.parse(account, file.name)
        facts = file.stat(follow_symlinks=False)
    except (NameRefused, FileNotFoundError):
        return None
    # A name that was given later than the bytes were written makes the file young again; a clock that was put back makes it no older.
    age_s = int(time.time() - max(facts.st_mtime, facts.st_ctime))
    return Listed(name.account, name.object_id, name.size_bytes, name.md5, age_s)
