"""What a trace of system calls must show before an answer goes: the bytes, then the syncs, each ended before the next begins. Pure.

A trace is what `strace -f -yy` writes. Its lines are in the order in which the tracer saw calls begin and end, and a thread goes on only
when the tracer has seen its call end: so a call that ended in an earlier line than another one began had ended before, whatever the
threads. Each function here answers sentences about what is missing, none if all is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg"})
SYNCS = frozenset({"fsync", "fdatasync"})
TRACED = (
    *sorted(WRITES | SYNCS), "open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat",
    "unlink", "unlinkat", "ftruncate", "syncfs", "sync", "sync_file_range", "sendfile", "splice", "io_uring_enter",
)  # fmt: skip

_LINE = re.compile(r"(\d+) +(.*)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)")
_DESCRIPTOR = re.compile(r"\d+<((?:->|[^<>])*)>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"f": b"\f"}
_LENGTH_AND_OFFSET = re.compile(r", (\d+), (\d+)$")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that ended well. `began` and `ended` are lines of the trace."""

    thread: int
    name: str
    began: int
    ended: int
    arguments: str
    path: str
    """what its first descriptor is: a file's path, or of a socket its kind and ends"""
    strings: tuple[bytes, ...]
    result: int

    @property
    def data(self) -> bytes:
        """What was written, as far as the trace shows it."""
        return b"".join(self.strings)

    @property
    def names(self) -> tuple[str, ...]:
        """Paths that are arguments."""
        return tuple(string.decode(errors="surrogateescape") for string in self.strings)

    @property
    def on_socket(self) -> bool:
        return self.path.startswith(("TCP", "UNIX", "socket:"))


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that was put: the data directory and its file there, as mobula.storage.files names it."""

    root: str
    account: str
    object_id: str
    size_bytes: int
    md5: str

    @property
    def folder(self) -> str:
        return f"{self.root}/{self.account}"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.object_id}.{self.size_bytes}.{self.md5}"

    @property
    def temporary(self) -> str:
        return f"{self.root}/tmp/{self.object_id}"

    @property
    def in_log(self) -> bytes:
        """What each of its records has in it."""
        return bytes.fromhex((self.account + self.object_id).replace("-", ""))


def parse(trace: str) -> list[Call]:
    """The calls that ended well, by their begin. Other lines (signals, ends of threads, calls that failed or never ended) say nothing."""
    return sorted(_calls(trace.splitlines()), key=lambda call: call.began)


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    begun: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        thread, text, began = int(match[1]), match[2], number
        if text.endswith(_UNFINISHED):
            begun[thread] = (number, text.removesuffix(_UNFINISHED))
            continue
        if resumed := _RESUMED.fullmatch(text):
            began, head = begun.pop(thread, (number, ""))
            if not head.startswith(f"{resumed[1]}("):
                continue
            text = head + resumed[2]
        if (call := _CALL.fullmatch(text)) and int(call[3]) >= 0:
            descriptor = _DESCRIPTOR.match(call[2])
            strings = tuple(unescape(found) for found in _STRING.findall(call[2]))
            path = descriptor[1] if descriptor else ""
            yield Call(thread, call[1], began, number, call[2], path, strings, int(call[3]))


def unescape(text: str) -> bytes:
    """The bytes of a string that strace wrote."""
    raw = text.encode("latin-1", "replace")

    def byte(match: re.Match[bytes]) -> bytes:
        found = match[1]
        return bytes([int(found, 8) & 255]) if found[:1].isdigit() else _LETTERS.get(found, found)

    return _ESCAPE.sub(byte, raw)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Steps of which each begins after the one before has ended. What is missing is said once: nothing after it can be judged."""

    calls: Sequence[Call]
    until: int
    """the line in which the answer begins: everything has to have ended before"""
    at: int = -1
    missing: tuple[str, ...] = field(default=())

    def then(self, what: str, wanted: Callable[[Call], bool]) -> _Chain:
        """The first such call after the last step."""
        if self.missing:
            return self
        for call in self.calls:
            if call.began > self.at and call.ended < self.until and wanted(call):
                return replace(self, at=call.ended)
        return replace(
            self, missing=(f"{what}: not between line {self.at + 1} and the answer in line {self.until + 1}",)
        )


def _syncs(path: str) -> Callable[[Call], bool]:
    return lambda call: call.name in SYNCS and call.path == path


def _makes(path: str) -> Callable[[Call], bool]:
    return lambda call: path in call.names and (call.name.startswith("mkdir") or "O_CREAT" in call.arguments)


def _writes(path: str, data: bytes = b"") -> Callable[[Call], bool]:
    return lambda call: call.name in WRITES and call.path == path and data in call.data


def _answer(calls: Iterable[Call], words: Sequence[bytes], after: int = -1) -> Call | None:
    """The first such answer on a socket."""
    for call in calls:
        if call.name in WRITES and call.on_socket and call.began > after and all(word in call.data for word in words):
            return call
    return None


def _no_answer(words: Sequence[bytes]) -> list[str]:
    return [f"send an answer with {' and '.join(map(repr, words))}: not in the trace"]


def _folder(calls: Sequence[Call], stored: Stored, until: int) -> tuple[str, ...]:
    """Where the trace has the account's folder being made: the folder above is synced."""
    if not any(_makes(stored.folder)(call) for call in calls):
        return ()
    made = _Chain(calls, until).then("make the account's folder", _makes(stored.folder))
    return made.then("fsync of the data directory, after the account's folder was made", _syncs(stored.root)).missing


