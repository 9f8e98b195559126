"""Reads every object file over time, at a steady low rate, so that bytes which nobody wants are known to be right all the same.

A round goes through accounts in order and, of each, through sixteen parts (by the first digit of the object id). Where it is lies in
`quarantine/round`: a restart goes on there, so what comes last is not passed over for ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import prometheus_client

from mobula.core import log
from mobula.storage.files import FileError, ObjectFiles, ObjectName, is_account
from mobula.storage.integrity import FOLDER, Found, Integrity

FILE_BYTES = 16 * 1024
"""what a file costs at least: opening one is work, too"""
_NICE = 10
_DIGITS = "0123456789abcdef"
_UNREADABLE_MAX = 100

_verified = prometheus_client.Counter("storage_verified_bytes", "Bytes that were read and hashed to verify copies")


class Place(msgspec.Struct, frozen=True):
    """Where the round is."""

    began_s: float
    account: str = ""
    digit: str = "0"
    files: int = 0
    size_bytes: int = 0


class Verifier:
    """A thread of its own: `start` it, `stop` it. `settle_s`: how long after the start it begins, and how old a file must be."""

    def __init__(
        self, files: ObjectFiles, integrity: Integrity, *, bytes_per_s: int, round_s: float, settle_s: float
    ) -> None:
        self._files = files
        self._integrity = integrity
        self._bytes_per_s = bytes_per_s
        self._round_s = round_s
        self._settle_s = settle_s
        self._path = files.root / FOLDER / "round"
        self._place = Place(time.time())
        self._rounds = 0
        self._last_round_s = 0.0
        self._unreadable: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)
        self._due_s = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def status(self) -> dict[str, object]:
        """Part of /status."""
        return {
            "round_began_s": int(self._place.began_s), "files": self._place.files, "bytes": self._place.size_bytes,
            "rounds": self._rounds, "last_round_s": round(self._last_round_s), "bytes_per_s": self.rate(),
            "unreadable": list(self._unreadable)[:_UNREADABLE_MAX],
        }  # fmt: skip

    def rate(self) -> int:
        """Bytes per second: as configured, or more if a round would take too long."""
        capacity = self._files.capacity
        return max(self._bytes_per_s, int((capacity.size_bytes - capacity.available_bytes) / self._round_s))

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        if self._stopping.wait(self._settle_s):
            return
        self._place = self._read_place() or Place(time.time())
        while not self._stopping.is_set():
            try:
                self._round()
            except OSError as error:
                log.get_logger().error("verification broke off; it goes on", why=str(error))
            self._stopping.wait(self._settle_s)

    def _round(self) -> None:
        for account in self._accounts():
            if account < self._place.account:
                continue
            if account > self._place.account:
                self._move(account, "0")
            for digit in _DIGITS[_DIGITS.index(self._place.digit) :]:
                self._move(account, digit)
                for name in self._names(account, digit):
                    self._verify(name)
                    if self._stopping.is_set():
                        return
        place = self._place
        self._rounds += 1
        self._last_round_s = time.time() - place.began_s
        log.get_logger().info("verified", files=place.files, bytes=place.size_bytes, seconds=round(self._last_round_s))
        self._place = Place(time.time())
        self._write_place()

    def _accounts(self) -> list[str]:
        with os.scandir(self._files.root) as found:
            return sorted(folder.name for folder in found if is_account(folder.name))

    def _names(self, account: str, digit: str) -> Iterator[ObjectName]:
        with os.scandir(self._files.root / account) as found:
            for file in found:
                if not file.name.startswith(digit):
                    continue
                try:
                    name = ObjectName.parse(account, file.name)
                    if time.time() - file.stat().st_mtime >= self._settle_s:
                        yield name
                except (FileError, FileNotFoundError):
                    continue

    def _verify(self, name: ObjectName) -> None:
        self._pace(FILE_BYTES)
        try:
            fd = self._files.open(name)
        except (FileError, OSError):
            return  # deleted meanwhile
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what lies in memory says nothing of the disk
            found = self._integrity.check(name, fd, self._pace)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            # A pool that is in trouble gives errors for all it has: nothing is put aside for that.
            if name.path not in self._unreadable and len(self._unreadable) < _UNREADABLE_MAX:
                self._unreadable[name.path] = str(error.strerror)
            log.get_logger().error("copy can't be read", object=name.path, why=str(error.strerror))
            return
        finally:
            os.close(fd)
        self._unreadable.pop(name.path, None)
        size_bytes = name.size_bytes if found is Found.RIGHT else 0
        self._place = msgspec.structs.replace(
            self._place, files=self._place.files + 1, size_bytes=self._place.size_bytes + size_bytes
        )

    def _pace(self, size_bytes: int) -> None:
        """Wait until so much more may be read."""
        _verified.inc(size_bytes)
        now = time.monotonic()
        self._due_s = max(self._due_s, now - 1.0) + size_bytes / self.rate()
        if self._due_s > now:
            self._stopping.wait(self._due_s - now)

    def _move(self, account: str, digit: str) -> None:
        if (account, digit) != (self._place.account, self._place.digit):
            self._place = msgspec.structs.replace(self._place, account=account, digit=digit)
            self._write_place()

    def _read_place(self) -> Place | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Place)
        except (OSError, msgspec.MsgspecError):
            return None

    def _write_place(self) -> None:
        """Need not last: a crash costs a part of a round."""
        self._path.parent.mkdir(mode=0o750, exist_ok=True)
        temporary = Path(f"{self._path}.new")
        temporary.write_bytes(msgspec.json.encode(self._place))
        temporary.rename(self._path)
