from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.capability import CapabilityRefused, Grant, parse_key, sign, verify

OLD, NEW = b"a" * 32, b"b" * 32
GRANT = Grant("PUT", "0b0e7c8e-8f5c-4a38-9d7e-1a2b3c4d5e6f", 10, 2_000, "lab-a-api-01")


def test_a_capability_lets_through_just_what_it_names() -> None:
    header = sign(NEW, GRANT)
    assert verify([NEW], header, "PUT", GRANT.object_id, 10, now_s=1_999) == GRANT
    for method, object_id, size in (
        ("GET", GRANT.object_id, 10),
        ("PUT", "other", 10),
        ("PUT", GRANT.object_id, 11),
        ("PUT", GRANT.object_id, None),
    ):
        with pytest.raises(CapabilityRefused):
            verify([NEW], header, method, object_id, size, now_s=1_999)


def test_a_capability_ends() -> None:
    with pytest.raises(CapabilityRefused, match="expired 1 s ago"):
        verify([NEW], sign(NEW, GRANT), "PUT", GRANT.object_id, 10, now_s=2_001)


def test_keys_rotate() -> None:
    assert verify([NEW, OLD], sign(OLD, GRANT), "PUT", GRANT.object_id, 10, now_s=0) == GRANT
    for keys in ([NEW], []):
        with pytest.raises(CapabilityRefused):
            verify(keys, sign(OLD, GRANT), "PUT", GRANT.object_id, 10, now_s=0)


def test_the_form_on_the_wire_stays_as_it_is() -> None:
    """Two releases run side by side during an upgrade."""
    grant = Grant("GET", "id", None, 7, "me")
    assert grant.text() == b"1\nGET\nid\n-\n7\nme"
    # echo -n the text above | openssl dgst -sha256 -mac HMAC -macopt key:aaaa...
    assert sign(OLD, grant) == "1;7;me;e81287ccd4569fcaba406b7e107f0003b282cd32791a70ec51ed0d3b1093b4af"


def test_a_caller_that_would_break_the_form_is_refused() -> None:
    with pytest.raises(ValueError, match="caller"):
        sign(OLD, Grant("GET", "id", None, 7, "a;b"))


@given(st.text(max_size=200) | st.none())
def test_garbage_is_refused_and_nothing_else_is_raised(header: str | None) -> None:
    with pytest.raises(CapabilityRefused):
        verify([OLD], header, "GET", "id", 1, now_s=0)


def test_a_key_file_holds_64_hex_digits() -> None:
    assert parse_key("ab" * 32 + "\n") == b"\xab" * 32
    for text in ("", "ab" * 31, "zz" * 32):
        with pytest.raises(ValueError, match="64 hex digits"):
            parse_key(text)
