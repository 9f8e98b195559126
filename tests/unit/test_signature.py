from __future__ import annotations

import base64
import contextlib
import datetime as dt
import functools
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.errors import ApiError
from mobula.core.signature import (
    ALGORITHMS,
    KeyId,
    Signature,
    check_age,
    check_skew,
    parse,
    parse_key_id,
    signed_date,
    signing_string,
    verify,
)

KEY_ID = "/alice/keys/0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba"
NOW = dt.datetime(2026, 11, 23, 2, 50, 32, tzinfo=dt.UTC)
DATE = "Mon, 23 Nov 2026 02:50:32 GMT"
OLD = "Mon, 23 Nov 2026 02:40:32 GMT"
_HASHES = {"sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


def code_of(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.status, error.value.code


@pytest.mark.parametrize(
    ("header", "headers"),
    [
        pytest.param(
            f'Signature keyId="{KEY_ID}",algorithm="rsa-sha256",headers="date",signature="c2ln"',
            ("date",),
            id="node, triton-go",
        ),
        pytest.param(
            f'Signature keyId="{KEY_ID}",algorithm="rsa-sha256",signature="c2ln"', ("date",), id="python, ruby"
        ),
        pytest.param(
            f'signature keyId="{KEY_ID}", algorithm="RSA-SHA256", headers="Date (request-target)", signature="c2ln"',
            ("date", "(request-target)"),
            id="blanks, and letters of any case",
        ),
    ],
)
def test_a_header_is_read_as_clients_write_it(header: str, headers: tuple[str, ...]) -> None:
    """Section 3."""
    assert parse(header) == Signature(KEY_ID, "rsa-sha256", headers, b"sig")


def test_what_is_signed_when_the_header_does_not_say_is_the_callers_choice() -> None:
    assert parse(
        'Signature keyId="k",algorithm="rsa-sha1",signature=""'.replace('""', '"AA=="'), ("x-date",)
    ).headers == ("x-date",)


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("", (403, "AuthorizationSchemeNotAllowed")),
        ("Basic YTpi", (403, "AuthorizationSchemeNotAllowed")),
        ("Signature", (400, "InvalidHeader")),
        ("Signature junk", (400, "InvalidHeader")),
        ('Signature keyId="k" algorithm="rsa-sha1"', (400, "InvalidHeader")),
        ('Signature keyId="k",algorithm="rsa-sha1"', (400, "InvalidHeader")),
        ('Signature keyId="k",signature="AA=="', (400, "InvalidHeader")),
        ('Signature algorithm="rsa-sha1",signature="AA=="', (400, "InvalidHeader")),
        ('Signature keyId="",algorithm="rsa-sha1",signature="AA=="', (400, "InvalidHeader")),
        ('Signature keyId="k",algorithm="rsa-sha1",signature="A"', (400, "InvalidHeader")),
        ('Signature keyId="k",algorithm="rsa-sha1",signature="é"', (400, "InvalidHeader")),
        ('Signature keyId="k,algorithm="rsa-sha1",signature="AA=="', (400, "InvalidHeader")),
        ('Signature keyId="k",algorithm="rsa-md5",signature="AA=="', (401, "InvalidAlgorithm")),
        ('Signature keyId="k",algorithm="hmac-sha256",signature="AA=="', (401, "InvalidAlgorithm")),
    ],
)
def test_a_header_that_cannot_be_used_says_why(header: str, answer: tuple[int, str]) -> None:
    """Section 3, the table of failures."""
    with pytest.raises(ApiError) as refused:
        parse(header)
    assert code_of(refused) == answer
    if answer[1] == "InvalidHeader":
        assert refused.value.message.startswith("Invalid Signature Authorization header")


