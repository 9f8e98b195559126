"""Group commit of small objects (decision 0009): one append and one fdatasync for all that came while the last ones were on their way.

    log/<number>     a segment (mobula.storage.log)

An object is acknowledged when its record is on disk **and** its file is written; the file is not synced. When a segment is full or old,
the next one begins, the files of the old one are made to last, all together, and it goes. `Commits.start` plays left segments again: a file
that the crash took comes back from its record. They go like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from mobula.core import log as logs
from mobula.storage.files import FileError, ObjectFiles, ObjectMissing, ObjectName, fsync_directory, space
from mobula.storage.log import Kind, Record, encode, scan

SEGMENT_BYTES = 32 << 20
SEGMENT_AGE_S = 10.0
BATCH_ITEMS = 256
"""so many objects at most share an fdatasync; each is 64 KiB at most"""


@dataclass(slots=True)
class _Item:
    """A request on its way. `name` is None until a PUT's body is hashed."""

    kind: Kind
    account: str
    object_id: str
    body: bytes
    done: asyncio.Future[ObjectName]
    name: ObjectName | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    began_s: float
    fd: int = -1
    size_bytes: int = 0
    names: dict[str, ObjectName] = field(default_factory=dict)
    """by object id: whose files the segment stands for"""


class Commits:
    """Stores and deletes small objects, in a thread of its own. `start` it before the first request, `stop` it after the last."""

    def __init__(
        self, files: ObjectFiles, *, segment_bytes: int = SEGMENT_BYTES, segment_age_s: float = SEGMENT_AGE_S
    ) -> None:
        self._files = files
        self._folder = files.root / "log"
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._segment: _Segment | None = None
        self._next = 1
        self._left: list[_Segment] = []
        """full or old segments, until their files last"""
        self._guard = threading.Lock()
        """of `_left`, between writer and checkpoint"""
        self._threads: list[threading.Thread] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.trouble = ""
        """why the last checkpoint failed"""

    # the event loop's side

    async def put(self, account: str, object_id: str, body: bytes) -> ObjectName:
        """Store a small object; it lasts when this returns. Raises ObjectExists, NoSpace, OSError."""
        return await self._ask(Kind.STORED, account, object_id, body)

    async def delete(self, name: ObjectName) -> None:
        """Delete an object that `holds`. Raises ObjectMissing, OSError."""
        await self._ask(Kind.DELETED, name.account, name.object_id, b"", name)

    def holds(self, name: ObjectName) -> bool:
        """A segment would bring this object's file back: it has to be told that it was deleted."""
        segment = self._segment
        if segment is not None and name.object_id in segment.names:
            return True
        return any(name.object_id in left.names for left in tuple(self._left))

    async def _ask(
        self, kind: Kind, account: str, object_id: str, body: bytes, name: ObjectName | None = None
    ) -> ObjectName:
        done: asyncio.Future[ObjectName] = asyncio.get_running_loop().create_future()
        self._queue.put(_Item(kind, account, object_id, body, done, name))
        return await done

    # life

    def start(self) -> int:
        """Play the segments that a crash left, then take requests; answers how many files came back. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        fsync_directory(str(self._files.root))
        numbers = sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())
        restored = sum(self._replay(number) for number in numbers)
        self._next = numbers[-1] + 1 if numbers else 1
        for target in (self._write, self._checkpoint):
            thread = threading.Thread(target=target, name=f"commits{target.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return restored

    def stop(self) -> None:
        """Finish what is queued, and make it last; where that takes long, segments are left to the next start."""
        self._queue.put(None)
        if self._threads:
            self._threads[0].join()
            self._stopping.set()
            self._wake.set()
            self._threads[1].join()

    def _replay(self, number: int) -> int:
        path = self._folder / str(number)
        there: dict[ObjectName, bytes] = {}
        gone: set[ObjectName] = set()
        for record in scan(number, path.read_bytes()):
            name = ObjectName(*record.names, record.size_bytes, record.md5.hex())
            if record.kind == Kind.STORED:
                there[name] = record.body
            else:
                there.pop(name, None)
                gone.add(name)
        restored = sum(self._files.restore(name, body) for name, body in there.items())
        for name in gone:
            with contextlib.suppress(ObjectMissing):
                self._files.delete(name)
        names = {name.object_id: name for name in there}
        self._left.append(_Segment(number, path, time.monotonic(), names=names))
        return restored

    # the writer

    def _write(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=self._idle_s())
            except Empty:
                self._rotate()
                continue
            if first is None:
                self._rotate()
                return
            batch = self._batch(first)
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001 (whoever asked gets it; the thread goes on)
                for item in batch:
                    item.error = item.error or error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                first.done.get_loop().call_soon_threadsafe(_settle, batch)
            segment = self._segment
            if segment is not None and (segment.size_bytes >= self._segment_bytes or not self._idle_s()):
                self._rotate()

    def _idle_s(self) -> float | None:
        """How long nobody may come before the segment is old; None without a segment."""
        if self._segment is None:
            return None
        return max(0.0, self._segment.began_s + self._segment_age_s - time.monotonic())

    def _batch(self, first: _Item) -> list[_Item]:
        batch = [first]
        with contextlib.suppress(Empty):
            while len(batch) < BATCH_ITEMS:
                item = self._queue.get_nowait()
                if item is None:  # the end: after this batch
                    self._queue.put(None)
                    break
                batch.append(item)
        return batch

    def _commit(self, batch: Sequence[_Item]) -> None:
        """Log all, sync once, then write the files; each item has its name or its error afterwards."""
        for item in batch:
            if item.kind == Kind.STORED:
                digest = hashlib.md5(item.body, usedforsecurity=False).hexdigest()
                item.name = ObjectName(item.account, item.object_id, len(item.body), digest)
                try:
                    self._files.admit(item.name)
                except (FileError, OSError) as error:
                    item.error = error
        admitted = [item for item in batch if item.error is None]
        if not admitted:
            return
        try:
            segment = self._append(admitted)
        except OSError as error:
            for item in admitted:
                item.error = space(error)
                if item.kind == Kind.STORED:
                    self._files.forget(item.object_id)
            return
        for item in admitted:
            assert item.name is not None  # noqa: S101
            try:
                if item.kind == Kind.STORED:
                    segment.names[item.object_id] = item.name
                    self._files.write(item.name, item.body)
                else:
                    self._files.delete(item.name)
            except (FileError, OSError) as error:
                item.error = error

    def _append(self, items: Sequence[_Item]) -> _Segment:
        """The segment that has their records, on disk. Raises OSError; then no later record follows what was written of these."""
        segment = self._segment or self._begin()
        pieces: list[bytes] = []
        for item in items:
            assert item.name is not None  # noqa: S101
            pieces += encode(
                segment.number,
                Record(
                    item.kind, uuid.UUID(item.account).bytes, uuid.UUID(item.object_id).bytes, item.name.size_bytes,
                    bytes.fromhex(item.name.md5), item.body,
                ),
            )  # fmt: skip
        data = b"".join(pieces)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(segment.fd, view) :]
            os.fdatasync(segment.fd)
        except OSError:
            self._rotate()  # what was half written ends this segment
            raise
        segment.size_bytes += len(data)
        return segment

    def _begin(self) -> _Segment:
        number, self._next = self._next, self._next + 1
        path = self._folder / str(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            os.fsync(fd)
            fsync_directory(str(self._folder))
        except OSError:  # its name may not last: no record may go there
            os.close(fd)
            raise
        self._segment = _Segment(number, path, time.monotonic(), fd)
        return self._segment

    def _rotate(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            os.close(segment.fd)
            with self._guard:
                self._left.append(segment)
            self._wake.set()

    # checkpoints

    def _checkpoint(self) -> None:
        while True:
            while left := tuple(self._left):
                try:
                    if not self._files.make_last([name for one in left for name in one.names.values()], self._stopping):
                        return
                    for segment in left:
                        segment.path.unlink(missing_ok=True)
                except OSError as error:
                    if not self.trouble:
                        logs.get_logger().error("checkpoint failed", segment=left[0].number, why=str(error))
                    self.trouble = f"make the files of log segment {left[0].number} last: {error.strerror}"
                    break
                self.trouble = ""
                with self._guard:
                    del self._left[: len(left)]
            if self._stopping.is_set():
                return
            self._wake.wait(1.0 if self.trouble else None)
            self._wake.clear()


def _settle(batch: Sequence[_Item]) -> None:
    """Tell all who wait; on the event loop."""
    for item in batch:
        if item.done.done():
            continue
        if item.error is not None:
            item.done.set_exception(item.error)
        else:
            assert item.name is not None  # noqa: S101
            item.done.set_result(item.name)
