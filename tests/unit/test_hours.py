"""Hours as usage is metered by."""

from __future__ import annotations

import pytest

from mobula.core.hours import hour_of, name_of, parse, path_of


def test_an_hour_has_a_number_a_name_and_a_path() -> None:
    hour = hour_of(1_795_842_345.9)  # 2026-11-28 05:05:45.9 UTC
    assert (name_of(hour), path_of(hour)) == ("2026-11-28T05", "2026/11/28/05/h05.json")
    assert parse("2026-11-28T05") == hour == hour_of(hour * 3600) == hour_of(hour * 3600 + 3599.9)


@pytest.mark.parametrize("text", ["", "2026-11-28", "2026-11-28T24", "2026-11-28T05:00", "now", "2026-13-01T00"])
def test_what_is_no_hour_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="an hour is a date and two digits, in UTC"):
        parse(text)
