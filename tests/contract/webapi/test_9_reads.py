"""Section 9 of the HTTP contract: GetObject, HEAD, CORS and preflight."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client

ORIGIN = "http://app.example"


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def cors(answer: Answer) -> dict[str, str]:
    return {k.removeprefix("access-control-"): v for k, v in answer.headers.items() if k.startswith("access-control-")}


def test_s9_a_read_says_all_of_an_object(ann: Client, stor: str) -> None:
    put = ann.put(f"{stor}/o", b"hello", content_type="text/plain")
    get, head = ann.get(f"{stor}/o"), ann.request("HEAD", f"{stor}/o")
    wanted = {
        "etag": put.headers["etag"], "last-modified": put.headers["last-modified"], "content-length": "5",
        "content-md5": base64.b64encode(hashlib.md5(b"hello").digest()).decode(),  # noqa: S324
        "content-type": "text/plain", "durability-level": "2",
    }  # fmt: skip
    assert (get.status, head.status, get.body, head.body) == (200, 200, b"hello", b"")
    for answer in (get, head):
        assert {name: answer.headers[name] for name in wanted} == wanted
    assert get.headers["accept-ranges"] == "bytes"
    assert "accept-ranges" not in head.headers
    assert "role-tag" not in get.headers


def test_s9_an_empty_object_has_a_length_and_no_ranges(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"")
    answer = ann.get(f"{stor}/o")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")
    assert "accept-ranges" not in answer.headers


def test_s9_an_error_of_head_has_its_headers_and_no_body(ann: Client, stor: str) -> None:
    answer = ann.request("HEAD", f"{stor}/missing")
    assert (answer.status, answer.headers["content-type"], answer.body) == (404, "application/json", b"")
    assert int(answer.headers["content-length"]) > 0
    assert answer.headers["content-md5"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200), ("*/*", 200), ("text/*", 200), ("TEXT/Plain", 200), ("image/png, text/plain;q=0.5", 200), ("image/*", 406),
        ("text/html", 406), ("text/plain;q=0", 406), ("~1.0", 406), ("", 200),
    ],
)  # fmt: skip
def test_s9_accept_is_compared_with_the_stored_type(ann: Client, stor: str, accept: str | None, status: int) -> None:
    ann.put(f"{stor}/o", b"x", content_type="text/plain; charset=utf-8")
    for method in ("GET", "HEAD"):
        assert ann.request(method, f"{stor}/o", headers={} if accept is None else {"Accept": accept}).status == status


@pytest.mark.parametrize("size", [10, 600_000])
@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("0-0", (0, 0)),
        ("2-4", (2, 4)),
        ("5-", (5, None)),
        ("-3", (-3, None)),
        ("3-99999999", (3, None)),
        ("-99999999", (0, None)),
        ("0-", (0, None)),
    ],
)
def test_s9_a_range_is_206(ann: Client, stor: str, size: int, spec: str, part: tuple[int, int | None]) -> None:
    first, last = part
    data = os.urandom(size)
    put = ann.put(f"{stor}/o", data, content_type="text/plain")
    answer = ann.get(f"{stor}/o", range=f"bytes={spec}")
    begin = first if first >= 0 else size + first
    end = size - 1 if last is None else last
    assert (answer.status, answer.body) == (206, data[begin : end + 1])
    assert answer.headers["content-range"] == f"bytes {begin}-{end}/{size}"
    assert answer.headers["content-length"] == str(end - begin + 1)
    assert (answer.headers["content-type"], answer.headers["etag"]) == ("text/plain", put.headers["etag"])
    assert not {"content-md5", "accept-ranges"} & set(answer.headers)


@pytest.mark.parametrize(
    "spec", ["bytes=10-", "bytes=5-2", "bytes=-0", "bytes=a-b", "bytes=", "lines=1-2", "bytes=99-100", "x"]
)
def test_s9_a_range_that_is_none_is_416(ann: Client, stor: str, spec: str) -> None:
    ann.put(f"{stor}/o", b"0123456789")
    answer = ann.get(f"{stor}/o", range=spec)
    assert code_of(answer) == (416, "RequestedRangeNotSatisfiable")
    assert answer.headers["content-range"] == "bytes */10"


def test_s9_several_ranges_are_not_implemented(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"0123456789")
    assert code_of(ann.get(f"{stor}/o", range="bytes=0-1,3-4")) == (501, "NotImplemented")


def test_s9_a_cut_download_is_resumed_one_past_the_end_with_if_match(ann: Client, stor: str) -> None:
    etag = ann.put(f"{stor}/o", b"0123456789").headers["etag"]
    assert ann.get(f"{stor}/o", range="bytes=4-10", if_match=etag).body == b"456789"
    assert ann.get(f"{stor}/o", range="bytes=4-10", if_match="other").status == 412


def test_s9_any_copy_serves(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()
    client = region.client("ann")
    client.put("/ann/stor/o", b"hello")
    for path in region.storages[0].files.rglob("*"):
        if path.is_file():
            path.unlink()
    assert [client.get("/ann/stor/o").body for _ in range(4)] == [b"hello"] * 4


def test_s9_without_any_copy_it_is_503(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()
    client = region.client("ann")
    client.put("/ann/stor/o", b"hello")
    for storage in region.storages:
        for path in storage.files.rglob("*"):
            if path.is_file():
                path.unlink()
    refused = client.get("/ann/stor/o")
    assert code_of(refused) == (503, "ServiceUnavailable")
    assert refused.headers["retry-after"]


STORED = {
    "access-control-allow-origin": f"http://other, {ORIGIN}", "access-control-allow-methods": "GET, PUT", "access-control-max-age": "9",
    "access-control-allow-headers": "X-One, x-two", "access-control-expose-headers": "x-three",
}  # fmt: skip


@pytest.fixture(params=["object", "directory"])
def guarded(request: pytest.FixtureRequest, ann: Client, stor: str) -> str:
    """An entry with CORS headers."""
    kind = {"Content-Type": "application/json; type=directory"} if request.param == "directory" else {}
    assert ann.request("PUT", f"{stor}/x", b"", {**STORED, **kind}).status == 204
    return f"{stor}/x"


def test_s9_without_origin_cors_headers_are_echoed(ann: Client, guarded: str) -> None:
    assert cors(ann.get(guarded)) == {name.removeprefix("access-control-"): value for name, value in STORED.items()}


def test_s9_with_an_allowed_origin_they_are_narrowed(ann: Client, guarded: str) -> None:
    wanted = {"allow-origin": ORIGIN, "allow-methods": "GET, PUT", "expose-headers": "x-three"}
    assert cors(ann.get(guarded, origin=ORIGIN)) == wanted


def test_s9_with_another_origin_or_method_they_are_dropped(ann: Client, guarded: str) -> None:
    assert cors(ann.get(guarded, origin="http://evil")) == {}
    assert cors(ann.request("HEAD", guarded, headers={"Origin": ORIGIN})) == {}


def test_s9_a_star_allows_every_origin(ann: Client, login: str) -> None:
    ann.put(f"/{login}/public/o", b"x")
    assert cors(ann.request("GET", f"/{login}/public/o", headers={"Origin": ORIGIN}, signed=False)) == {
        "allow-origin": ORIGIN
    }


def preflight(
    client: Client, path: str, method: str | None, headers: str | None = None, origin: str | None = ORIGIN
) -> Answer:
    sent = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.request("OPTIONS", path, headers={k: v for k, v in sent.items() if v is not None})


def test_s9_preflight_says_what_is_stored(ann: Client, guarded: str) -> None:
    answer = preflight(ann, guarded, "GET", "x-one, X-TWO")
    assert answer.status == 200
    assert cors(answer) == {
        "allow-origin": ORIGIN,
        "allow-methods": "GET, PUT",
        "allow-headers": "X-One, x-two",
        "max-age": "9",
    }


@pytest.mark.parametrize(
    ("method", "headers", "origin"),
    [
        ("DELETE", None, ORIGIN),
        ("GET", "x-other", ORIGIN),
        ("GET", None, "http://evil"),
        (None, None, ORIGIN),
        ("GET", None, None),
    ],
)
def test_s9_preflight_is_200_without_headers_when_something_does_not_match(
    ann: Client, guarded: str, method: str | None, headers: str | None, origin: str | None
) -> None:
    answer = preflight(ann, guarded, method, headers, origin)
    assert (answer.status, cors(answer)) == (200, {})


def test_s9_preflight_of_a_put_asks_the_parent(ann: Client, stor: str) -> None:
    ann.request("PUT", f"{stor}/d", headers={**STORED, "Content-Type": "application/json; type=directory"})
    assert cors(preflight(ann, f"{stor}/d/new", "PUT"))["allow-origin"] == ORIGIN
    assert code_of(preflight(ann, f"{stor}/no/new", "PUT")) == (404, "ResourceNotFound")
    assert code_of(preflight(ann, f"{stor}/d/new", "GET")) == (404, "ResourceNotFound")
    assert (preflight(ann, f"{stor}/new", "PUT").status, preflight(ann, stor, "GET").status) == (200, 200)


def test_s9_preflight_needs_a_caller_except_below_public(ann: Client, login: str, stor: str) -> None:
    ann.put(f"/{login}/public/o", b"x")
    ann.put(f"{stor}/o", b"x")
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert ann.request("OPTIONS", f"/{login}/public/o", headers=asked, signed=False).status == 200
    assert code_of(ann.request("OPTIONS", f"{stor}/o", headers=asked, signed=False)) == (403, "AuthorizationFailed")
