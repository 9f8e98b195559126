"""The checker of traces: recorded ones, and each way to spoil a good one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests import syscalls
from tests.syscalls import Call, Stored

HERE = Path(__file__).parent / "strace"
ACCOUNT = "930896af-bf8c-48d4-885c-6573a94b1853"


def stored(object_id: str, size_bytes: int, md5: str) -> Stored:
    return Stored("/tank/objects", ACCOUNT, object_id, size_bytes, md5)


LARGE = stored("633e4ed9-9c26-446a-a927-da3238a88907", 200_000, "51765730d9558d7a213746ae5780fae8")
SMALL = stored("c8307f0f-c520-4d2e-9784-f9dcf1685114", 300, "7b72a91460fa0749da575cc268cb1492")
LARGE_UNSYNCED = stored("311c00ee-e700-4dfa-acf8-ff30716650bf", 200_000, "390a0ab1e628bed15baf4606bc075944")
SMALL_UNSYNCED = stored("eeaaf87e-fd1a-44a8-b5a6-7700b1d0ebd8", 300, "d4ce4c33c76a3d3832edcf9b895649dc")
WAL, OFFSET, TAG = "000000010000000000000001", 7_776_672, b"INSERT 0 3\0"


def recorded(name: str) -> str:
    return (HERE / f"{name}.txt").read_text(encoding="latin-1")


def find(trace: str, pattern: str) -> tuple[int, int]:
    """Where the lines begin and end that have a pattern's first match."""
    match = re.search(pattern, trace)
    assert match, f"{pattern} is not in the trace"
    return trace.rfind("\n", 0, match.start()) + 1, trace.index("\n", match.end()) + 1


def without(trace: str, pattern: str) -> str:
    begin, end = find(trace, pattern)
    return trace[:begin] + trace[end:]


STORAGE, POSTGRESQL = recorded("storage"), recorded("postgresql")
# A later fsync of the data directory, for the account's folder, would do for the log's folder, too.
LOG_FIRST = without(STORAGE, r"fsync\(16</tank/objects>")

Check = Callable[[Sequence[Call]], list[str]]


def commit(calls: Sequence[Call]) -> list[str]:
    return syscalls.commit(calls, WAL, OFFSET, TAG)


LAST_SYNC = r"fdatasync\(15<(?!.*\n(?:.*\n)*.*fdatasync)"
CHECKS: dict[str, tuple[str, Check, list[str]]] = {
    # the trace; the check; what each of the lines that it rests on has in it, in their order, the answer last
    "large": (STORAGE, lambda calls: syscalls.large(calls, LARGE), [
        r'write\(15<\S+/tmp/633e4ed9-\S+>, "\$', r'write\(15<\S+/tmp/633e4ed9-\S+>, "\\364', r"fsync\(15<\S+/tmp/", r"rename\(.* = 0",
        r"fsync\(15<\S+\.200000\.", rf"fsync\(16<\S+/{ACCOUNT}>", r"write\(14<TCP.*size: 200000",
    ]),
    "large, of a new account": (STORAGE, lambda calls: syscalls.large(calls, LARGE), [
        rf'mkdir\("\S+/{ACCOUNT}"', r"fsync\(16</tank/objects>", r"write\(14<TCP.*size: 200000",
    ]),
    "small": (STORAGE, lambda calls: syscalls.small(calls, SMALL), [
        r'write\(15<\S+/log/1>, "MbL1\(', r"fdatasync\(15<", r"write\(16<\S+\.300\.", r"write\(14<TCP.*size: 300",
    ]),
    "small, first of its segment": (STORAGE, lambda calls: syscalls.small(calls, SMALL), [
        r'openat\(.*/log/1"', r"fsync\(16<\S+/log>", r"write\(14<TCP.*size: 300",
    ]),
    "small, first of all": (LOG_FIRST, lambda calls: syscalls.small(calls, SMALL), [
        r'mkdir\("\S+/log"', r"fsync\(14</tank/objects>", r"write\(14<TCP.*size: 300",
    ]),
    "deleted": (STORAGE, lambda calls: syscalls.deleted(calls, SMALL), [
        r'write\(15<\S+/log/1>, "MbL1\)', LAST_SYNC, r'unlink\("\S+\.300\.', r"write\(14<TCP.*Content\\r\\nDate",
    ]),
    "dropped": (STORAGE, lambda calls: syscalls.dropped(calls, SMALL), [
        r"write\(16<\S+\.300\.", r"syncfs\((?:.*\n.*)resumed>", r'unlink\("/tank/objects/log/1"',
    ]),
    "commit": (POSTGRESQL, commit, [r"pwrite64\(39<\S+/pg_wal/", r"fdatasync\(39<", r"sendto\(.*INSERT 0 3"]),
}  # fmt: skip


