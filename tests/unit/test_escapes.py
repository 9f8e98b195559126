"""What is typed at a terminal, and what of it is meant for mlogin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.client.escapes import Act, Escapes, help_text


def typed(*pieces: bytes, char: str = "~") -> list[bytes | Act]:
    """What they come to, bytes that follow each other together."""
    escapes, found = Escapes(char), list[bytes | Act]()
    for piece in pieces:
        for part in escapes.feed(piece):
            last = found[-1] if found else None
            if isinstance(part, bytes) and isinstance(last, bytes):
                found[-1] = last + part
            else:
                found.append(part)
    return found


@pytest.mark.parametrize(
    ("pieces", "comes_to"),
    [
        ([b"~."], [Act.END]),
        ([b"ls\r~."], [b"ls\r", Act.END]),
        ([b"ls\n~i", b"~?"], [b"ls\n", Act.INFO, Act.HELP]),
        ([b"ls ~."], [b"ls ~."]),
        ([b"~~x"], [b"~x"]),
        ([b"~~."], [b"~."]),
        ([b"~", b"/bin\r"], [b"~/bin\r"]),
        ([b"~\r~."], [b"~\r", Act.END]),
        ([b"a~\r~", b"."], [b"a~\r", Act.END]),
        ([b"~"], []),
        ([b""], []),
        ([b"\x00\xff~\r"], [b"\x00\xff~\r"]),
    ],
)
def test_escapes_begin_a_line(pieces: list[bytes], comes_to: list[bytes | Act]) -> None:
    assert typed(*pieces) == comes_to


def test_another_character_and_none() -> None:
    assert typed(b"%.", char="%") == [Act.END]
    assert typed(b"~.\r~.", char="%") == [b"~.\r~."]
    assert typed(b"~.\r~.", char="") == [b"~.\r~."]


@given(st.lists(st.sampled_from([b"~", b".", b"i", b"?", b"\r", b"\n", b"x", b"\xff"]), max_size=20))
def test_it_does_not_matter_how_keys_arrive(keys: list[bytes]) -> None:
    assert typed(*keys) == typed(b"".join(keys))


@given(st.binary(max_size=30))
def test_without_escapes_nothing_is_lost(data: bytes) -> None:
    assert b"".join(part for part in typed(data, char="") if isinstance(part, bytes)) == data


def test_help_names_the_character() -> None:
    assert "  %.  end" in help_text("%")
