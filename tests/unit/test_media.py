from __future__ import annotations

import contextlib
import mimetypes
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core import media
from mobula.core.errors import ApiError

LATIN = st.text(st.characters(codec="latin-1"), max_size=60)
"""what a header's value may be, once it is decoded"""


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (None, "application/octet-stream"),
        ("", "application/octet-stream"),
        (" ", "application/octet-stream"),
        ("text/plain", "text/plain"),
        ("Text/Plain; Charset=UTF-8", "Text/Plain; Charset=UTF-8"),
        ("x/y", "x/y"),
        ("jpg", "image/jpeg"),
        ("JPG", "image/jpeg"),
        (".jpg", "image/jpeg"),
        ("photo.jpg", "image/jpeg"),
        ("my holidays/photo.jpg", "image/jpeg"),
        ("/demo/stor/data.json", "application/json"),
        ("html", "text/html"),
        ("no-such-extension", "application/octet-stream"),
        ("/", "application/octet-stream"),
        ("~~/stor", "~~/stor"),
    ],
)
def test_a_type_is_kept_and_a_file_name_is_looked_up(sent: str | None, stored: str) -> None:
    """Section 8."""
    assert media.content_type(sent) == stored


@pytest.fixture
def names_are_urls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in Python 3.13, whose guess_type parses a name as a URL first."""
    guess = mimetypes.guess_type

    def guess_type(url: str, strict: bool = True) -> tuple[str | None, str | None]:
        urlsplit(url)
        return guess(url, strict)

    with monkeypatch.context() as patch:
        patch.setattr(mimetypes, "guess_type", guess_type)
        yield


@pytest.mark.parametrize("sent", ["//[.jpg", "//[", "x://[/a.jpg"])
def test_a_file_name_is_no_url(sent: str, names_are_urls: None) -> None:
    assert media.content_type(sent) in {"image/jpeg", "application/octet-stream"}


@given(LATIN)
def test_whatever_comes_the_stored_type_is_one(value: str) -> None:
    assert "/" in media.content_type(value)
    assert media.content_type(media.content_type(value)) == media.content_type(value)


@pytest.mark.parametrize(
    ("value", "directory", "link"),
    [
        ("application/json; type=directory", True, False),
        ("application/json;type=directory", True, False),
        ('Application/JSON ; charset=utf-8; Type = "directory"', True, False),
        ("application/json; type=link", False, True),
        ("application/json", False, False),
        ("application/json; type=directories", False, False),
        ("text/plain; type=directory", False, False),
        ("application/x-json-stream; type=directory", False, False),
        (None, False, False),
    ],
)
def test_a_directory_and_a_link_are_told_by_their_type(value: str | None, directory: bool, link: bool) -> None:
    """Sections 7 and 10."""
    assert (media.is_directory_type(value), media.is_link_type(value)) == (directory, link)


@given(LATIN)
def test_whatever_comes_it_is_not_both(value: str) -> None:
    assert not (media.is_directory_type(value) and media.is_link_type(value))
    media.is_link_type(f"application/json;{value}")


@pytest.mark.parametrize(
    ("accept", "stored", "answer"),
    [
        (None, "image/png", True),
        ("", "image/png", True),
        ("*/*", "image/png", True),
        ("image/*", "image/png", True),
        ("IMAGE/PNG", "image/png", True),
        ("text/html, image/png;q=0.5", "image/png; x=y", True),
        ("application/json, */*", "image/png", True),
        ("image/png;q=0", "image/png", False),
        ("text/html", "image/png", False),
        ("image/jpeg", "image/png", False),
        ("~1.0", "image/png", False),
    ],
)
def test_a_stored_type_meets_what_is_accepted_or_not(accept: str | None, stored: str, answer: bool) -> None:
    """Section 9."""
    assert media.acceptable(accept, stored) is answer


@given(LATIN, LATIN)
def test_whatever_is_accepted_all_types_are_part_of_everything(accept: str, kind: str) -> None:
    stored = media.content_type(kind)
    media.acceptable(accept, stored)
    assert media.acceptable(f"{accept},*/*", stored)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("attachment", "attachment"),
        ("INLINE ;", "inline"),
        ("Attachment; FileName=a.txt", 'attachment; filename="a.txt"'),
        ('attachment; filename="a b.txt"; size=7', 'attachment; filename="a b.txt"; size="7"'),
        ('attachment; filename="../../etc/passwd"', 'attachment; filename="passwd"'),
        (r'attachment; filename="C:\\dir\\a.txt"', 'attachment; filename="a.txt"'),
        (r'attachment; filename="say \"hi\".txt"', r'attachment; filename="say \"hi\".txt"'),
        ('attachment; name="a/b"', 'attachment; name="a/b"'),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt", "attachment; filename*=UTF-8''%E2%82%AC.txt"),
        ("attachment; filename*=iso-8859-1'en'%A3.txt; x=y", "attachment; filename*=UTF-8''%C2%A3.txt; x=\"y\""),
        ("attachment; filename*=UTF-8''..%2F..%2Fpasswd", "attachment; filename*=UTF-8''passwd"),
        ("attachment; filename*=\"UTF-8''a%20b\"", "attachment; filename*=UTF-8''a%20b"),
    ],
)
def test_a_disposition_is_parsed_and_written_again(sent: str, stored: str) -> None:
    """Section 8."""
    assert media.disposition(sent) == stored


@pytest.mark.parametrize(
    "value",
    [
        "", ";", "a b", "attachment; x", "attachment; x=", "attachment; =x", 'attachment; x="', 'attachment; x="a" b', "é", "a;;",
        "a; filename*=x", "a; filename*=UTF-8''%ff", "a; filename*=UTF-8''%2", "a; filename*=latin-9''x",
        "a; filename*=i\u017fo-8859-1''x", 'a; x="\r\nSet-Cookie: y"', 'a; x="\\\n"', 'a; x="\0"',
    ],
)  # fmt: skip
def test_a_disposition_that_cannot_be_parsed_is_refused(value: str) -> None:
    """Section 6: 400 BadRequestError."""
    with pytest.raises(ApiError, match="can't be parsed") as refused:
        media.disposition(value)
    assert (refused.value.status, refused.value.code) == (400, "BadRequestError")


_PARTS = st.sampled_from(
    ["attachment", ";", " ", "filename", "filename*", "=", '"', "\\", "a/b", "UTF-8''", "%2F", "%", "\xe9"]
)


@given(LATIN | st.lists(_PARTS, max_size=12).map("".join))
def test_whatever_comes_a_disposition_stays_what_it_was_made(value: str) -> None:
    with contextlib.suppress(ApiError):
        stored = media.disposition(value)
        assert media.disposition(stored) == stored


def test_a_directory_keeps_some_headers_and_an_object_one_more() -> None:
    """Sections 7 and 8."""
    sent = [
        ("M-Color", "red"), ("m-", "no name"), ("m-a.b", "no word"), ("Cache-Control", "no-cache"), ("Surrogate-Key", "k"),
        ("Access-Control-Max-Age", "7"), ("Access-Control-Request-Method", "PUT"), ("Content-Type", "text/plain"),
        ("Content-Disposition", "INLINE"), ("X-Other", "x"),
    ]  # fmt: skip
    kept = {"m-color": "red", "cache-control": "no-cache", "surrogate-key": "k", "access-control-max-age": "7"}
    assert media.kept_headers(sent, directory=True) == kept
    assert media.kept_headers(sent, directory=False) == kept | {"content-disposition": "inline"}


def test_a_disposition_of_a_directory_is_ignored_even_if_it_is_none() -> None:
    assert media.kept_headers([("content-disposition", "")], directory=True) == {}
    with pytest.raises(ApiError):
        media.kept_headers([("content-disposition", "")], directory=False)


def test_custom_headers_past_their_limit_are_dropped() -> None:
    """Section 8: silently, not refused."""
    sent = [("m-a", "x" * 4000), ("m-b", "x" * 96), ("m-c", "x"), ("cache-control", "y" * 4000)]
    assert media.kept_headers(sent, directory=False).keys() == {"m-a", "m-b", "cache-control"}


def test_the_limit_of_custom_headers_is_in_bytes_as_received() -> None:
    """Section 14: 4096 bytes. A header's value arrives as one character a byte, whatever the client wrote."""
    value = ("\u043c" * 2048).encode().decode("latin-1")
    assert media.kept_headers([("m-a", value)], directory=False) == {"m-a": value}
    assert media.kept_headers([("m-a", value + "x")], directory=False) == {}


