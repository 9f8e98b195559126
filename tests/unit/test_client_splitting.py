"""How msplit finds a line's key, and the reducer of a key."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.client.commands.command import UsageError
from mobula.client.commands.msplit import BadLine, index_of, key_of, lines_of, reducer_of, reducers, text_of


@pytest.mark.parametrize(
    ("key", "count", "reducer"),
    # MD5 begins with d41d8cd9, 0cc175b9, 90015098: 3558706393, 214005177, 2416005272
    [(b"", 4, 1), (b"", 10, 3), (b"a", 4, 1), (b"a", 10, 7), (b"abc", 4, 0), (b"abc", 10, 2), (b"abc", 1, 0)],
)
def test_the_reducer_is_the_md5s_first_32_bits_modulo_their_number(key: bytes, count: int, reducer: int) -> None:
    assert reducer_of(key, count) == reducer


@given(st.binary(), st.integers(1, 128))
def test_as_the_contract_words_it(key: bytes, count: int) -> None:
    assert reducer_of(key, count) == int(hashlib.md5(key, usedforsecurity=False).hexdigest()[:8], 16) % count


@pytest.mark.parametrize(
    ("fields", "delimiter", "line", "key"),
    [(None, "\t", b"a\tb", b"a\tb"), (["2"], "\t", b"a\tb\tc", b"b"), (["3", "1"], "\t", b"a\tb\tc", b"c\ta"),
     (["1", "9", "2"], "\t", b"a\tb", b"a\tb"), (["9"], "\t", b"a", b""), (["1", "2"], ", ", b"x, y, z", b"x, y"),
     (["1"], "\t", b"\xff\tb", b"\xff")],
)  # fmt: skip
def test_a_key_is_the_fields_that_a_line_has(fields: list[str] | None, delimiter: str, line: bytes, key: bytes) -> None:
    assert key_of(fields, delimiter, json_lines=False)(line) == key


@pytest.mark.parametrize(
    ("fields", "line", "key"),
    [(["a"], b'{"a": "x"}', b"x"), (["a.b", "c"], b'{"a": {"b": 1}, "c": 2.5}', b"1\t2.5"), (["a.b", "c"], b'{"a": 3, "c": true}', b"true"),
     (["a"], b"[1]", b""), (["a", "b"], b'{"a": null, "b": {"x": [1, 2]}}', b'null\t{"x":[1,2]}'),
     (["a"], '{"a": "ü"}'.encode(), "ü".encode())],
)  # fmt: skip
def test_a_key_of_json_is_the_values_at_its_names(fields: list[str], line: bytes, key: bytes) -> None:
    assert key_of(fields, "\t", json_lines=True)(line) == key


def test_values_are_written_as_javascript_writes_them() -> None:
    assert [text_of(value) for value in ("x", 1, 1.0, 0.1, True, False)] == ["x", "1", "1", "0.1", "true", "false"]


def test_an_index_is_a_reducers_number() -> None:
    assert [index_of(text, 3) for text in (b"0", b" 2 ", b"01")] == [0, 2, 1]
    for text in (b"3", b"-1", b"", b"x", b"\xb2", b"9" * 999):
        with pytest.raises(BadLine):
            index_of(text, 3)


@pytest.mark.parametrize(("fields", "delimiter"), [(["0"], "\t"), (["a"], "\t"), ([""], "\t"), (["1"], "")])
def test_what_can_be_no_key_is_said(fields: list[str], delimiter: str) -> None:
    with pytest.raises(UsageError):
        key_of(fields, delimiter, json_lines=False)


def test_a_line_that_is_no_json_is_said() -> None:
    key = key_of(["a"], "\t", json_lines=True)
    for line in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(BadLine):
            key(line)


def test_lines_and_numbers_of_reducers() -> None:
    assert list(lines_of([b"a\n", b"\n", b"b\r\n", b"c"])) == [b"a", b"", b"b\r", b"c"]
    assert [reducers(text) for text in ("1", "128")] == [1, 128]
    for text in ("0", "129", "x"):
        with pytest.raises(ValueError, match=text):
            reducers(text)
