"""Section 1 of the HTTP contract: transport and framing, and the headers of every response."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable

import pytest

from mobula.wire.http_server import Limits
from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client


def raw_answer(client: Client, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """What comes back to a hand-written request, until the connection ends or the head and its body are there."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {"Host": "h", **headers}.items()), "", ""]
    with client.raw() as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        connection.settimeout(5)
        return connection.recv(65536)


def test_a_region_starts_within_a_second(own_region: Callable[..., LocalRegion]) -> None:
    began_s = time.monotonic()
    own_region()
    assert time.monotonic() - began_s < 1.0


def test_s1_clear_text_serves_public_reads_alone(ann: Client, login: str) -> None:
    clear = {"x_forwarded_proto": "http"}
    ann.put(f"/{login}/public/o", b"x")
    assert ann.request("GET", f"/{login}/public/o", headers={"x-forwarded-proto": "http"}, signed=False).status == 200
    refused = ann.get(f"/{login}/stor", **clear)
    assert (refused.status, refused.json()["code"]) == (403, "SecureTransportRequired")


def test_s1_100_continue_comes_before_the_body_is_taken(ann: Client, stor: str) -> None:
    head = {"Host": "h", "Content-Length": "5", "Expect": "100-continue", **ann.authorization()}
    with ann.raw() as connection:
        connection.sendall(
            "\r\n".join([f"PUT {stor}/slow HTTP/1.1", *(f"{k}: {v}" for k, v in head.items()), "", ""]).encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert connection.recv(4096).startswith(b"HTTP/1.1 204 ")
    assert ann.get(f"{stor}/slow").body == b"hello"


@pytest.mark.parametrize(
    ("extra", "status", "code"),
    [({"If-Match": "x"}, 412, "PreconditionFailed"), ({"durability-level": "99"}, 400, "InvalidDurabilityLevel")],
)
def test_s1_a_put_that_fails_gets_its_status_instead_of_100_and_the_connection_closes(
    ann: Client, stor: str, extra: dict[str, str], status: int, code: str
) -> None:
    head = {"Content-Length": "5", "Expect": "100-continue", **ann.authorization(), **extra}
    answer = raw_answer(ann, "PUT", f"{stor}/o", head)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert code.encode() in answer
    assert b"\r\nConnection: close\r\n" in answer


def test_s1_an_empty_body_needs_no_100(ann: Client, stor: str) -> None:
    head = {"Content-Length": "0", "Expect": "100-continue", **ann.authorization()}
    assert raw_answer(ann, "PUT", f"{stor}/empty", head).startswith(b"HTTP/1.1 204 ")


def test_s1_another_value_of_expect_is_ignored(ann: Client, stor: str) -> None:
    assert ann.put(f"{stor}/o", b"x", expect="application/json").status == 204


def test_s1_bodies_in_strange_places_are_drained(ann: Client, stor: str) -> None:
    assert ann.put(f"{stor}/o", b"x").status == 204
    assert ann.request("GET", f"{stor}/o", b"{}").body == b"x"
    assert ann.request("PUT", f"{stor}/o?metadata=true", iter([])).status == 204
    assert ann.request("DELETE", f"{stor}/o", headers={"Content-Length": "0"}).status == 204


@pytest.mark.parametrize("size", [5, 5_000_000])
def test_s1_an_upload_without_bytes_times_out_with_408(own_region: Callable[..., LocalRegion], size: int) -> None:
    region = own_region(limits=Limits(body_idle_s=0.1))
    client = region.client("ann")
    answer = raw_answer(client, "PUT", "/ann/stor/o", {"Content-Length": str(size), **client.authorization()}, b"he")
    assert region.files_settled() == []
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"UploadTimeout" in answer
    assert b"\r\nConnection: close\r\n" in answer


def test_s1_a_client_that_goes_away_leaves_nothing(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()
    client = region.client("ann")
    lines = [f"{n}: {v}" for n, v in {"Host": "h", "Content-Length": "5000000", **client.authorization()}.items()]
    with client.raw() as connection:
        connection.sendall("\r\n".join(["PUT /ann/stor/o HTTP/1.1", *lines, "", "half"]).encode())
        time.sleep(0.1)
    assert region.files_settled() == []
    assert client.get("/ann/stor/o").status == 404


def test_s1_curl_gets_its_connection_closed(ann: Client, stor: str) -> None:
    assert ann.get(stor, user_agent="curl/8.5").headers["connection"] == "close"
    assert "connection" not in ann.get(stor).headers


def test_s1_a_malformed_accept_on_a_put_is_no_error(ann: Client, stor: str) -> None:
    assert ann.put(f"{stor}/o", b"x", accept="~1.0", accept_version="application/json, */*").status == 204


def test_s1_nothing_is_ever_compressed(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"x" * 5000, content_type="text/plain")
    answer = ann.get(f"{stor}/o", accept_encoding="gzip")
    assert answer.body == b"x" * 5000
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", ["stor", "stor/missing", ""])
def test_s1_every_response_says_date_server_request_id_and_time(ann: Client, login: str, path: str) -> None:
    answer = ann.get(f"/{login}/{path}")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.headers["date"])
    assert answer.headers["server"] == "Manta"
    assert answer.headers["x-server-name"]
    assert answer.headers["x-response-time"].isdigit()
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])


def test_s1_request_id_is_echoed_before_x_request_id(ann: Client, stor: str) -> None:
    assert ann.get(stor, x_request_id="two").headers["x-request-id"] == "two"
    assert ann.get(stor, request_id="one", x_request_id="two").headers["x-request-id"] == "one"


def test_s1_json_has_a_right_content_md5_and_length(ann: Client, login: str) -> None:
    answer = ann.get(f"/{login}/stor/missing")
    digest = base64.b64encode(hashlib.md5(answer.body).digest()).decode()  # noqa: S324
    assert answer.headers["content-md5"] == digest
    assert answer.headers["content-length"] == str(len(answer.body))


def test_s1_204_and_304_have_no_content_headers(ann: Client, stor: str) -> None:
    put = ann.put(f"{stor}/o", b"x")
    unchanged = ann.get(f"{stor}/o", if_none_match=put.headers["etag"])
    assert (put.status, unchanged.status) == (204, 304)
    for answer in (put, unchanged):
        assert not {"content-type", "content-length", "content-md5"} & set(answer.headers)


def test_s1_the_root_redirects(ann: Client) -> None:
    assert ann.request("GET", "/", signed=False).status == 302


def test_s1_crossdomain_is_xml_for_everybody(ann: Client) -> None:
    answer = ann.request("GET", "/crossdomain.xml", signed=False)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/xml")
    assert b"<cross-domain-policy" in answer.body