STORED = {
    "access-control-allow-origin": "http://a, http://b", "access-control-allow-methods": "GET, head",
    "access-control-allow-headers": "x-h", "access-control-expose-headers": "x-e", "access-control-max-age": "7",
    "m-color": "red",
}  # fmt: skip
PUBLIC = STORED | {"access-control-allow-origin": "*"}


def test_without_an_origin_the_stored_cors_headers_are_answered() -> None:
    """Section 9: verbatim."""
    assert media.cors_on_read(STORED, None, "GET") == {n: v for n, v in STORED.items() if n != "m-color"}
    assert media.cors_on_read({"m-color": "red"}, "http://a", "GET") == {}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("stored", "origin"), [(STORED, "http://b"), (PUBLIC, "http://c")])
def test_an_origin_that_is_allowed_is_told_so(stored: dict[str, str], origin: str, method: str) -> None:
    """Section 9: max-age and allow-headers are for preflights."""
    assert media.cors_on_read(stored, origin, method) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, head",
        "access-control-expose-headers": "x-e",
    }


@pytest.mark.parametrize(
    ("origin", "method"),
    [("http://c", "GET"), ("http://a", "PUT"), ("http", "GET"), ("http://a, http://b", "GET"), ("*", "GET")],
)
def test_an_origin_or_a_method_that_is_not_allowed_is_told_nothing(origin: str, method: str) -> None:
    assert media.cors_on_read(STORED, origin, method) == {}