_VALUES = st.text(max_size=30) | st.sampled_from([KEY_ID, *sorted(ALGORITHMS), "date", "c2ln", "{found}", "\\"])
_PARAMETERS = st.tuples(st.sampled_from(["keyId", "algorithm", "headers", "signature", "x"]), _VALUES)
NEARLY_HEADERS = st.lists(_PARAMETERS, max_size=6).map(
    lambda parameters: "Signature " + ",".join(f'{name}="{value}"' for name, value in parameters)
)


@given(st.text(max_size=100) | NEARLY_HEADERS)
def test_whatever_header_comes_nothing_but_the_documented_errors_is_raised(header: str) -> None:
    try:
        found = parse(header)
    except ApiError as error:
        assert error.code in {"AuthorizationSchemeNotAllowed", "InvalidHeader", "InvalidAlgorithm"}  # noqa: PT017
        return
    assert found.algorithm in ALGORITHMS
    assert found.key_id
    with contextlib.suppress(ApiError):
        assert signing_string(found, "GET", "/", "1.1", {"date": DATE}.get)


@given(st.text(min_size=1), st.sampled_from(sorted(ALGORITHMS)), st.binary(min_size=1))
def test_a_header_that_is_written_is_read_again(key: str, algorithm: str, signature: bytes) -> None:
    key_id = "/" + quote(key, safe="")
    text = f'Signature keyId="{key_id}",algorithm="{algorithm}",signature="{base64.b64encode(signature).decode()}"'
    assert parse(text) == Signature(key_id, algorithm, ("date",), signature)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/alice/keys/aa:bb", KeyId("alice", None, "aa:bb")),
        ("/alice/bob/keys/aa:bb", KeyId("alice", "bob", "aa:bb")),
        ("/al%40ice%2Fx/keys/aa%3Abb", KeyId("al@ice/x", None, "aa:bb")),
        ("/alice/keys/MD5:aa:bb", KeyId("alice", None, "aa:bb")),
        ("/keys/keys/keys/aa", KeyId("keys", "keys", "aa")),
    ],
)
def test_a_key_id_names_an_account_and_perhaps_a_user(text: str, found: KeyId) -> None:
    """Section 3: each component is decoded by itself."""
    assert parse_key_id(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "k", "alice/keys/aa", "/alice/aa", "/alice/keys", "/alice/keys/", "//keys/aa", "/alice//keys/aa", "/alice/key/aa",
     "/a/b/c/keys/aa", "/alice/keys/aa/", "/alice%2Fkeys%2Faa"],
)  # fmt: skip
def test_a_key_id_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_key_id(text)
    assert code_of(refused) == (403, "InvalidKeyId")


@given(st.text(max_size=60) | st.lists(st.text(max_size=5) | st.just("keys"), max_size=5).map("/".join))
def test_whatever_key_id_comes_nothing_but_the_documented_error_is_raised(text: str) -> None:
    with contextlib.suppress(ApiError):
        found = parse_key_id(text)
        assert found.account
        assert found.user != ""


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (("date",), f"date: {DATE}"),
        (("(request-target)", "date"), f"(request-target): put /alice/stor/%20?a=b\ndate: {DATE}"),
        (("request-line", "date"), f"PUT /alice/stor/%20?a=b HTTP/1.1\ndate: {DATE}"),
        (("date", "host", "x"), f"date: {DATE}\nhost: h:1\nx: \xe9  \xff"),
    ],
)
def test_the_signed_text_is_what_was_received(headers: tuple[str, ...], text: str) -> None:
    """Section 3: byte for byte."""
    received = {"date": DATE, "host": "h:1", "x": "\xe9  \xff"}
    signature = Signature(KEY_ID, "rsa-sha256", headers, b"")
    assert signing_string(signature, "PUT", "/alice/stor/%20?a=b", "1.1", received.get) == text.encode("latin-1")


@pytest.mark.parametrize(
    ("headers", "why"),
    [(("host",), "date must be among"), ((), "date must be among"), (("date", "host"), "host was not in")],
)
def test_a_signature_covers_the_date_and_only_what_was_sent(headers: tuple[str, ...], why: str) -> None:
    with pytest.raises(ApiError, match=rf"^Invalid Signature Authorization header: {why}") as refused:
        signing_string(Signature(KEY_ID, "rsa-sha256", headers, b""), "GET", "/", "1.1", {"date": DATE}.get)
    assert code_of(refused) == (400, "InvalidHeader")


