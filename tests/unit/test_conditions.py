from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.conditions import Conditions, check, parse, parse_etags
from mobula.core.errors import ApiError

ETAG, OTHER = "b3c0f1de-8f5c-4a38-9d7e-1a2b3c4d5e6f", "5a0c3c1e-0000-4000-8000-000000000000"
MTIME = dt.datetime(2026, 11, 23, 2, 50, 32, 900_000, tzinfo=dt.UTC)
BEFORE, EXACTLY, AFTER = (f"Mon, 23 Nov 2026 02:50:{second} GMT" for second in (31, 32, 33))


def outcome(headers: dict[str, str], etag: str | None, *, reading: bool) -> int:
    """The status that these headers lead to: 200 go on, 304, 412."""
    try:
        unchanged = check(parse(headers.get), etag, MTIME if etag else None, reading=reading)
    except ApiError as error:
        assert error.code == "PreconditionFailed"  # noqa: PT017
        return error.status
    return 304 if unchanged else 200


@pytest.mark.parametrize(
    ("value", "etags"),
    [
        (None, None),
        (ETAG, (ETAG,)),
        (f'"{ETAG}"', (ETAG,)),
        (f'W/"{ETAG}"', (ETAG,)),
        (f"W/{ETAG}", (ETAG,)),
        (f'{ETAG}, "{OTHER}"', (ETAG, OTHER)),
        (f" {ETAG} ,W/{OTHER} ", (ETAG, OTHER)),
        ("*", ("*",)),
        ('""', ()),
        ("", ()),
    ],
)
def test_etags_are_read_bare_quoted_or_weak(value: str | None, etags: tuple[str, ...] | None) -> None:
    """Section 8."""
    assert parse_etags(value) == etags


@pytest.mark.parametrize(
    ("headers", "there", "missing"),
    [
        ({}, 200, 200),
        ({"if-match": ETAG}, 200, 412),
        ({"if-match": f'"{ETAG}"'}, 200, 412),
        ({"if-match": f"{OTHER}, {ETAG}"}, 200, 412),
        ({"if-match": OTHER}, 412, 412),
        ({"if-match": "*"}, 200, 412),
        pytest.param({"if-match": '""'}, 412, 200, id="the Manta way to create only"),
        pytest.param({"if-none-match": "*"}, 412, 200, id="the standard way to create only"),
        ({"if-none-match": ETAG}, 412, 200),
        ({"if-none-match": f'W/"{ETAG}"'}, 412, 200),
        ({"if-none-match": OTHER}, 200, 200),
        ({"if-modified-since": BEFORE}, 200, 200),
        ({"if-modified-since": EXACTLY}, 412, 200),
        ({"if-modified-since": AFTER}, 412, 200),
        ({"if-unmodified-since": BEFORE}, 412, 200),
        ({"if-unmodified-since": EXACTLY}, 200, 200),
        ({"if-unmodified-since": AFTER}, 200, 200),
        pytest.param({"if-unmodified-since": "2026-11-23 02:50:31 +0000"}, 412, 200, id="ruby's date"),
        pytest.param({"if-modified-since": "2026-11-23 02:50:31 +0000"}, 200, 200, id="ruby's date, other header"),
        ({"if-modified-since": "yesterday", "if-unmodified-since": ""}, 200, 200),
    ],
)
def test_a_write_goes_on_or_fails(headers: dict[str, str], there: int, missing: int) -> None:
    """Section 8: 412, never 304."""
    assert outcome(headers, ETAG, reading=False) == there
    assert outcome(headers, None, reading=False) == missing


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if-match": ETAG}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-none-match": ETAG}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": OTHER}, 200),
        ({"if-modified-since": BEFORE}, 200),
        ({"if-modified-since": EXACTLY}, 304),
        ({"if-unmodified-since": BEFORE}, 412),
        ({"if-unmodified-since": EXACTLY}, 200),
        # an etag is the better word of the two
        ({"if-match": ETAG, "if-unmodified-since": BEFORE}, 200),
        ({"if-none-match": OTHER, "if-modified-since": AFTER}, 200),
        ({"if-none-match": ETAG, "if-modified-since": BEFORE}, 304),
        # what fails comes before what is unchanged
        ({"if-match": OTHER, "if-none-match": ETAG}, 412),
        ({"if-match": ETAG, "if-none-match": ETAG}, 304),
    ],
)
def test_a_read_goes_on_or_fails_or_is_unchanged(headers: dict[str, str], status: int) -> None:
    """Sections 8 and 9."""
    assert outcome(headers, ETAG, reading=True) == status


_VALUES = (
    st.none() | st.text(max_size=40) | st.sampled_from([ETAG, f'"{ETAG}"', "*", '""', BEFORE, AFTER, "W/", '"', ","])
)
NAMES = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@given(st.tuples(_VALUES, _VALUES, _VALUES, _VALUES), st.sampled_from([ETAG, None]), st.booleans())
def test_whatever_comes_the_outcome_is_one_of_three(
    values: tuple[str | None, ...], etag: str | None, reading: bool
) -> None:
    headers = {name: value for name, value in zip(NAMES, values, strict=True) if value is not None}
    assert outcome(headers, etag, reading=reading) in ({200, 304, 412} if reading else {200, 412})


@given(
    st.text(st.characters(exclude_characters='",*\0', exclude_categories=["Z", "C"]), min_size=1).filter(
        lambda t: t[:2] != "W/"
    )
)
def test_an_etag_is_the_same_in_every_spelling(etag: str) -> None:
    assert {parse_etags(form.format(etag)) for form in ("{}", '"{}"', 'W/"{}"', "W/{}", ' "{}" ')} == {(etag,)}


@given(st.lists(st.sampled_from([ETAG, OTHER, "x"])))
def test_match_and_none_match_are_opposites(etags: list[str]) -> None:
    """For an object that is there, and a list that names something."""
    if etags:
        answers = {outcome({name: ", ".join(etags)}, ETAG, reading=False) for name in ("if-match", "if-none-match")}
        assert answers == {200, 412}


def test_a_failure_says_what_was_compared() -> None:
    for conditions in (Conditions(match=(OTHER,)), Conditions(none_match=(ETAG,))):
        with pytest.raises(ApiError, match=ETAG):
            check(conditions, ETAG, MTIME, reading=False)


def test_conditions_know_whether_there_are_any() -> None:
    assert not parse({}.get).any
    assert parse({"if-match": ""}.get).any
