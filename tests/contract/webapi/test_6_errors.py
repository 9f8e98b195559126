"""Section 6 of the HTTP contract: every error code that can be answered so far, with its status, body and headers.

One row for each code: what provokes it. A code that nothing answers yet stands in LATER with the reason.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mobula.core.errors import ERRORS
from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client

DIRECTORY = "application/json; type=directory"
LINK = "application/json; type=link"
FUTURE = email.utils.formatdate(time.time() + 4000, usegmt=True)
PAST = email.utils.formatdate(time.time() - 4000, usegmt=True)
SIGNATURE = 'Signature keyId="{}",algorithm="rsa-sha256",signature="AAAA"'


@dataclass(frozen=True, slots=True)
class Case:
    """A request; `~` in its path stands for the account. `headers` of the answer must be there."""

    method: str
    path: str
    sent: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    signed: bool = True
    headers: tuple[str, ...] = ()
    message: str | None = None


def authorization(key_id: str) -> dict[str, str]:
    return {"Date": "{now}", "Authorization": SIGNATURE.format(key_id)}


CASES: dict[str, Case] = {
    "BadRequestError": Case("PUT", "~/stor/x", {"Content-MD5": "x"}, b"x"),
    "BadDigest": Case("POST", "~/tokens", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, b"{}"),
    "ContentMD5Mismatch": Case("PUT", "~/stor/x", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, b"x"),
    "DirectoryNotEmpty": Case("DELETE", "~/stor/full", message="~/stor/full is not empty"),
    "InvalidArgumentError": Case("GET", "~/stor?limit=1025"),
    "InvalidContent": Case("POST", "~/tokens", {}, b"{"),
    "InvalidDurabilityLevel": Case(
        "PUT", "~/stor/x", {"durability-level": "7"}, b"x", message="durability-level must be between 1 and 6"
    ),
    "InvalidHeader": Case("GET", "~/stor", {"Date": FUTURE}),
    "RequestExpired": Case("GET", "~/stor", {"Date": PAST}),
    "InvalidLink": Case("PUT", "~/stor/x", {"Content-Type": LINK, "Location": "nonsense"}),
    "InvalidMaxContentLength": Case("PUT", "~/stor/x", {"max-content-length": "-1"}, b"x"),
    "InvalidParameter": Case("GET", "~/stor?sort=mtime&marker=x"),
    "InvalidResource": Case("GET", "~/stor/%", message='"~/stor/%" is invalid'),
    "InvalidUpdate": Case("PUT", "~/stor/o?metadata=true", {}, b"x"),
    "LinkNotObject": Case("PUT", "~/stor/x", {"Content-Type": LINK, "Location": "~/stor/full"}),
    "LocationRequired": Case("PUT", "~/stor/x", {"Content-Type": LINK}),
    "OperationNotAllowedOnDirectory": Case("PUT", "~/stor/full", {}, b"x"),
    "OperationNotAllowedOnRootDirectory": Case("DELETE", "~/stor"),
    "ParentNotDirectory": Case("PUT", "~/stor/o/x", {}, b"x"),
    "InvalidAlgorithm": Case(
        "GET", "~/stor", {"Authorization": 'Signature keyId="a",algorithm="hmac",signature="AAAA"'}, signed=False
    ),
    "AccountDoesNotExist": Case("GET", "/nobody/stor"),
    "AuthorizationFailed": Case("GET", "~/stor", signed=False, message="anonymous is not allowed to access ~/stor"),
    "AuthorizationSchemeNotAllowed": Case("GET", "~/stor", {"Authorization": "Basic YTpi"}, signed=False),
    "InvalidAuthenticationToken": Case("GET", "~/stor", {"Authorization": "Token x"}, signed=False),
    "InvalidHttpAuthenticationToken": Case("GET", "~/stor", {"X-Auth-Token": "x"}),
    "InvalidKeyId": Case("GET", "~/stor", authorization("nonsense"), signed=False),
    "InvalidQueryStringAuthentication": Case("GET", "~/stor?expires=1", signed=False),
    "InvalidSignature": Case("GET", "~/stor", {"Authorization": "{stolen}"}),
    "KeyDoesNotExist": Case("GET", "~/stor", authorization("~/keys/aa:bb"), signed=False),
    "QueryParameterForbidden": Case("GET", "~/stor?sort=none"),
    "SecureTransportRequired": Case("GET", "~/stor", {"x-forwarded-proto": "http"}),
    "UserDoesNotExist": Case("GET", "~/stor", authorization("~/nobody/keys/aa:bb"), signed=False),
    "DirectoryDoesNotExist": Case("PUT", "~/stor/no/x", {}, b"x", message="~/stor/no does not exist"),
    "ResourceNotFound": Case("GET", "~/stor/no", message="~/stor/no was not found"),
    "SourceObjectNotFound": Case("PUT", "~/stor/x", {"Content-Type": LINK, "Location": "~/stor/no"}),
    "MethodNotAllowedError": Case("POST", "~/stor/x", headers=("allow",)),
    "NotAcceptable": Case("GET", "~/stor/o", {"Accept": "image/png"}),
    "PreconditionFailed": Case("GET", "~/stor/o", {"If-Match": "x"}),
    "MaxContentLengthExceeded": Case("PUT", "~/stor/x", {"max-content-length": "1"}, b"xx"),
    "RequestEntityTooLargeError": Case("POST", "~/tokens", {}, b" " * 100_001),
    "RequestedRangeNotSatisfiable": Case("GET", "~/stor/o", {"Range": "bytes=9-"}, headers=("content-range",)),
    "NotImplemented": Case("GET", "~/stor/o", {"Range": "bytes=0-0,2-3"}),
    "NotEnoughSpace": Case("PUT", "~/stor/x", {"durability-level": "6"}, b"x"),
}

ELSEWHERE = {
    "AccountBlocked": "test_3_signatures.py",
    "ContentLengthRequired": "test_s6_a_negative_length_is_411",
    "ConcurrentRequest": "test_8_objects.py",
    "DirectoryLimitExceeded": "test_2_names.py",
    "EntityAlreadyExists": "test_17_terminals.py",
    "InternalError": "test_s6_what_goes_wrong_inside_is_500_without_its_reason",
    "InvalidJob": "test_12_jobs.py",
    "InvalidJobState": "test_12_jobs.py",
    "ObjectLost": "test_15_copies.py",
    "ServiceUnavailable": "test_3_signatures.py",
    "UploadTimeout": "test_1_transport.py",
}
"""codes that need a region of their own, or a second client: where they are provoked"""

LATER = {
    "AuthorizationRequired": "the contract names no request that is answered so",
    "UnsupportedMediaTypeError": "multipart uploads",
}
"""codes that no request in reach of the API provokes"""


def test_s6_every_code_has_a_test_that_provokes_it() -> None:
    assert sorted([*CASES, *ELSEWHERE, *LATER]) == sorted(ERRORS)
    folder = __file__.rpartition("/")[0]
    for code, where in ELSEWHERE.items():
        with open(f"{folder}/{where}" if where.endswith(".py") else __file__, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
        assert f'"{code}"' in text if where.endswith(".py") else f"def {where}(" in text


def check_form(answer: Answer, code: str) -> None:
    """Status, headers and body as clients parse them."""
    assert (answer.status, answer.json()["code"]) == (ERRORS[code][0], code)
    assert set(answer.json()) == {"code", "message"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    digest = base64.b64encode(hashlib.md5(answer.body).digest()).decode()  # noqa: S324
    assert answer.headers["content-md5"] == digest
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "Manta"


@pytest.mark.parametrize("code", sorted(CASES))
def test_s6_error(ann: Client, login: str, code: str) -> None:
    ann.mkdir(f"/{login}/stor/full")
    ann.put(f"/{login}/stor/full/o", b"")
    ann.put(f"/{login}/stor/o", b"0123", content_type="text/plain")
    case = CASES[code]
    stolen = ann.authorization()["Authorization"].replace('signature="', 'signature="AAAA')
    # When it is sent, not when this file was read: some minutes later it would have expired.
    known = {"~": f"/{login}", "{stolen}": stolen, "{now}": email.utils.formatdate(usegmt=True)}
    sent = dict(case.sent)
    for word, meaning in known.items():
        sent = {name: value.replace(word, meaning) for name, value in sent.items()}
    path = case.path.replace("~", f"/{login}")
    answer = ann.request(case.method, path, case.body, sent, signed=case.signed)
    check_form(answer, code)
    assert set(case.headers) <= set(answer.headers)
    if case.message is not None:
        assert answer.json()["message"] == case.message.replace("~", f"/{login}")


@pytest.mark.parametrize("code", ["PreconditionFailed", "NotAcceptable", "ResourceNotFound", "AuthorizationFailed"])
def test_s6_a_head_error_has_the_headers_of_get(ann: Client, login: str, code: str) -> None:
    ann.put(f"/{login}/stor/o", b"0123", content_type="text/plain")
    case = CASES[code]
    path = case.path.replace("~", f"/{login}")
    get, head = (ann.request(m, path, None, case.sent, signed=case.signed) for m in ("GET", "HEAD"))
    assert (head.status, head.body) == (get.status, b"")
    for name in ("content-type", "content-length", "content-md5"):
        assert head.headers[name] == get.headers[name]


def raw(client: Client, text: str) -> bytes:
    with client.raw() as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.recv(65536)


def test_s6_a_negative_length_is_411(ann: Client, stor: str) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in ann.authorization().items())
    answer = raw(ann, f"PUT {stor}/x HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n{fields}\r\n")
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "code": "ContentLengthRequired",
        "message": "Content-Length must be >= 0",
    }


def test_s6_an_unknown_method_is_405_with_allow(ann: Client, stor: str) -> None:
    answer = ann.request("PATCH", stor)
    check_form(answer, "MethodNotAllowedError")
    assert "PUT" in answer.headers["allow"]


def test_s6_what_goes_wrong_inside_is_500_without_its_reason(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret reason")

    region.metadata.lookup = broken  # type: ignore[method-assign,assignment]
    answer = region.client("ann").get("/ann/stor/o")
    assert (answer.status, answer.json()["code"]) == (500, "InternalError")
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "junk", ["\r\n\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02", "GET / HTTP/9.9\r\n\r\n", "GET /\0 HTTP/1.1\r\n\r\n"]
)
def test_s6_junk_is_answered_or_cut_and_never_500(ann: Client, junk: str) -> None:
    with ann.raw() as connection:
        connection.sendall(junk.encode("latin-1"))
        connection.settimeout(0.2)
        try:
            answer = connection.recv(65536)
        except TimeoutError:  # still waiting for a request
            answer = b""
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Signature " + "," * 5000}, {"Date": "\xff" * 50}, {"Accept": ",;/q=" * 500},
        {"Range": "bytes=" + "9" * 4000 + "-"},
        {"If-Match": '"' * 999}, {"Content-Disposition": "\xe4" * 300}, {"Origin": "\xff"}, {"Host": "\xff"}, {"Content-Type": "/" * 999},
        {"x-request-id": "\xff"}, {"X-Forwarded-Proto": "gopher"}, {"If-Modified-Since": "0" * 3000}, {"m-\xff": "x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_s6_strange_headers_never_end_in_500(ann: Client, stor: str, method: str, headers: dict[str, str]) -> None:
    ann.put(f"{stor}/o", b"x")
    lines = [f"{n}: {v}" for n, v in {"Host": "h", "Content-Length": "0", **ann.authorization(), **headers}.items()]
    answer = raw(ann, "\r\n".join([f"{method} {stor}/o HTTP/1.1", *lines, "", ""]))
    assert not answer.startswith(b"HTTP/1.1 500"), answer
