"""Object files on disk: written so that what was acknowledged survives a crash. Blocking; called from threads.

    tmp/<object id>                                an upload on its way; `start` removes what a crash left
    log/<number>                                   what was stored and deleted lately (mobula.storage.commits)
    quarantine/                                    files whose bytes turned out wrong (mobula.storage.integrity)
    <account uuid>/<object id>.<size>.<md5 hex>    an object, whole: the name says what the bytes must be

An upload is fsynced, renamed, and **fsynced again**: on zfs-fuse the rename survives a crash only through an fsync of
the file itself, an fsync of the directory does nothing there. The directory is fsynced as well, for other file systems.
Nor does an fsync there do anything for what was written through another descriptor that is closed by now.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mobula.storage import transaction_groups

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ACCOUNT = re.compile(_UUID, re.ASCII)
_FILE = re.compile(rf"({_UUID})\.(0|[1-9][0-9]{{0,17}})\.([0-9a-f]{{32}})", re.ASCII)
_libc = ctypes.CDLL(None, use_errno=True)  # Python has no syncfs
_REMEMBERED = 100_000
"""object ids stored lately: an id is used once, so a second PUT of it is a replay, within its capability's life"""


SYNCED_WHOLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
"""kinds of which syncfs(2) makes all last; FUSE hands on what the kernel holds, and never asks the server to sync"""
ZFS_FUSE = "fuse.zfs"
OTHERS_READ = 0o644
"""of object files: tasks see them with the owners that they have here (the folder above is closed to others)"""
CAPACITY_AGE_S = 1.0
"""how old a capacity may be that decides on a new upload"""


class FileError(Exception):
    """Base of what storing or reading an object file can meet."""


class NameRefused(FileError):
    """Not the name of an object or of an object's file. -> 400"""


class ObjectExists(FileError):
    """An object of this id is stored, or is being stored. -> 409"""


class ObjectMissing(FileError):
    """No such file. -> 404"""


class NoSpace(FileError):
    """The pool is full, or would be. -> 507"""


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object file's place; strict, so that no name can lead out of the data directory."""

    account: str
    object_id: str
    size_bytes: int
    md5: str

    @classmethod
    def parse(cls, account: str, file_name: str) -> ObjectName:
        """Raises NameRefused."""
        match = _FILE.fullmatch(file_name)
        if match is None or not _ACCOUNT.fullmatch(account):
            raise NameRefused(
                f"name an object file: {account!r}, {file_name!r} found; it is <uuid>/<uuid>.<size>.<md5 hex>"
            )
        return cls(account, match[1], int(match[2]), match[3])

    @property
    def path(self) -> str:
        return f"{self.account}/{self.object_id}.{self.size_bytes}.{self.md5}"


def is_account(folder: str) -> bool:
    """A folder of object files."""
    return _ACCOUNT.fullmatch(folder) is not None


def check_id(account: str, object_id: str) -> None:
    """Raises NameRefused."""
    if not _ACCOUNT.fullmatch(account) or not _ACCOUNT.fullmatch(object_id):
        raise NameRefused(f"name an object: {account!r}, {object_id!r} found; two lower-case uuids are needed")


@dataclass(frozen=True, slots=True)
class Capacity:
    size_bytes: int
    available_bytes: int
    read_s: float
    """when, on the monotonic clock"""

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.read_s

    @property
    def fill(self) -> float:
        return 1 - self.available_bytes / self.size_bytes if self.size_bytes else 1.0


