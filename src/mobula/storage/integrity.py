"""Are the bytes of a file what its name says? Whoever reads wrong ones puts the file aside, so that nobody gets them.

    quarantine/<account>.<object id>.<size>.<md5>    bytes that were found wrong; the copy counts as missing from then on; kept until
                                                     the object is deleted

ZFS answers for what lies below it. What happens above it (a file that somebody or something has rewritten) is seen by the file's ctime:
a file whose bytes were hashed is known by inode and ctime, and any later write through the file system changes that. So a file is
hashed once by whoever wants it first, and sent by the kernel alone afterwards. What nobody reads, `verifier` reads.
"""

from __future__ import annotations

import enum
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import prometheus_client

from mobula.core import log
from mobula.storage.files import ObjectFiles, ObjectMissing, ObjectName, fsync_directory

FOLDER = "quarantine"
HASH_FIRST_BYTES = 64 << 20
"""a file of unknown bytes up to here is hashed before its first byte is sent: 0.1 s at most; a larger one while it is sent"""
_KNOWN = 100_000
_CHUNK_BYTES = 1 << 20
_SAID_MAX = 100
"""names in /status"""

_wrong_copies = prometheus_client.Counter("storage_wrong_copies", "Copies put aside because their bytes were wrong")
_quarantined = prometheus_client.Gauge("storage_quarantined", "Copies put aside and not mended yet")


class Found(enum.Enum):
    """What the look at a file gave."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"


class Integrity:
    """What is known of the files' bytes. Blocking; from any thread."""

    def __init__(self, files: ObjectFiles) -> None:
        self._files = files
        self._folder = files.root / FOLDER
        self._known: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """inode -> (ctime, size) of files whose bytes were right then"""
        self._lock = threading.Lock()
        self._placing = threading.Lock()
        """held while a file is put aside, and while one takes its place: neither acts on what the other has changed"""
        self._aside: dict[str, ObjectName] = {}
        self._kept: set[str] = set()
        """of what the folder has a file, also those that were mended"""

    def start(self) -> None:
        """Learn what was put aside and has no right copy in its place yet. Raises OSError."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            account, _, file_name = path.name.partition(".")
            try:
                name = ObjectName.parse(account, file_name)
            except Exception:  # noqa: BLE001, S112 (not ours to judge)
                continue
            self._kept.add(name.path)
            if not self._files.exists(name):
                self._aside[name.path] = name
        _quarantined.set(len(self._aside))

    @property
    def aside(self) -> list[str]:
        """Names of copies that wait to be mended, some of them if they are many."""
        return list(self._aside)[:_SAID_MAX]

    @property
    def aside_count(self) -> int:
        return len(self._aside)

    def is_right(self, name: ObjectName, body: bytes) -> bool:
        """These are an object's bytes."""
        return len(body) == name.size_bytes and hashlib.md5(body, usedforsecurity=False).hexdigest() == name.md5

    def read(self, name: ObjectName) -> bytes:
        """A small object, whole and right. Raises ObjectMissing, also for what was put aside just now; OSError."""
        fd = self._files.open(name)
        try:
            body = os.pread(fd, name.size_bytes + 1, 0)
            if not self.is_right(name, body):
                self.put_aside(name, fd)
                raise ObjectMissing(f"read '{name.path}': its bytes were wrong; it was put aside")
            return body
        finally:
            os.close(fd)

    def open(self, name: ObjectName) -> tuple[int, bool]:
        """A descriptor to read from, which the caller closes, and whether the bytes are known to be right; unknown are large ones only.

        Raises ObjectMissing, also for what was put aside just now; OSError.
        """
        fd = self._files.open(name)
        try:
            if self._is_known(fd, name):
                return fd, True
            if name.size_bytes > HASH_FIRST_BYTES:
                return fd, False
            if self.check(name, fd) is Found.RIGHT:
                return fd, True
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        raise ObjectMissing(f"read '{name.path}': its bytes were wrong; it was put aside")

    def look(self, name: ObjectName) -> Found:
        """Read a file whole; a wrong one is put aside. Raises OSError."""
        try:
            fd = self._files.open(name)
        except ObjectMissing:
            return Found.MISSING
        try:
            return self.check(name, fd)
        finally:
            os.close(fd)

    def check(self, name: ObjectName, fd: int, pace: Callable[[int], None] | None = None) -> Found:
        """Hash an open file; a wrong one is put aside. `pace` is told of each piece. Raises OSError."""
        before = os.fstat(fd)
        digest, at = hashlib.md5(usedforsecurity=False), 0
        while chunk := os.pread(fd, _CHUNK_BYTES, at):
            digest.update(chunk)
            at += len(chunk)
            if pace is not None:
                pace(len(chunk))
        return self.judge(name, fd, before, at, digest.hexdigest())

    def judge(self, name: ObjectName, fd: int, before: os.stat_result, size_bytes: int, md5: str) -> Found:
        """What was read of an open file, which was as `before` says when that began; a wrong one is put aside. Raises OSError."""
        if (size_bytes, md5) != (name.size_bytes, name.md5):
            self.put_aside(name, fd)
            return Found.WRONG
        with self._lock:
            self._known[before.st_ino] = (before.st_ctime_ns, before.st_size)
            self._known.move_to_end(before.st_ino)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return Found.RIGHT

    def note_stored(self, name: ObjectName) -> None:
        """The file was hashed while it was written here."""
        try:
            facts = os.stat(self._files.root / name.path)  # noqa: PTH116
        except OSError:
            return
        with self._lock:
            self._known[facts.st_ino] = (facts.st_ctime_ns, facts.st_size)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def _is_known(self, fd: int, name: ObjectName) -> bool:
        facts = os.fstat(fd)
        known = (facts.st_ctime_ns, name.size_bytes)
        return facts.st_size == name.size_bytes and self._known.get(facts.st_ino) == known

    def put_aside(self, name: ObjectName, fd: int) -> None:
        """Take this very file out of the way, for whoever wants to see what became of it. Raises OSError."""
        path = self._files.root / name.path
        with self._placing:
            try:
                if path.stat().st_ino != os.fstat(fd).st_ino:
                    return  # a right one has taken its place, or nothing is there
            except FileNotFoundError:
                return
            self._folder.mkdir(mode=0o750, exist_ok=True)
            path.rename(self._place_of(name))
            fsync_directory(str(self._folder))
            fsync_directory(str(path.parent))
            self._aside[name.path] = name
            self._kept.add(name.path)
        _wrong_copies.inc()
        _quarantined.set(len(self._aside))
        log.get_logger().error("copy put aside: its bytes are wrong", object=name.path)

    def _place_of(self, name: ObjectName) -> Path:
        return self._folder / f"{name.account}.{Path(name.path).name}"

    def keeps(self, name: ObjectName) -> bool:
        """Wrong bytes of this copy lie in the folder."""
        return name.path in self._kept

    def forget(self, name: ObjectName) -> None:
        """The object is deleted: what was put aside of it goes too, and nobody waits for it. Raises OSError."""
        with self._placing:
            self._place_of(name).unlink(missing_ok=True)
            self._kept.discard(name.path)
            self._aside.pop(name.path, None)
        _quarantined.set(len(self._aside))

    def placed(self, name: ObjectName, place: Callable[[], None]) -> None:
        """Let a right file take its place; it is no longer waited for. Raises what `place` raises."""
        with self._placing:
            place()
            self._aside.pop(name.path, None)
        _quarantined.set(len(self._aside))
