"""Section 8 of the HTTP contract: PutObject, PutMetadata, DeleteObject, and conditional requests."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import uuid
from collections.abc import Callable

import pytest

from tests.contract.webapi.local import LocalRegion, Room
from tests.region.signed import Answer, Client

UPDATE = "?metadata=true"


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: S324


def head(client: Client, path: str, **headers: str) -> dict[str, str]:
    answer = client.request("HEAD", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status == 200, answer
    return dict(answer.headers)


@pytest.mark.parametrize("size", [0, 1, 100_000, 300_000, 3_000_000])
def test_s8_a_put_answers_etag_mtime_and_md5(ann: Client, stor: str, size: int) -> None:
    data = os.urandom(size)
    put = ann.put(f"{stor}/o", data, origin="http://o")
    assert (put.status, put.headers["computed-md5"]) == (204, md5(data))
    assert str(uuid.UUID(put.headers["etag"])) == put.headers["etag"]
    assert put.headers["last-modified"]
    assert put.headers["access-control-allow-origin"] == "http://o"
    got = ann.get(f"{stor}/o")
    assert (got.body, got.headers["etag"]) == (data, put.headers["etag"])


def test_s8_each_version_has_its_own_etag(ann: Client, stor: str) -> None:
    assert ann.put(f"{stor}/o", b"x").headers["etag"] != ann.put(f"{stor}/o", b"x").headers["etag"]


@pytest.mark.parametrize("size", [0, 10, 500_000])
def test_s8_a_chunked_body_counts_what_it_has(ann: Client, stor: str, size: int) -> None:
    data = os.urandom(size)
    assert ann.request("PUT", f"{stor}/o", iter([data[:5], data[5:]]) if size else iter([])).status == 204
    assert ann.get(f"{stor}/o").body == data
    assert head(ann, f"{stor}/o")["durability-level"] == ("2" if size else "0")


def test_s8_a_body_over_max_content_length_is_refused(local: LocalRegion, ann: Client, stor: str) -> None:
    before = local.files_settled()
    sent = ann.request("PUT", f"{stor}/o", iter([b"12345", b"67890"]), {"max-content-length": "9"})
    assert code_of(sent) == (413, "MaxContentLengthExceeded")
    assert code_of(ann.put(f"{stor}/o", b"1234567890", max_content_length="9")) == (413, "MaxContentLengthExceeded")
    assert ann.request("PUT", f"{stor}/o", iter([b"12345", b"6789"]), {"max-content-length": "9"}).status == 204
    assert code_of(ann.put(f"{stor}/o", b"1", max_content_length="-1")) == (400, "InvalidMaxContentLength")
    assert len(local.files_settled()) == len(before) + 2


@pytest.mark.parametrize(
    ("headers", "copies"),
    [
        ({}, 2),
        ({"durability-level": "1"}, 1),
        ({"x-durability-level": "1"}, 1),
        ({"durability-level": "2", "x-durability-level": "1"}, 2),
    ],
)
def test_s8_copies_as_wished(local: LocalRegion, ann: Client, stor: str, headers: dict[str, str], copies: int) -> None:
    before = len(local.files_settled())
    assert ann.request("PUT", f"{stor}/o", b"x", headers).status == 204
    assert head(ann, f"{stor}/o")["durability-level"] == str(copies)
    assert len(local.files_settled()) == before + copies


@pytest.mark.parametrize("copies", ["0", "-1", "7", "99", "x", "1.5", "1000000000000"])
def test_s8_a_wrong_number_of_copies_is_invalid_durability_level(ann: Client, stor: str, copies: str) -> None:
    refused = ann.put(f"{stor}/o", b"x", durability_level=copies)
    assert code_of(refused) == (400, "InvalidDurabilityLevel")
    assert refused.json()["message"] == "durability-level must be between 1 and 6"


def test_s8_more_copies_than_servers_is_not_enough_space(ann: Client, stor: str) -> None:
    assert code_of(ann.put(f"{stor}/o", b"x", durability_level="3")) == (507, "NotEnoughSpace")


def test_s8_a_full_store_takes_nothing_but_empty_objects(own_region: Callable[..., LocalRegion]) -> None:
    client = own_region(room=Room(1 << 40, 1 << 30)).client("ann")
    refused = client.put("/ann/stor/o", b"x" * 3_000_000)
    assert code_of(refused) == (507, "NotEnoughSpace")
    assert refused.json()["message"] == "not enough free space for 2 MB"
    assert client.put("/ann/stor/o", b"").status == 204


def test_s8_without_storage_servers_it_is_503_with_retry_after(own_region: Callable[..., LocalRegion]) -> None:
    client = own_region(storages_count=0).client("ann")
    refused = client.put("/ann/stor/o", b"x")
    assert (code_of(refused), refused.headers["retry-after"]) == ((503, "ServiceUnavailable"), "30")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (None, "application/octet-stream"), ("text/plain; charset=utf-8", "text/plain; charset=utf-8"), ("jpg", "image/jpeg"),
        ("a/b/photo.jpg", "a/b/photo.jpg"), ("photo.jpg", "image/jpeg"), ("unheard-of", "application/octet-stream"), ("X/Y", "X/Y"),
    ],
)  # fmt: skip
def test_s8_the_content_type_is_stored_as_sent_or_looked_up(
    ann: Client, stor: str, sent: str | None, stored: str
) -> None:
    ann.request("PUT", f"{stor}/o", b"x", {"Content-Type": sent} if sent else {})
    assert head(ann, f"{stor}/o")["content-type"] == stored


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 500_000])
def test_s8_content_md5_is_verified(local: LocalRegion, ann: Client, stor: str, data: bytes) -> None:
    before = local.files_settled()
    assert code_of(ann.put(f"{stor}/o", data, content_md5=md5(b"other"))) == (400, "ContentMD5Mismatch")
    assert ann.get(f"{stor}/o").status == 404
    assert local.files_settled() == before
    assert ann.put(f"{stor}/o", data, content_md5=md5(data)).status == 204


@pytest.mark.parametrize("value", ["x", "====", "AAAA", "not base64 at all"])
def test_s8_a_content_md5_that_is_none_is_a_bad_request(ann: Client, stor: str, value: str) -> None:
    assert code_of(ann.put(f"{stor}/o", b"x", content_md5=value)) == (400, "BadRequestError")


def test_s8_content_disposition_is_parsed_and_written_again(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"x", content_disposition='ATTACHMENT; filename="/a/b/c.txt"')
    assert head(ann, f"{stor}/o")["content-disposition"] == 'attachment; filename="c.txt"'
    assert code_of(ann.put(f"{stor}/o", b"x", content_disposition="a b; =")) == (400, "BadRequestError")


def test_s8_headers_that_are_kept_come_back(ann: Client, stor: str) -> None:
    kept = {
        "m-a": "1", "m-Two": "zwei", "cache-control": "max-age=1", "surrogate-key": "s", "access-control-allow-origin": "http://o",
        "access-control-max-age": "9", "access-control-allow-headers": "x-a", "access-control-allow-methods": "GET",
        "access-control-expose-headers": "x-b",
    }  # fmt: skip
    ann.request("PUT", f"{stor}/o", b"x", {**kept, "x-dropped": "x", "m": "x"})
    found = head(ann, f"{stor}/o")
    assert {name.lower(): found[name.lower()] for name in kept} == {name.lower(): value for name, value in kept.items()}
    assert not {"x-dropped", "m"} & set(found)


def test_s8_custom_headers_beyond_4_kib_are_dropped(ann: Client, stor: str) -> None:
    assert ann.put(f"{stor}/o", b"x", m_a="x" * 4096, m_b="y").status == 204
    found = head(ann, f"{stor}/o")
    assert (len(found["m-a"]), "m-b" in found) == (4096, False)


def test_s8_public_objects_allow_every_origin_unless_they_say_otherwise(ann: Client, login: str, stor: str) -> None:
    ann.put(f"/{login}/public/o", b"x")
    ann.put(f"/{login}/public/p", b"x", access_control_allow_origin="http://o")
    ann.put(f"{stor}/o", b"x")
    assert head(ann, f"/{login}/public/o")["access-control-allow-origin"] == "*"
    assert head(ann, f"/{login}/public/p")["access-control-allow-origin"] == "http://o"
    assert "access-control-allow-origin" not in head(ann, f"{stor}/o")


def test_s8_an_empty_object_has_no_copies(local: LocalRegion, ann: Client, stor: str) -> None:
    before = local.files_settled()
    ann.put(f"{stor}/o", b"", durability_level="2")
    found = head(ann, f"{stor}/o")
    assert (found["durability-level"], found["content-md5"]) == ("0", "1B2M2Y8AsgTpgAmY7PhCfg==")
    assert local.files_settled() == before


WRONG = {"durability-level": "99"}


@pytest.mark.parametrize(
    ("path", "headers", "wanted"),
    [
        # each row is wrong in what it is refused for, and in all that is reported later
        ("stor/no/o", {"If-Match": "x", **WRONG}, (404, "DirectoryDoesNotExist")),
        ("stor/object/o", {"If-Match": "x", **WRONG}, (412, "PreconditionFailed")),
        ("stor", {"If-Match": "x", **WRONG}, (412, "PreconditionFailed")),
        ("stor", WRONG, (400, "OperationNotAllowedOnRootDirectory")),
        ("stor/directory", WRONG, (400, "InvalidDurabilityLevel")),
        ("stor/object/o", WRONG, (400, "InvalidDurabilityLevel")),
        ("stor/directory", {}, (400, "OperationNotAllowedOnDirectory")),
        ("stor/object/o", {}, (400, "ParentNotDirectory")),
        ("stor/o", {"durability-level": "3", "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, (507, "NotEnoughSpace")),
        ("stor/o", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, (400, "ContentMD5Mismatch")),
    ],
)
def test_s8_failures_are_reported_in_their_order(
    ann: Client, login: str, path: str, headers: dict[str, str], wanted: tuple[int, str]
) -> None:
    ann.put(f"/{login}/stor/object", b"x")
    ann.mkdir(f"/{login}/stor/directory")
    assert code_of(ann.request("PUT", f"/{login}/{path}", b"x", headers)) == wanted


def test_s8_what_is_missing_is_said_before_who_may(ann: Client, bob: Client, stor: str) -> None:
    assert code_of(bob.put(f"{stor}/no/o", b"x")) == (404, "DirectoryDoesNotExist")
    for method in ("GET", "DELETE"):
        assert code_of(bob.request(method, f"{stor}/no")) == (404, "ResourceNotFound")
    assert code_of(bob.put(f"{stor}/o", b"x", if_match="x")) == (403, "AuthorizationFailed")


# conditional requests


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"', 'a, "{}"', "*", "{},b"])
def test_s8_if_match_takes_etags_in_every_form(ann: Client, stor: str, form: str) -> None:
    etag = ann.put(f"{stor}/o", b"x").headers["etag"]
    value = form.format(etag)
    assert ann.get(f"{stor}/o", if_match=value).status == 200
    assert ann.get(f"{stor}/o", if_none_match=value).status == 304
    assert code_of(ann.put(f"{stor}/o", b"y", if_none_match=value)) == (412, "PreconditionFailed")
    assert ann.put(f"{stor}/o", b"y", if_match=value).status == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_s8_if_match_of_another_etag_fails(ann: Client, stor: str, method: str) -> None:
    ann.put(f"{stor}/o", b"x")
    body = b"y" if method == "PUT" else None
    for value in ("other", '"other"', '""', ""):
        assert code_of(ann.request(method, f"{stor}/o", body, {"If-Match": value})) == (412, "PreconditionFailed")
    assert ann.request("HEAD", f"{stor}/o", headers={"If-Match": "other"}).status == 412


@pytest.mark.parametrize("create_only", [{"If-Match": '""'}, {"If-None-Match": "*"}, {"If-Match": ""}])
def test_s8_create_only(ann: Client, stor: str, create_only: dict[str, str]) -> None:
    assert ann.request("PUT", f"{stor}/o", b"first", create_only).status == 204
    assert code_of(ann.request("PUT", f"{stor}/o", b"second", create_only)) == (412, "PreconditionFailed")
    assert ann.get(f"{stor}/o").body == b"first"


@pytest.mark.parametrize(
    "headers",
    [{"If-None-Match": "*"}, {"If-Match": "{etag}"}, {"If-Unmodified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}],
)
def test_s8_of_conditional_writers_at_once_one_wins(
    local: LocalRegion, login: str, stor: str, headers: dict[str, str]
) -> None:
    clients = [local.client(login) for _ in range(8)]
    etag = "" if "If-None-Match" in headers else clients[0].put(f"{stor}/o", b"before").headers["etag"]
    sent = {name: value.replace("{etag}", etag) for name, value in headers.items()}
    barrier, found = threading.Barrier(8), []

    def write(client: Client, body: bytes) -> None:
        barrier.wait()
        answer = client.request("PUT", f"{stor}/o", body, sent)
        found.append((answer.status, body))

    threads = [threading.Thread(target=write, args=(c, b"%d" % n)) for n, c in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [body for status, body in found if status == 204]
    assert {status for status, _ in found} <= {204, 409, 412}
    if "If-Unmodified-Since" not in headers:
        assert len(won) == 1
        assert clients[0].get(f"{stor}/o").body == won[0]


def test_s8_who_loses_a_race_gets_concurrent_request(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    """Its condition held when it began, and no longer when its bytes were there."""
    etag = ann.put(f"{stor}/o", b"before").headers["etag"]
    first = local.client(login)
    for condition in (f"If-Match: {etag}", "If-Unmodified-Since: Fri, 01 Jan 2100 00:00:00 GMT"):
        fields = [f"{k}: {v}" for k, v in ann.authorization().items()]
        with ann.raw() as slow:
            lines = [
                f"PUT {stor}/o HTTP/1.1",
                "Host: h",
                "Content-Length: 5",
                "Expect: 100-continue",
                condition,
                *fields,
                "",
                "",
            ]
            slow.sendall("\r\n".join(lines).encode())
            assert slow.recv(4096).startswith(b"HTTP/1.1 100 ")
            assert first.put(f"{stor}/o", b"faster").status == 204
            slow.sendall(b"loser")
            answer = slow.recv(65536)
        assert answer.startswith(b"HTTP/1.1 409 ")
        assert b'"ConcurrentRequest"' in answer
        assert first.get(f"{stor}/o").body == b"faster"


def test_s8_without_conditions_all_writers_succeed(local: LocalRegion, login: str, stor: str) -> None:
    clients = [local.client(login) for _ in range(8)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda c=c: found.append(c.put(f"{stor}/o", b"x").status)) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [204] * 8


PAST = ["Sat, 01 Jan 2000 00:00:00 GMT", "2000-01-01 00:00:00 +0000", "2000-01-01T00:00:00Z"]
FUTURE = ["Fri, 01 Jan 2100 00:00:00 GMT", "2100-01-01 00:00:00 +0000"]


@pytest.mark.parametrize(
    ("headers", "reading", "writing"),
    [
        *(({"If-Modified-Since": date}, 200, 204) for date in PAST), *(({"If-Modified-Since": date}, 304, 412) for date in FUTURE),
        *(({"If-Unmodified-Since": date}, 412, 412) for date in PAST), *(({"If-Unmodified-Since": date}, 200, 204) for date in FUTURE),
        ({"If-Modified-Since": "no date"}, 200, 204), ({"If-None-Match": "x", "If-Modified-Since": FUTURE[0]}, 200, 204),
        ({"If-Match": "*", "If-Unmodified-Since": PAST[0]}, 200, 204),
    ],
)  # fmt: skip
def test_s8_conditions_on_dates(ann: Client, stor: str, headers: dict[str, str], reading: int, writing: int) -> None:
    put = ann.put(f"{stor}/o", b"x")
    for method in ("GET", "HEAD"):
        answer = ann.request(method, f"{stor}/o", headers=headers)
        assert answer.status == reading
        if reading == 304:
            assert (answer.headers["etag"], answer.headers["last-modified"]) == (
                put.headers["etag"],
                put.headers["last-modified"],
            )
    assert ann.request("PUT", f"{stor}/o", b"y", headers).status == writing
    assert ann.request("DELETE", f"{stor}/o", headers=headers).status == writing


# PutMetadata


def test_s8_an_update_replaces_all_headers_and_keeps_the_data(ann: Client, stor: str) -> None:
    put = ann.put(
        f"{stor}/o", b"x", content_type="text/plain", m_a="1", cache_control="c", content_disposition="inline"
    )
    answer = ann.request("PUT", f"{stor}/o{UPDATE}", iter([]), {"m-b": "2", "Origin": "http://o"})
    assert (answer.status, answer.headers["etag"], "computed-md5" in answer.headers) == (
        204,
        put.headers["etag"],
        False,
    )
    assert answer.headers["last-modified"]
    assert answer.headers["access-control-allow-origin"] == "http://o"
    got = ann.get(f"{stor}/o")
    assert (got.body, got.headers["content-type"], got.headers["m-b"]) == (b"x", "text/plain", "2")
    assert got.headers["content-md5"] == put.headers["computed-md5"]
    assert not {"m-a", "cache-control", "content-disposition"} & set(got.headers)
    ann.request("PUT", f"{stor}/o{UPDATE}", headers={"Content-Type": "text/html"})
    assert head(ann, f"{stor}/o")["content-type"] == "text/html"


@pytest.mark.parametrize("headers", [{"Content-MD5": md5(b"")}, {"durability-level": "2"}, {"x-durability-level": "2"}])
def test_s8_an_update_of_what_belongs_to_the_data_is_invalid_update(
    ann: Client, stor: str, headers: dict[str, str]
) -> None:
    ann.put(f"{stor}/o", b"x")
    assert code_of(ann.request("PUT", f"{stor}/o{UPDATE}", headers=headers)) == (400, "InvalidUpdate")
    assert code_of(ann.request("PUT", f"{stor}/o{UPDATE}", b"body")) == (400, "InvalidUpdate")
    assert ann.request("PUT", f"{stor}/o{UPDATE}", headers={"Content-Length": "0"}).status == 204


def test_s8_an_update_of_nothing_is_not_found(ann: Client, stor: str) -> None:
    assert code_of(ann.request("PUT", f"{stor}/o{UPDATE}")) == (404, "ResourceNotFound")
    assert code_of(ann.request("PUT", f"{stor}/no/o{UPDATE}")) == (404, "ResourceNotFound")


def test_s8_a_directory_is_updated_too(ann: Client, login: str, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    for path in (f"{stor}/d", stor):
        answer = ann.request("PUT", f"{path}{UPDATE}", headers={"m-a": "1", "Content-Type": "text/plain"})
        assert (answer.status, "etag" in answer.headers) == (204, False)
        found = head(ann, path)
        assert (found["m-a"], found["content-type"]) == ("1", "application/x-json-stream; type=directory")
    refused = ann.request("PUT", f"/{login}{UPDATE}", headers={"m-a": "1"})
    assert code_of(refused) == (400, "OperationNotAllowedOnRootDirectory")


def test_s8_an_update_may_be_conditional(ann: Client, stor: str) -> None:
    etag = ann.put(f"{stor}/o", b"x").headers["etag"]
    refused = ann.request("PUT", f"{stor}/o{UPDATE}", headers={"If-Match": "other"})
    assert code_of(refused) == (412, "PreconditionFailed")
    assert ann.request("PUT", f"{stor}/o{UPDATE}", headers={"If-Match": etag}).status == 204


def test_s8_an_object_is_deleted_once(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"x")
    deleted = ann.request("DELETE", f"{stor}/o")
    assert (deleted.status, deleted.body) == (204, b"")
    again = ann.request("DELETE", f"{stor}/o")
    assert (code_of(again), again.json()["message"]) == ((404, "ResourceNotFound"), f"{stor}/o was not found")
