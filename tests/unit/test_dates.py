from __future__ import annotations

import datetime as dt
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.dates import http_date, iso_ms, parse_date

MOMENT = dt.datetime(2026, 11, 23, 2, 50, 32, tzinfo=dt.UTC)
MOMENTS = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(9999, 12, 30), timezones=st.timezones())  # noqa: DTZ001


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Mon, 23 Nov 2026 02:50:32 GMT", id="node, python"),
        pytest.param("Mon, 23 Nov 2026 02:50:32 UTC", id="triton-go"),
        pytest.param("Sun, 22 Nov 2026 21:50:32 EST", id="gomanta"),
        pytest.param("2026-11-23 02:50:32 +0000", id="ruby"),
        pytest.param("2026-11-22 21:50:32 -0500", id="ruby, not UTC"),
        pytest.param("Monday, 23-Nov-26 02:50:32 GMT", id="RFC 850"),
        pytest.param("Mon Nov 23 02:50:32 2026", id="asctime"),
        pytest.param("2026-11-23T02:50:32Z", id="ISO 8601"),
        pytest.param("2026-11-23T02:50:32.000Z", id="a listing's mtime"),
        pytest.param("  Mon, 23 Nov 2026 02:50:32 GMT ", id="blanks"),
    ],
)
def test_dates_are_read_as_clients_write_them(text: str) -> None:
    """Sections 3, 7 and 8."""
    assert parse_date(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "0", "2026-11-23x", "2026-13-23 02:50:32 +0000", "2026-11-23T02:50:32+99:99",
        "Mon, 32 Nov 2026 02:50:32 GMT", "Mon, 23 Nov 2026 25:50:32 GMT", "Mon, 23 Nov 2026 02:50:32 +9999",
        pytest.param("Mon, 99999999999999999999 Nov 2026 02:50:32 GMT", id="a day beyond a machine word"),
        pytest.param("Mon, 23 Nov 99999999999999 02:50:32 GMT", id="a year beyond a machine word"),
        pytest.param("Mon, 23 Nov 2026 02:50:32 +99999999999999999999", id="a zone beyond a machine word"),
        pytest.param("9999-12-31T23:59:59-05:00", id="after the last year"),
        pytest.param("0001-01-01T00:00:00+05:00", id="before the first year"),
    ],
)  # fmt: skip
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_date(text) is None


_DAYS, _NUMBERS = st.sampled_from(["Mon, ", "Monday, ", "Mon ", ""]), st.integers(0).map(str) | st.text("0123456789")
_ZONES = st.sampled_from(["GMT", "UTC", "Z", "EST", "", "x", "é"]) | st.integers().map("{:+d}".format)
NEARLY_DATES = st.one_of(
    st.builds("{}{} Nov {} {}:{}:{} {}".format, _DAYS, *[_NUMBERS] * 5, _ZONES),
    st.builds("{}-{}-{} {}:{}:{} {}".format, *[_NUMBERS] * 6, _ZONES),
    st.from_regex(r"\d{4}-\d\d-\d\d[T ].*"),
)


@given(st.text(max_size=120) | NEARLY_DATES)
def test_whatever_comes_a_date_is_one_that_can_be_written_or_none(text: str) -> None:
    found = parse_date(text)
    if found is not None:
        assert found.utcoffset() == dt.timedelta(0)
        assert iso_ms(found)
        assert http_date(found)


@given(MOMENTS)
def test_a_date_that_is_written_is_read_again(moment: dt.datetime) -> None:
    assert parse_date(http_date(moment)) == moment.astimezone(dt.UTC).replace(microsecond=0)
    assert parse_date(iso_ms(moment)) == moment.astimezone(dt.UTC).replace(
        microsecond=moment.microsecond // 1000 * 1000
    )


def test_dates_are_written_in_one_form_each() -> None:
    local = dt.datetime(2026, 11, 23, 3, 50, 32, 7_999, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert http_date(local) == "Mon, 23 Nov 2026 02:50:32 GMT"
    assert iso_ms(local) == "2026-11-23T02:50:32.007Z"


@given(MOMENTS, st.sampled_from(["GMT", "UTC", "-0500"]))
def test_a_date_is_written_and_read_as_the_standard_library_does(moment: dt.datetime, zone: str) -> None:
    text = email.utils.format_datetime(moment.astimezone(dt.UTC).replace(microsecond=0), usegmt=True)
    assert http_date(moment) == text
    found = parse_date(text.replace("GMT", zone))
    assert found == email.utils.parsedate_to_datetime(text.replace("GMT", "GMT" if zone == "UTC" else zone))
