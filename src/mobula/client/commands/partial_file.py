"""Getting an object into a file that is there only when it is whole; what a broken transfer got is kept, and gone on from.

It lies beside the target as ``.<which object and target>-<which etag>.part``, locked while somebody writes to it. Whoever finds one asks
what the object is now: of the same etag, the rest is asked for; of another one, it is thrown away. The whole's MD5 decides in the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from mobula.client.commands.progress import Bar
from mobula.client.download import Partial
from mobula.client.errors import MobulaError
from mobula.client.model import FileChunks, Info
from mobula.client.sync import Client

_NAME = re.compile(r"\.[0-9a-f]{16}-[0-9a-f]{16}\.part")
_ANEW = frozenset({"PreconditionFailed", "BodyDamaged", "InvalidAnswer", "NotObject"})
"""why the rest is of no use"""


def is_partial(name: str) -> bool:
    """The file is one of ours, not whole yet. Pure."""
    return _NAME.fullmatch(name) is not None


def to_file(client: Client, path: str, target: Path, headers: Mapping[str, str], bar: Bar) -> None:
    """Get an object into a file. What is no regular file (``/dev/null``) is written to as it is.

    With `headers` nothing is kept of a transfer that breaks: a range or a condition may have made it something else than the object.

    Raises:
        MobulaError, OSError.
    """
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            _write(client.get(path, headers=headers, begun=lambda found: bar.expect(found.size_bytes)), file, bar)
    elif headers or not _finish(client, path, target, bar):
        _get_anew(client, path, target, headers, bar)


def _finish(client: Client, path: str, target: Path, bar: Bar) -> bool:
    """Go on with what an earlier call left; False: there is nothing of use."""
    which = _which(client, path, target)
    left = [p for p in target.parent.glob(f".{which}-*.part") if is_partial(p.name)]
    if not left:
        return False
    found = client.info(path)
    part = target.with_name(_name(which, found.etag))
    for old in left:
        if old != part and (file := _locked(old)) is not None:
            with file:
                old.unlink()
    file = _locked(part) if part in left and found.etag else None
    if file is None:
        return False
    with file:
        had_bytes = file.seek(0, os.SEEK_END)
        bar.expect(found.size_bytes)
        bar.add(had_bytes)
        try:
            _write(client.get(path, had=Partial(found, FileChunks(part))), file, bar)
        except MobulaError as error:
            if error.code not in _ANEW:
                raise
            bar.add(-file.tell())
            bar.expect(-found.size_bytes)
            part.unlink()
            return False
        part.replace(target)
    return True


def _get_anew(client: Client, path: str, target: Path, headers: Mapping[str, str], bar: Bar) -> None:
    with contextlib.ExitStack() as stack:
        opened: list[_Part] = []

        def begun(found: Info) -> None:
            bar.expect(found.size_bytes)
            part = _open(target.with_name(_name(_which(client, path, target), "" if headers else found.etag)))
            stack.enter_context(part.file)
            opened.append(part)

        try:
            for chunk in client.get(path, headers=headers, begun=begun):
                opened[0].file.write(chunk)
                bar.add(len(chunk))
            opened[0].file.flush()
            opened[0].path.replace(target)
        except BaseException as error:
            useless = isinstance(error, OSError) or (isinstance(error, MobulaError) and error.code in _ANEW)
            for part in opened:
                if useless or headers or not part.found_again:
                    part.path.unlink(missing_ok=True)
            raise


class _Part(NamedTuple):
    path: Path
    file: IO[bytes]
    found_again: bool
    """by a later call, by its name"""


def _open(path: Path) -> _Part:
    """A new part; of another name when somebody else is getting the same."""
    if (file := _locked(path)) is not None:
        file.truncate(0)
        return _Part(path, file, found_again=True)
    path = path.with_name(_name(os.urandom(8).hex(), ""))
    return _Part(path, path.open("xb"), found_again=False)


def _write(chunks: Iterator[bytes], file: IO[bytes], bar: Bar) -> None:
    for chunk in chunks:
        file.write(chunk)
        bar.add(len(chunk))
    file.flush()


def _which(client: Client, path: str, target: Path) -> str:
    session = client.session
    return _digest(f"{session.settings.url}\n{session.path(path)}\n{target.name}")


def _name(which: str, etag: str) -> str:
    return f".{which}-{_digest(etag)}.part"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _locked(part: Path) -> IO[bytes] | None:
    """The file, for appending, made if it is not there; None: somebody else writes to it, has just finished it, or has put it in our way.

    Its name can be guessed, and its folder may be everybody's: a link, or another user's file, must not become the target.
    """
    try:
        number = os.open(part, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    file = os.fdopen(number, "a+b")
    status = os.fstat(number)
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if status.st_uid == os.geteuid() and status.st_nlink == 1 and part.lstat().st_ino == status.st_ino:
            return file
    file.close()
    return None
