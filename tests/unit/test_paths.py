from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.paths import NAME_BYTES_MAX, PATH_BYTES_MAX, InvalidPath, Path, encode, parse

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"/demo", ()),
        (b"/demo/", ()),
        (b"/demo/stor/a", ("stor", "a")),
        (b"//demo///stor//a//", ("stor", "a")),
        (b"/demo/stor/a%20b", ("stor", "a b")),
        (b"/demo/stor/100%25", ("stor", "100%")),
        (b"/demo/stor/!'()*~", ("stor", "!'()*~")),
        (b"/demo/stor/a=b&c+d;e", ("stor", "a=b&c+d;e")),
        (b"/demo/stor/%0D%0a", ("stor", "\r\n")),
        (b"/demo/stor/%E2%82%AC", ("stor", "\u20ac")),
        (b"/demo/stor/\xe2\x82\xac", ("stor", "\u20ac")),
        (b"/demo/stor/%F0%9F%90%9F", ("stor", "\U0001f41f")),
        (b"/demo/stor/...", ("stor", "...")),
        (b"/demo/stor/%2520", ("stor", "%20")),
    ],
)
def test_a_path_is_split_and_its_names_are_decoded_as_utf8(raw: bytes, names: tuple[str, ...]) -> None:
    """Section 2."""
    assert parse(raw) == Path("demo", names)


def test_a_login_is_decoded_too() -> None:
    assert parse(b"/a%40b.c/stor").login == "a@b.c"


@pytest.mark.parametrize("escape", ["%", "%2", "%zz", "%2x", "%-1", "%+1", "% 1", "%\u0661\u0661"])
def test_a_malformed_escape_is_refused(escape: str) -> None:
    """Section 2: 400 InvalidResource."""
    for name in (f"a{escape}", f"{escape}/a"):
        with pytest.raises(InvalidPath, match="malformed escape"):
            parse(b"/demo/stor/" + name.encode())


@pytest.mark.parametrize("name", [b"%ff", b"\xff", b"%C0%AF", b"%ED%A0%80", b"%E2%82", b"%F5%80%80%80"])
def test_what_is_not_utf8_is_refused(name: bytes) -> None:
    """Nor are overlong forms, surrogates, and half a character."""
    with pytest.raises(InvalidPath, match="not UTF-8"):
        parse(b"/demo/stor/" + name)


@pytest.mark.parametrize("name", [b".", b"..", b"%2e%2E", b"a%2Fb", b"%2f", b"a%00b"])
def test_what_can_be_no_name_is_refused(name: bytes) -> None:
    for raw in (b"/demo/stor/" + name, b"/" + name + b"/stor"):
        with pytest.raises(InvalidPath, match="not a name"):
            parse(raw)


@pytest.mark.parametrize("raw", [b"", b"/", b"///"])
def test_a_path_names_an_account(raw: bytes) -> None:
    with pytest.raises(InvalidPath, match="no account"):
        parse(raw)


def test_a_name_has_a_limit_in_bytes() -> None:
    for name in ("a" * NAME_BYTES_MAX, "\u20ac" * (NAME_BYTES_MAX // 3)):
        assert parse(encode(["demo", "stor", name]).encode()).name == name
        with pytest.raises(InvalidPath, match="too long"):
            parse(encode(["demo", "stor", name + "aa"]).encode())


def test_a_path_has_a_limit_in_bytes_decoded() -> None:
    names = ["demo", "stor", *["\u20ac" * 300] * 2, "a" * (PATH_BYTES_MAX - len("stor/") - 1802)]
    assert parse(encode(names).encode()).names == tuple(names[1:])
    with pytest.raises(InvalidPath, match="too long"):
        parse(encode([*names, "a"]).encode())


_PIECES = st.sampled_from([b"/", b"//", b"%", b"%2F", b"%00", b"%e2", b"\x82", b".", b"a", b"%C3%A9", b"\xff"])


@given(st.binary(max_size=60) | st.lists(_PIECES, max_size=10).map(b"".join))
def test_whatever_comes_a_path_is_one_that_can_be_stored_or_is_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidPath):
        found = parse(raw)
        for name in (found.login, *found.names):
            assert name
            assert not {"/", "\0"} & set(name)
            assert name not in {".", ".."}
            assert len(name.encode()) <= NAME_BYTES_MAX
        assert parse(encode([found.login, *found.names]).encode()) == found


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_names_that_are_written_are_read_again(names: list[str]) -> None:
    assert parse(encode(names).encode()) == Path(names[0], tuple(names[1:]))


def test_names_are_written_as_clients_write_them() -> None:
    """Section 2: like JavaScript's encodeURIComponent."""
    assert encode(["demo", "stor", "Az09-_.!~*'()"]) == "/demo/stor/Az09-_.!~*'()"
    assert (
        encode(["demo", "stor", "a b%\r\u20ac", "&=+;:@,?#"])
        == "/demo/stor/a%20b%25%0D%E2%82%AC/%26%3D%2B%3B%3A%40%2C%3F%23"
    )


def test_a_path_knows_what_it_is() -> None:
    account, root, entry = (Path("demo", names) for names in ((), ("stor",), ("stor", "a")))
    assert [path.is_account for path in (account, root, entry)] == [True, False, False]
    assert [path.is_root for path in (account, root, entry)] == [True, True, False]
    assert [path.namespace for path in (account, root, entry)] == ["", "stor", "stor"]
    assert [path.parent for path in (account, root, entry)] == [account, account, root]
    assert [str(path) for path in (account, root, entry)] == ["/demo", "/demo/stor", "/demo/stor/a"]
    assert entry.name == "a"


def test_an_entry_is_stored_under_its_accounts_uuid() -> None:
    """Section 2: a renamed account keeps its data."""
    account = uuid.UUID("0b0e7c8e-8f5c-4a38-9d7e-1a2b3c4d5e6f")
    assert Path("demo", ("stor", "a b")).stored(account) == f"/{account}/stor/a b"
    assert Path("demo", ()).stored(account) == f"/{account}"