def test_the_date_that_counts_is_the_one_that_was_signed() -> None:
    """Else an old request could be sent again beside a new Date."""
    received = {"date": DATE, "x-date": OLD}.get
    assert signed_date(Signature(KEY_ID, "rsa-sha256", ("x-date",), b""), received) == OLD
    assert signed_date(Signature(KEY_ID, "rsa-sha256", ("host", "date"), b""), received) == DATE
    assert signed_date(Signature(KEY_ID, "rsa-sha256", ("date", "x-date"), b""), received) == DATE


@pytest.mark.parametrize(("seconds", "too_old"), [(0, False), (300, False), (301, True), (-301, False)])
def test_a_request_expires(seconds: int, too_old: bool) -> None:
    """Section 3: only towards the past; a date that is none is somebody else's matter."""
    later = NOW + dt.timedelta(seconds=seconds)
    for date in (None, "", "junk"):
        check_age(date, later)
    if not too_old:
        check_age(DATE, later)
        return
    with pytest.raises(ApiError) as refused:
        check_age(DATE, later)
    assert code_of(refused) == (400, "RequestExpired")


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_clocks_may_differ_a_little(seconds: int) -> None:
    check_skew(DATE, NOW + dt.timedelta(seconds=seconds))


@pytest.mark.parametrize(("date", "seconds"), [(DATE, -301), (DATE, 301), (None, 0), ("", 0), ("junk", 0)])
def test_a_signed_request_has_a_date_and_it_is_near(date: str | None, seconds: int) -> None:
    with pytest.raises(ApiError, match=r"^Invalid Signature Authorization header") as refused:
        check_skew(date, NOW + dt.timedelta(seconds=seconds))
    assert code_of(refused) == (400, "InvalidHeader")


@given(st.text(max_size=60))
def test_whatever_date_comes_nothing_but_the_documented_errors_is_raised(date: str) -> None:
    for check in (check_age, check_skew):
        with contextlib.suppress(ApiError):
            check(date, NOW)


PrivateKeys = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@functools.cache
def key_of(family: str) -> PrivateKeys:
    match family:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def pem_of(family: str) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key_of(family).public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def sign(algorithm: str, text: bytes) -> Signature:
    family, _, digest = algorithm.partition("-")
    key = key_of(family)
    if isinstance(key, rsa.RSAPrivateKey):
        made = key.sign(text, padding.PKCS1v15(), _HASHES[digest]())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = key.sign(text, ec.ECDSA(_HASHES[digest]()))
    else:
        made = key.sign(text)
    return Signature(KEY_ID, algorithm, ("date",), made)


@pytest.mark.parametrize("algorithm", sorted(a for a in ALGORITHMS if not a.startswith("dsa-")))
def test_a_signature_is_of_its_key_and_its_text(algorithm: str) -> None:
    """Section 3; rsa-sha1 is what python-manta, triton-go and ruby-manta send."""
    family = algorithm.partition("-")[0]
    signature = sign(algorithm, b"date: now")
    assert verify(signature, b"date: now", pem_of(family))
    assert not verify(signature, b"date: then", pem_of(family))
    for other in {"rsa", "ecdsa", "ed25519"} - {family}:
        assert not verify(signature, b"date: now", pem_of(other))


@given(st.binary(max_size=80), st.sampled_from(sorted(ALGORITHMS)), st.sampled_from(["rsa", "ecdsa", "ed25519", ""]))
def test_a_made_up_signature_is_none(made_up: bytes, algorithm: str, family: str) -> None:
    assert not verify(Signature(KEY_ID, algorithm, ("date",), made_up), b"text", pem_of(family) if family else "junk")