class ObjectFiles:
    """All object files of one data directory. Only one process may use it."""

    def __init__(self, data_dir: Path, *, fill_max: float) -> None:
        self.root = self._root = data_dir
        self._tmp = data_dir / "tmp"
        # Names are put together as text on the way of each request: a Path costs more than the system call it is for.
        self._root_text, self._tmp_text = str(self._root), str(self._tmp)
        self._fill_max = fill_max
        self.capacity = Capacity(0, 0, float("-inf"))
        """as last read"""
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._sync_all: Callable[[threading.Event], bool] | None = None
        """makes everything in the data directory last, on file systems that can; or was stopped"""
        self.reads_without_waiting = False
        """`read_cached` works on this file system"""

    def start(self) -> int:
        """Make the directories, drop what uploads left behind; returns how many. Raises OSError."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        left = list(self._tmp.iterdir())
        for path in left:
            path.unlink()
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
        kind = file_system(mounts, self._root.resolve())
        if kind in SYNCED_WHOLE:
            self._sync_all = partial(_syncfs, self._root_text)
        elif kind == ZFS_FUSE:
            self._sync_all = partial(transaction_groups.wait, self._tmp / "mark")
        probe = self._tmp / "probe"
        probe.write_bytes(b"x")
        with probe.open("rb") as file:
            self.reads_without_waiting = _read_cached(file.fileno(), 1) is not None
        probe.unlink()
        self.read_capacity()
        return len(left)

    def read_capacity(self) -> Capacity:
        """Of the pool, now. Raises OSError."""
        found = os.statvfs(self._root)
        self.capacity = Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, time.monotonic())
        return self.capacity

    def _check_room(self, announced_bytes: int) -> None:
        capacity = self.capacity
        if capacity.age_s > CAPACITY_AGE_S:
            capacity = self.read_capacity()
        if capacity.fill > self._fill_max or announced_bytes > capacity.available_bytes:
            raise NoSpace(f"store an object: the pool is {capacity.fill:.0%} full; choose another server")

    def create(self, account: str, object_id: str, announced_bytes: int | None) -> Upload:
        """Begin an upload. Raises ObjectExists, NoSpace, OSError."""
        self._check_room(announced_bytes or 0)
        if object_id in self._stored:
            raise ObjectExists(f"store object {object_id!r}: it is stored; use a new id")
        return self._begin(account, object_id)

    def create_copy(self, name: ObjectName) -> Upload:
        """Begin to take another server's copy, also of what was stored here once. Raises ObjectExists, NoSpace, OSError."""
        self._check_room(name.size_bytes)
        return self._begin(name.account, name.object_id)

    def _begin(self, account: str, object_id: str) -> Upload:
        try:
            fd = os.open(self.temporary(object_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OTHERS_READ)
        except FileExistsError as error:
            raise ObjectExists(f"store object {object_id!r}: it is being stored; use a new id") from error
        except OSError as error:
            raise space(error) from error
        return Upload(self, account, object_id, fd)

    # small objects, whose bytes are in a log already (mobula.storage.commits)

    def admit(self, name: ObjectName) -> None:
        """Take its id, if there is room. Raises ObjectExists, NoSpace, OSError."""
        self._check_room(name.size_bytes)
        self._take_id(name.object_id)

    def forget(self, object_id: str) -> None:
        """Its id was taken, and nothing was stored."""
        with self._lock:
            self._stored.pop(object_id, None)

    def write(self, name: ObjectName, body: bytes) -> None:
        """The file of an admitted object, which need not last yet. Raises ObjectExists, NoSpace, OSError; nothing is left then."""
        path, flags = f"{self._root_text}/{name.path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            try:
                fd = os.open(path, flags, OTHERS_READ)
            except FileNotFoundError:  # the account's first object here
                self._make_folder(f"{self._root_text}/{name.account}")
                fd = os.open(path, flags, OTHERS_READ)
        except FileExistsError as error:
            raise ObjectExists(f"store object {name.object_id!r}: it is stored; use a new id") from error
        except OSError as error:
            self.forget(name.object_id)
            raise space(error) from error
        try:
            if os.write(fd, body) != len(body):
                raise OSError(errno.ENOSPC, "written in part")
        except OSError as error:
            self.forget(name.object_id)
            Path(path).unlink(missing_ok=True)
            raise space(error) from error
        finally:
            os.close(fd)

    def restore(self, name: ObjectName, body: bytes) -> bool:
        """Have the file of an acknowledged object; whether it had to be written. Raises OSError."""
        path = self._root / name.path
        try:
            if path.read_bytes() == body:
                return False
        except FileNotFoundError:
            self._make_folder(f"{self._root_text}/{name.account}")
        path.write_bytes(body)
        path.chmod(OTHERS_READ)
        return True

    def make_last(self, names: Sequence[ObjectName], stopped: threading.Event) -> bool:
        """Whether the files of these survive a crash from here on, those that were deleted aside; not if it was stopped while it waited for
        that. Raises OSError."""
        if self._sync_all is not None:
            return self._sync_all(stopped)
        for name in names:
            try:
                fd = os.open(f"{self._root_text}/{name.path}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for account in {name.account for name in names}:
            fsync_directory(f"{self._root_text}/{account}")
        return True

    def open(self, name: ObjectName) -> int:
        """A descriptor to read from; the caller closes it. Raises ObjectMissing, OSError."""
        try:
            return os.open(f"{self._root_text}/{name.path}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ObjectMissing(f"read '{name.path}': no such file") from error

    def exists(self, name: ObjectName) -> bool:
        return (self._root / name.path).exists()

    def delete(self, name: ObjectName) -> None:
        """Raises ObjectMissing, OSError."""
        try:
            (self._root / name.path).unlink()
        except FileNotFoundError as error:
            raise ObjectMissing(f"delete '{name.path}': no such file") from error

    def read(self, name: ObjectName, offset: int, size_bytes: int) -> bytes:
        """A small part of an object. Raises ObjectMissing, OSError."""
        fd = self.open(name)
        try:
            data = os.pread(fd, size_bytes, offset)
        finally:
            os.close(fd)
        if len(data) < size_bytes:
            raise OSError(f"read '{name.path}': it is shorter than its name says")
        return data

    def read_cached(self, name: ObjectName) -> bytes | None:
        """A small object's bytes if they are in memory, None if reading would wait. Raises ObjectMissing, OSError."""
        fd = self.open(name)
        try:
            return _read_cached(fd, name.size_bytes)
        finally:
            os.close(fd)

    def place(self, upload: Upload, name: ObjectName) -> None:
        """Rename, and make it last. `upload`'s bytes are on disk already. Raises ObjectExists, NoSpace, OSError."""
        folder = f"{self._root_text}/{name.account}"
        path = f"{self._root_text}/{name.path}"
        self._take_id(name.object_id)
        try:
            if os.path.exists(path):  # noqa: PTH110 (see __init__)
                raise ObjectExists(f"store object {name.object_id!r}: it is stored; use a new id")
            self._move(upload.temporary, path, folder)
        except OSError:
            self.forget(name.object_id)
            raise
        os.fsync(upload.fd)
        fsync_directory(folder)

    def replace(self, upload: Upload, name: ObjectName) -> None:
        """As `place`, for a copy: over whatever is there. Raises OSError."""
        with self._lock:
            self._stored[name.object_id] = None
        folder = f"{self._root_text}/{name.account}"
        self._move(upload.temporary, f"{self._root_text}/{name.path}", folder)
        os.fsync(upload.fd)
        fsync_directory(folder)

    def _take_id(self, object_id: str) -> None:
        """From here on nobody else can place an object of this id. No call to the kernel under the lock: all uploads meet there."""
        with self._lock:
            if object_id in self._stored:
                raise ObjectExists(f"store object {object_id!r}: it is stored; use a new id")
            self._stored[object_id] = None
            if len(self._stored) > _REMEMBERED:
                self._stored.popitem(last=False)

    def temporary(self, object_id: str) -> str:
        """Path of an upload on its way."""
        return f"{self._tmp_text}/{object_id}"

    def _move(self, temporary: str, path: str, folder: str) -> None:
        try:
            os.rename(temporary, path)  # noqa: PTH104 (see __init__)
        except FileNotFoundError:  # the account's first object here
            self._make_folder(folder)
            os.rename(temporary, path)  # noqa: PTH104

    def _make_folder(self, folder: str) -> None:
        Path(folder).mkdir(mode=0o750, exist_ok=True)
        fsync_directory(self._root_text)


class Upload:
    """An object on its way to disk: `write`..., then `commit` or `abort`. One thread at a time."""

    def __init__(self, files: ObjectFiles, account: str, object_id: str, fd: int) -> None:
        self._files = files
        self._account = account
        self._object_id = object_id
        self._digest = hashlib.md5(usedforsecurity=False)
        self.temporary = files.temporary(object_id)
        self.size_bytes = 0
        self.fd = fd

    def write(self, data: memoryview) -> None:
        """Raises NoSpace, OSError."""
        self._digest.update(data)
        self.size_bytes += len(data)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError as error:
            raise space(error) from error

    @property
    def name(self) -> ObjectName:
        """Of what was written so far."""
        return ObjectName(self._account, self._object_id, self.size_bytes, self._digest.hexdigest())

    def commit(self) -> ObjectName:
        """All of it lasts from here on. Raises ObjectExists, NoSpace, OSError; abort it then."""
        name = self.name
        try:
            os.fsync(self.fd)
            self._files.place(self, name)
        except OSError as error:
            raise space(error) from error
        self._close()
        return name

    def commit_copy(self) -> None:
        """The same, over a file of this name. Raises NoSpace, OSError; abort it then."""
        try:
            os.fsync(self.fd)
            self._files.replace(self, self.name)
        except OSError as error:
            raise space(error) from error
        self._close()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self.fd >= 0:
            self._close()
            Path(self.temporary).unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1


def file_system(mounts: str, folder: Path) -> str:
    """Its kind; `mounts` as /proc/self/mounts says it."""
    kinds = {}
    for line in mounts.splitlines():
        _, at, kind, *_ = line.split(" ")
        if folder.is_relative_to(at.replace("\\040", " ")):
            kinds[at] = kind  # of several at one place the last one counts
    return kinds[max(kinds, key=len)] if kinds else ""


def _syncfs(folder: str, _stopped: threading.Event) -> bool:
    """Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), folder)
        return True
    finally:
        os.close(fd)


def fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def space(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("store an object: the pool is full; choose another server")
    return error


def _read_cached(fd: int, size_bytes: int) -> bytes | None:
    buffer = bytearray(size_bytes)
    try:
        found = os.preadv(fd, [buffer], 0, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return bytes(buffer) if found == size_bytes else None