def large(calls: Sequence[Call], stored: Stored) -> list[str]:
    """A PUT of a large object: all its bytes, fsync, rename, fsync of the file again (for ZFS) and of the directory, the answer."""
    words = (b" 204 ", stored.md5.encode())
    answer = _answer(calls, words)
    if answer is None:
        return _no_answer(words)
    writes = [call for call in calls if _writes(stored.temporary)(call)]
    written = sum(call.result for call in writes)
    if written != stored.size_bytes:
        return [f"write {stored.size_bytes} bytes to the temporary file: {written} in the trace"]
    moves = _Chain(calls, answer.began, max(call.ended for call in writes))
    moves = moves.then("fsync of the temporary file, after its last byte", _syncs(stored.temporary))
    moves = moves.then(
        "rename to the object's name", lambda call: call.name.startswith("rename") and call.names == (stored.temporary, stored.path)
    )  # fmt: skip
    ends = [
        moves.then("fsync of the file, after its rename", _syncs(stored.path)),
        moves.then("fsync of its directory, after its rename", _syncs(stored.folder)),
    ]
    return list(dict.fromkeys(why for chain in ends for why in chain.missing)) + list(
        _folder(calls, stored, answer.began)
    )


def segment_of(calls: Sequence[Call], stored: Stored) -> str:
    """The segment that got the object's first record; empty if none did."""
    log = f"{stored.root}/log/"
    return next((c.path for c in calls if c.name in WRITES and c.path.startswith(log) and stored.in_log in c.data), "")


def small(calls: Sequence[Call], stored: Stored) -> list[str]:
    """A PUT of a small object: its segment's name lasts, its record in it, fdatasync; its file is there; the answer."""
    words = (b" 204 ", stored.md5.encode())
    answer = _answer(calls, words)
    if answer is None:
        return _no_answer(words)
    segment, log = segment_of(calls, stored), f"{stored.root}/log"
    if not segment:
        return ["write the record to the log: not in the trace"]
    start = _Chain(calls, answer.began)
    record = start.then("write of the record, before the answer", _writes(segment, stored.in_log))
    ends = [
        record.then("fdatasync of the segment, after the record's write", _syncs(segment)),
        record.then("write of the object's file", _writes(stored.path)) if stored.size_bytes else record,
        start.then("creation of the segment", _makes(segment)).then("fsync of the log's folder, after it", _syncs(log)),
    ]
    if any(_makes(log)(call) for call in calls):
        made = start.then("creation of the log's folder", _makes(log))
        ends.append(made.then("fsync of the data directory, after it", _syncs(stored.root)))
    return list(dict.fromkeys(why for chain in ends for why in chain.missing))


def deleted(calls: Sequence[Call], stored: Stored) -> list[str]:
    """A DELETE of an object that a segment holds: its last record, fdatasync, the file goes, the next 204."""
    segment = segment_of(calls, stored)
    records = [call for call in calls if segment and _writes(segment, stored.in_log)(call)]
    if len(records) < 2:
        return ["write a record of the deletion: not in the trace"]
    answer = _answer(calls, (b" 204 ",), records[-1].began)
    if answer is None:
        return _no_answer((b" 204 ",))
    record = _Chain(calls, answer.began, records[-1].ended)
    synced = record.then("fdatasync of the segment, after the record's write", _syncs(segment))
    return list(synced.then("unlink of the file", lambda c: c.name == "unlink" and c.names == (stored.path,)).missing)


def dropped(calls: Sequence[Call], stored: Stored) -> list[str]:
    """The segment of a small object went only after its file lasted: by syncfs, or by fsync of file and folder."""
    segment = segment_of(calls, stored)
    gone = next((call for call in calls if call.name == "unlink" and call.names == (segment,)), None)
    if gone is None:
        return ["unlink of the segment: not in the trace"]
    written = _Chain(calls, gone.began).then("write of the object's file", _writes(stored.path))
    whole = written.then(
        "syncfs of the data directory", lambda call: call.name == "syncfs" and call.path == stored.root
    )
    file = written.then("fsync of the object's file", _syncs(stored.path))
    folder = written.then("fsync of the object's folder", _syncs(stored.folder))
    return [] if not whole.missing else list(dict.fromkeys(file.missing + folder.missing))


def commit(calls: Sequence[Call], wal: str, offset: int, tag: bytes) -> list[str]:
    """A commit of PostgreSQL: its WAL, from `offset` of the file `wal` on, is written and synced before the answer with `tag` goes.

    Whoever of the server's processes wrote and synced it. What the answering one wrote itself has to be synced in any case.
    """
    answer = _answer(calls, (tag,))
    if answer is None:
        return _no_answer((tag,))
    writes = [call for call in calls if call.path.endswith(f"pg_wal/{wal}") and _reaches(call, offset)]
    writes = [call for call in writes if call.began < answer.began]
    if not writes:
        return [f"write of WAL beyond offset {offset} of {wal}: not before the answer in line {answer.began + 1}"]
    chains = [
        (call, _Chain(calls, answer.began, call.ended).then("fdatasync of the WAL, after its write", _syncs(call.path)))
        for call in writes
    ]
    own = [why for call, chain in chains if call.thread == answer.thread for why in chain.missing]
    if own or any(not chain.missing for _, chain in chains):
        return own
    return list(chains[-1][1].missing)


def _reaches(call: Call, offset: int) -> bool:
    """It wrote something of a file beyond the offset."""
    place = _LENGTH_AND_OFFSET.search(call.arguments)
    return call.name in WRITES and place is not None and int(place[2]) + call.result > offset