@pytest.mark.parametrize("what", CHECKS)
def test_a_right_trace_is_right(what: str) -> None:
    trace, check, _ = CHECKS[what]
    assert check(syscalls.parse(trace)) == []


@pytest.mark.parametrize(
    ("what", "step"), [(what, step) for what, (_, _, steps) in CHECKS.items() for step in steps[1:]]
)
def test_without_a_step_it_is_wrong(what: str, step: str) -> None:
    trace, check, _ = CHECKS[what]
    begin, end = find(trace, step)
    assert check(syscalls.parse(trace[:begin] + trace[end:]))
    if "unfinished" not in trace[begin:end]:
        failed = re.sub(r" = \d+.*\n$", " = -1 EIO (Input/output error)\n", trace[begin:end])
        assert failed != trace[begin:end]
        assert check(syscalls.parse(trace[:begin] + failed + trace[end:]))


@pytest.mark.parametrize(
    ("what", "step"), [(what, step) for what, (_, _, steps) in CHECKS.items() for step in steps[:-1]]
)
def test_a_step_that_begins_after_the_answer_is_missing(what: str, step: str) -> None:
    trace, check, steps = CHECKS[what]
    begin, end = find(trace, step)
    late, rest = trace[begin:end], trace[:begin] + trace[end:]
    _, after = find(rest, steps[-1])
    assert check(syscalls.parse(rest[:after] + late + rest[after:]))


@pytest.mark.parametrize(
    ("what", "step"), [(what, step) for what, (_, _, steps) in CHECKS.items() for step in steps[:-1]]
)
def test_a_step_that_has_not_ended_when_the_answer_begins_is_missing(what: str, step: str) -> None:
    trace, check, steps = CHECKS[what]
    begin, end = find(trace, step)
    line = trace[begin:end]
    if "unfinished" in line:
        begun, over = line.splitlines(keepends=True)
    else:
        match = re.fullmatch(r"(\d+)( +)((\w+)\(.*)(\) += .*\n)", line)
        assert match
        begun, over = (
            f"{match[1]}{match[2]}{match[3]} <unfinished ...>\n",
            f"{match[1]}{match[2]}<... {match[4]} resumed>{match[5]}",
        )
    rest = trace[:begin] + begun + trace[end:]
    _, after = find(rest, steps[-1])
    assert check(syscalls.parse(rest[:after] + over + rest[after:]))


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [(what, a, b) for what, (_, _, steps) in CHECKS.items() for a, b in pairwise(steps[:-1])],
)
def test_two_steps_in_the_wrong_order_are_wrong(what: str, first: str, second: str) -> None:
    independent = {r'write\(15<\S+/tmp/633e4ed9-\S+>, "\$', r"fsync\(15<\S+\.200000\.", r"fdatasync\(15<"}
    trace, check, _ = CHECKS[what]
    (a, b), (c, d) = find(trace, first), find(trace, second)
    wrong = check(syscalls.parse(trace[:a] + trace[c:d] + trace[b:c] + trace[a:b] + trace[d:]))
    assert bool(wrong) is (first not in independent), wrong


