from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.images import RANGE_CHARS_MAX, newest

HERE = ("1.0.0", "1.2.10", "1.2.9", "2.0.1", "0.9.0")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("*", "2.0.1"), ("x", "2.0.1"), ("1", "1.2.10"), ("1.x", "1.2.10"), ("1.0.x", "1.0.0"), ("v1.0.0", "1.0.0"), ("=1.0.0", "1.0.0"),
        ("~1.2.0", "1.2.10"), ("~> 1.2", "1.2.10"), ("~1", "1.2.10"), ("^1.0.0", "1.2.10"), ("^0.9", "0.9.0"),
        (">=1.2.9 <1.2.10", "1.2.9"), (" >= 1.2.9   < 1.2.10 ", "1.2.9"), ("<1", "0.9.0"), ("<=1.0", "1.0.0"), ("> 2", None),
        ("0.1 - 1.1", "1.0.0"), ("3 || 1.0", "1.0.0"), ("2 || 1", "2.0.1"),
        ("3", None), ("^2.1", None), ("1.0.1", None), ("~1.1", None),
        ("latest", None), ("1.0.0.0", None), ("a - b", None), ("1 - 2 - 3", None), ("==1", None), ("01", None), ("\0", None), ("€", None),
    ],
)  # fmt: skip
def test_the_newest_version_in_a_range_is_meant(wanted: str, found: str | None) -> None:
    assert newest(wanted, HERE) == found


def test_of_no_version_none_is_meant() -> None:
    assert newest("*", ()) is None


def test_a_range_that_nobody_would_write_is_none() -> None:
    assert newest(" || ".join(["1"] * RANGE_CHARS_MAX), HERE) is None
    assert newest("9" * RANGE_CHARS_MAX, HERE) is None


@given(st.text("0123456789.xX*<>=~^|- v+ab€\0", max_size=40) | st.text(max_size=300))
def test_whatever_is_asked_for_is_here_or_is_not(wanted: str) -> None:
    assert newest(wanted, HERE) in {None, *HERE}
