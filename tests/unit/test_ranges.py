from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.ranges import ByteRange, RangeNotSatisfiable, SeveralRanges, parse_range


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-", 2, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-99", 0, 9),
        ("bytes=4-10", 4, 9),  # what a client that resumes asks for: one beyond the end
        ("bytes = 1 - 2 ", 1, 2),
    ],
)
def test_a_range_of_ten_bytes(header: str, first: int, last: int) -> None:
    assert parse_range(header, 10) == ByteRange(first, last)


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=-0", "bytes=3-2", "bytes=a-b", "bytes=-", "lines=1-2", "", "bytes=1"]
)
def test_a_range_that_cannot_be_served_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 10)


def test_an_empty_object_has_no_ranges() -> None:
    for header in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, 0)


def test_several_ranges_are_not_supported() -> None:
    with pytest.raises(SeveralRanges):
        parse_range("bytes=0-1,3-4", 10)


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}", fullmatch=True), st.integers(0, 50))
def test_whatever_comes_a_range_lies_inside_the_object(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except (RangeNotSatisfiable, SeveralRanges):
        return
    assert 0 <= found.first <= found.last < size
    assert found.content_range(size) == f"bytes {found.first}-{found.last}/{size}"