def test_servers_that_do_not_sync_are_seen() -> None:
    calls = syscalls.parse(recorded("storage-without-sync"))
    assert [why.partition(":")[0] for why in syscalls.large(calls, LARGE_UNSYNCED)] == [
        "fsync of the temporary file, after its last byte",
        "fsync of the data directory, after the account's folder was made",
    ]
    assert [why.partition(":")[0] for why in syscalls.small(calls, SMALL_UNSYNCED)] == [
        "fdatasync of the segment, after the record's write",
        "fsync of the log's folder, after it",
        "fsync of the data directory, after it",
    ]
    assert "fdatasync of the segment" in syscalls.deleted(calls, SMALL_UNSYNCED)[0]
    assert "fdatasync of the WAL" in commit(syscalls.parse(recorded("postgresql-without-sync")))[0]


def test_an_answer_that_is_not_in_the_trace_is_no_proof() -> None:
    for what, (_, check, _) in CHECKS.items():
        assert "not in the trace" in check([])[0], what


def test_wal_that_another_process_syncs_counts_and_ones_own_unsynced_does_not() -> None:
    trace = POSTGRESQL
    begin, end = find(trace, r"fdatasync\(39<")
    other = re.sub(r"^\d+", "4711", trace[begin:end])
    assert commit(syscalls.parse(trace[:begin] + other + trace[end:])) == []
    write = re.sub(r"^\d+", "4711", trace[slice(*find(trace, r"pwrite64\(39<"))])
    assert commit(syscalls.parse(trace[:end] + write + trace[end:])) == [], "somebody else's next record"
    write = trace[slice(*find(trace, r"pwrite64\(39<"))]
    assert "fdatasync of the WAL" in commit(syscalls.parse(trace[:end] + write + trace[end:]))[0]


def test_a_segment_may_go_after_an_fsync_of_each_file_and_its_folder() -> None:
    begin, end = find(STORAGE, r"syncfs\((?:.*\n.*)resumed>")
    file, folder = (f"7747  fsync(12<{path}>) = 0\n" for path in (SMALL.path, SMALL.folder))
    for lines, right in ((file + folder, True), (file, False), (folder, False), (file + file, False)):
        wrong = syscalls.dropped(syscalls.parse(STORAGE[:begin] + lines + STORAGE[end:]), SMALL)
        assert (wrong == []) is right, wrong


def test_wal_of_before_says_nothing() -> None:
    calls = syscalls.parse(POSTGRESQL)
    assert "write of WAL" in syscalls.commit(calls, WAL, 8_000_000, TAG)[0]
    assert "write of WAL" in syscalls.commit(calls, "000000010000000000000002", 0, TAG)[0]


@pytest.mark.parametrize(
    "line",
    [
        "", "# 1 fsync(3</a>) = 0", "fsync(3</a>) = 0", "7  fsync(3</a>) = -1 EIO (Input/output error)", "7  fsync(3</a>) = ?",
        "7  fsync(3</a> <unfinished ...>", "7  <... fsync resumed>) = 0", "7  +++ exited with 0 +++",
        "7  --- SIGTERM {si_signo=SIGTERM} ---",
        "7  fsync(3</a> <unfinished ...>\n7  <... write resumed>) = 0", "7  fsync(3</a> <unfinished ...>\n8  <... fsync resumed>) = 0",
    ],
)  # fmt: skip
def test_what_is_no_call_that_ended_well_is_passed_over(line: str) -> None:
    assert syscalls.parse(f"{line}\n") == []


def test_a_call_is_read_with_its_thread_path_data_and_result() -> None:
    trace = '7  write(3</a b>, "x\\n\\0\\3771) = 3\\"", 8 <unfinished ...>\n8  fsync(4</c>(deleted)) = 0\n7  <... write resumed>)   = 8\n'
    write, sync = syscalls.parse(trace)
    assert (write.thread, write.name, write.began, write.ended, write.result) == (7, "write", 0, 2, 8)
    assert (write.path, write.data, write.on_socket) == ("/a b", b'x\n\0\xff1) = 3"', False)
    assert (sync.began, sync.ended, sync.path, sync.result) == (1, 1, "/c", 0)
    (send,) = syscalls.parse(
        '9  writev(5<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="ab", iov_len=2}, {iov_base="c", iov_len=1}], 2) = 3'
    )
    assert (send.path, send.data, send.on_socket) == ("TCP:[127.0.0.1:1->127.0.0.1:2]", b"abc", True)
