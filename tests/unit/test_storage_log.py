"""The form of a log segment."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from mobula.storage.log import HEAD_BYTES, Kind, Record, encode, scan

IDS = st.binary(min_size=16, max_size=16)
STORED = st.builds(
    lambda account, object_id, md5, body: Record(Kind.STORED, account, object_id, len(body), md5, body),
    IDS, IDS, IDS, st.binary(max_size=60),
)  # fmt: skip
DELETED = st.builds(lambda a, o, m, size: Record(Kind.DELETED, a, o, size, m), IDS, IDS, IDS, st.integers(0, 65_536))
RECORDS = st.lists(STORED | DELETED, max_size=6)


def segment(number: int, records: list[Record]) -> bytes:
    return b"".join(b"".join(encode(number, record)) for record in records)


@given(RECORDS, st.binary(max_size=HEAD_BYTES - 1))
def test_what_was_written_is_read_whatever_little_follows(records: list[Record], tail: bytes) -> None:
    assert list(scan(7, segment(7, records) + tail)) == records


@given(RECORDS, STORED | DELETED, st.data())
def test_a_record_that_was_cut_off_ends_the_segment(records: list[Record], last: Record, data: st.DataObject) -> None:
    whole = segment(7, [*records, last])
    cut = data.draw(st.integers(len(segment(7, records)), len(whole) - 1))
    assert list(scan(7, whole[:cut])) == records


@given(RECORDS, STORED | DELETED, RECORDS, st.data())
def test_a_damaged_record_ends_the_segment(
    records: list[Record], damaged: Record, later: list[Record], data: st.DataObject
) -> None:
    begin = len(segment(7, records))
    end = begin + len(segment(7, [damaged]))
    found = bytearray(segment(7, [*records, damaged, *later]))
    found[data.draw(st.integers(begin, end - 1))] ^= data.draw(st.integers(1, 255))
    assert list(scan(7, bytes(found))) == records


@given(RECORDS, RECORDS)
def test_records_of_another_segment_do_not_count(records: list[Record], stale: list[Record]) -> None:
    """A crash may leave the blocks of an older file at the end of a new one."""
    assert list(scan(7, segment(7, records) + segment(6, stale))) == records


@given(st.binary(max_size=300))
def test_whatever_the_bytes_a_scan_ends(data: bytes) -> None:
    assert all(len(record.body) in {0, record.size_bytes} for record in scan(1, data))


def test_ids_are_text_again() -> None:
    record = Record(Kind.DELETED, bytes(range(16)), os.urandom(16), 3, os.urandom(16))
    assert record.names[0] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
