from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobula.sandbox.accounting import RECORD_BYTES, cores


def record(flags: int, name: str) -> bytes:
    """As acct(5), version 3: flags first, the program's name last."""
    return (bytes([flags, 3]) + b"\1" * 46 + name.encode()).ljust(RECORD_BYTES, b"\0")


def test_programs_that_dumped_core_are_named_in_their_order() -> None:
    records = record(0, "true") + record(8, "sort") + record(0x10, "killed") + record(0x18, "a-name-of-15-by")
    assert cores(records) == ["sort", "a-name-of-15-by"]


def test_a_record_that_is_cut_off_is_none() -> None:
    assert cores((record(8, "a") + record(8, "b"))[:-1]) == ["a"]
    assert cores(b"") == []


@given(st.binary(max_size=300))
def test_whatever_is_in_the_file_it_is_read(records: bytes) -> None:
    assert len(cores(records)) <= len(records) // RECORD_BYTES
