"""Runs on a storage host (as its python3's program, standard library only): says of each file below the data directory a line.

    <object id> TAB <path> TAB <bytes> TAB <age in seconds> TAB <MD5 of the content, or !why>

in the order of the object ids; the last field is empty unless argv[1] says ``read``. Files without an object's name come first, with an
empty id. An empty line says "still at it". argv[1]: ``{"config", "read", "only"}``; with ``only`` just the objects whose ids are on
standard input, one a line. Memory stays flat: `sort` keeps what it must on disk.
"""

import errno
import hashlib
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ACCOUNT = re.compile(UUID, re.ASCII)
FILE = re.compile(rf"({UUID})\.(?:0|[1-9][0-9]*)\.[0-9a-f]{{32}}", re.ASCII)
UPLOADS = "tmp"
LOG = "log"
"""segments with what was stored lately, which has its files as well"""
QUARANTINE = "quarantine"
"""copies whose bytes were wrong: they count as missing, and are mended from another host's"""
SORT = ("sort", "--buffer-size=16M", "--temporary-directory=/var/tmp", "--field-separator=\t", "--key=1,1", "--key=2,2")
CHUNK_BYTES = 1 << 20
SIGN_OF_LIFE_S = 2.0


class Signs:
    """Signs of life, so that nobody takes long work for a dead host."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def of_life(self) -> None:
        if time.monotonic() - self._said > SIGN_OF_LIFE_S:
            self._said = time.monotonic()
            print(flush=True)


def files(root: str) -> "Iterator[tuple[str, str, os.stat_result]]":
    """Object id (empty: no object's file), path below root and facts of everything there; gone meanwhile is not there."""
    with os.scandir(root) as folders:
        for folder in folders:
            is_folder = folder.is_dir(follow_symlinks=False)
            if is_folder and folder.name in (LOG, QUARANTINE):
                continue
            if not is_folder or not (folder.name == UPLOADS or ACCOUNT.fullmatch(folder.name)):
                yield "", folder.name, folder.stat(follow_symlinks=False)
                continue
            form = ACCOUNT if folder.name == UPLOADS else FILE
            with os.scandir(folder.path) as found:
                for file in found:
                    try:
                        facts = file.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    match = form.fullmatch(file.name) if stat.S_ISREG(facts.st_mode) else None
                    yield match[0][:36] if match else "", f"{folder.name}/{file.name}", facts


def content(path: str, signs: Signs) -> "str | None":
    """MD5 of a file's bytes as the disks have them, ``!why`` if they can't be read, None if it is gone."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return None if error.errno == errno.ENOENT else f"!{error.strerror}"
    try:
        # Before: what lies in memory says nothing of the disk. After: what was read once here is not worth anybody's memory.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := os.read(fd, CHUNK_BYTES):
            digest.update(chunk)
            signs.of_life()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        return f"!{error.strerror}"
    finally:
        os.close(fd)
    return digest.hexdigest()


def plain(path: str) -> str:
    """A path in one line and one field, whatever its bytes are."""
    return json.dumps(os.fsencode(path).decode(errors="backslashreplace"), ensure_ascii=False)[1:-1]


def main() -> None:
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    only = set(sys.stdin.read().split("\n")) if wanted["only"] else None
    root = json.loads(pathlib.Path(wanted["config"]).read_text())["data_dir"]
    os.nice(10)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    signs = Signs()
    print(flush=True)
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(
        SORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, encoding="utf-8"
    ) as sort:
        assert sort.stdin is not None  # noqa: S101
        assert sort.stdout is not None  # noqa: S101
        for object_id, path, facts in files(root):
            if only is None or object_id in only:
                age_s = int(time.time() - facts.st_mtime)
                sort.stdin.write(f"{object_id}\t{path if object_id else plain(path)}\t{facts.st_size}\t{age_s}\t\n")
            signs.of_life()
        sort.stdin.close()
        for line in sort.stdout:
            object_id, path, _ = line.split("\t", 2)
            read = content(f"{root}/{path}", signs) if wanted["read"] and object_id else ""
            if read is not None:
                sys.stdout.write(line if not read else f"{line[:-1]}{read}\n")
            signs.of_life()
    sys.stdout.flush()
    if sort.returncode:
        sys.exit(f"sort the object files' names: exit {sort.returncode}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"list the object files: {error}")
