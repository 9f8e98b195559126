"""Section 7 of the HTTP contract: directories."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client

DIRECTORY = "application/json; type=directory"


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def names(answer: Answer) -> list[str]:
    return [entry["name"] for entry in answer.lines()]


@pytest.mark.parametrize(
    "kind",
    [
        DIRECTORY,
        "application/json;type=directory",
        'Application/JSON ; type = "directory"',
        "application/json; charset=utf-8; type=directory",
    ],
)
def test_s7_put_directory_by_its_media_type_however_spaced(ann: Client, stor: str, kind: str) -> None:
    made = ann.request("PUT", f"{stor}/d", headers={"Content-Type": kind})
    assert (made.status, made.body, "etag" in made.headers) == (204, b"", False)
    assert ann.request("HEAD", f"{stor}/d").headers["content-type"] == "application/x-json-stream; type=directory"


def test_s7_a_repeat_that_changes_nothing_changes_nothing(ann: Client, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    before = ann.get(stor).lines()
    assert ann.mkdir(f"{stor}/d").status == 204
    assert ann.get(stor).lines() == before


def test_s7_an_object_is_replaced_by_a_directory(local: LocalRegion, ann: Client, stor: str) -> None:
    ann.put(f"{stor}/x", b"bytes")
    assert ann.mkdir(f"{stor}/x").status == 204
    assert ann.put(f"{stor}/x/o", b"").status == 204


def test_s7_parent_rules(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"")
    missing = ann.mkdir(f"{stor}/no/d")
    assert code_of(missing) == (404, "DirectoryDoesNotExist")
    assert missing.json()["message"] == f"{stor}/no does not exist"
    assert code_of(ann.mkdir(f"{stor}/o/d")) == (400, "ParentNotDirectory")


def test_s7_a_directory_stores_headers_but_no_disposition(ann: Client, stor: str) -> None:
    stored = {
        "m-a": "1", "access-control-allow-origin": "*", "cache-control": "no-cache", "surrogate-key": "s",
        "content-disposition": "inline", "x-other": "x",
    }  # fmt: skip
    ann.request("PUT", f"{stor}/d", headers={"Content-Type": DIRECTORY, **stored})
    for answer in (ann.request("HEAD", f"{stor}/d"), ann.get(f"{stor}/d")):
        assert {k: answer.headers[k] for k in ("m-a", "cache-control", "surrogate-key")} == {
            "m-a": "1", "cache-control": "no-cache", "surrogate-key": "s",
        }  # fmt: skip
        assert answer.headers["access-control-allow-origin"] == "*"
        assert not {"content-disposition", "x-other"} & set(answer.headers)


def test_s7_ten_concurrent_identical_mkdirs_all_succeed(local: LocalRegion, login: str, stor: str) -> None:
    clients = [local.client(login) for _ in range(10)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda c=c: found.append(c.mkdir(f"{stor}/d").status)) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [204] * 10


def test_s7_a_listing_is_a_stream_of_json_lines(ann: Client, stor: str) -> None:
    put = ann.put(f"{stor}/o", b"hello", content_type="text/plain", content_disposition='attachment; filename="x"')
    ann.put(f"{stor}/empty", b"")
    ann.mkdir(f"{stor}/d")
    answer = ann.get(stor)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-json-stream; type=directory")
    assert answer.headers["result-set-size"] == "3"
    assert answer.headers["last-modified"]
    assert answer.body.endswith(b"}\n")
    directory, empty, thing = (json.loads(line) for line in answer.body.decode().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", thing.pop("mtime"))
    assert thing == {
        "name": "o", "type": "object", "etag": put.headers["etag"], "size": 5, "contentType": "text/plain",
        "contentMD5": "XUFAKrxLKna5cZ2REBfFkg==", "durability": 2, "contentDisposition": 'attachment; filename="x"',
    }  # fmt: skip
    assert (empty["durability"], empty["contentMD5"]) == (0, "1B2M2Y8AsgTpgAmY7PhCfg==")
    assert set(directory) == {"name", "type", "mtime"}


def test_s7_an_empty_directory_gives_an_empty_body(ann: Client, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    answer = ann.get(f"{stor}/d")
    assert (answer.status, answer.body, answer.headers["result-set-size"]) == (200, b"", "0")


def test_s7_head_says_what_get_says(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"")
    head, get = ann.request("HEAD", stor), ann.get(stor)
    for name in ("content-type", "result-set-size", "last-modified"):
        assert head.headers[name] == get.headers[name]
    assert head.body == b""


@pytest.mark.parametrize("limit", ["0", "-1", "1025", "x", "", "1e3", "99999999999999999999", "%D9%A1"])
def test_s7_limit_out_of_range_is_invalid_argument(ann: Client, login: str, stor: str, limit: str) -> None:
    for path in (stor, f"/{login}"):
        assert code_of(ann.request("GET", f"{path}?limit={limit}")) == (400, "InvalidArgumentError")


@pytest.fixture
def many(ann: Client, stor: str) -> str:
    """A directory with objects o1 to o5 and directories d1, d2, made in this order; the mtimes differ."""
    ann.mkdir(f"{stor}/many")
    for name in ("o3", "o1", "o5", "o2", "o4"):
        ann.put(f"{stor}/many/{name}", b"")
        time.sleep(0.002)
    for name in ("d2", "d1"):
        ann.mkdir(f"{stor}/many/{name}")
        time.sleep(0.002)
    return f"{stor}/many"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", "d1 d2 o1 o2 o3 o4 o5"),
        ("limit=2", "d1 d2"),
        ("limit=2&marker=o1", "o1 o2"),
        ("marker=o3a", "o4 o5"),
        ("sort_order=reverse", "o5 o4 o3 o2 o1 d2 d1"),
        ("sort_order=reverse&marker=o1&limit=2", "o1 d2"),
        ("dir", "d1 d2"),
        ("directory=false", "d1 d2"),
        ("obj=", "o1 o2 o3 o4 o5"),
        ("object=1&limit=2", "o1 o2"),
        ("dir&obj", "d1 d2 o1 o2 o3 o4 o5"),
        ("sort=mtime", "d1 d2 o4 o2 o5 o1 o3"),
        ("sort=mtime&sort_order=reverse", "o3 o1 o5 o2 o4 d2 d1"),
        ("sort=mtime&obj&limit=2", "o4 o2"),
        ("sort=unheard&unknown=x&marker=", "d1 d2 o1 o2 o3 o4 o5"),
    ],
)
def test_s7_pages_markers_sorts_and_filters(ann: Client, many: str, query: str, wanted: str) -> None:
    answer = ann.request("GET", f"{many}?{query}")
    assert names(answer) == wanted.split()
    assert answer.headers["result-set-size"] == "7"


def test_s7_with_sort_mtime_the_marker_is_a_time_and_inclusive(ann: Client, many: str) -> None:
    mtime = {entry["name"]: entry["mtime"] for entry in ann.get(many).lines()}
    assert names(ann.request("GET", f"{many}?sort=mtime&marker={mtime['o5']}")) == ["o5", "o1", "o3"]
    newest_last = ann.request("GET", f"{many}?sort=mtime&sort_order=reverse&marker={mtime['o5']}")
    assert names(newest_last) == ["o5", "o2", "o4", "d2", "d1"]


@pytest.mark.parametrize("marker", ["o5", "2026-99-99T00:00:00Z", "yesterday"])
def test_s7_a_mtime_marker_that_is_no_time_is_invalid_parameter(ann: Client, stor: str, marker: str) -> None:
    assert code_of(ann.request("GET", f"{stor}?sort=mtime&marker={marker}")) == (400, "InvalidParameter")


@pytest.mark.parametrize("query", ["sort=none", "skip_owner_check=true"])
def test_s7_some_parameters_are_the_operators(ann: Client, operator: Client, login: str, stor: str, query: str) -> None:
    assert code_of(ann.request("GET", f"{stor}?{query}")) == (403, "QueryParameterForbidden")
    assert code_of(ann.request("GET", f"/{login}/public?{query}", signed=False)) == (403, "QueryParameterForbidden")
    assert operator.request("GET", f"{stor}?{query}").status == 200


def test_s7_an_account_lists_its_namespaces_and_here_the_marker_is_exclusive(ann: Client, login: str) -> None:
    everything = ann.get(f"/{login}")
    assert {"public", "reports", "stor"} <= set(names(everything))
    assert {entry["type"] for entry in everything.lines()} == {"directory"}
    assert ann.get(f"/{login}").body == everything.body  # the mtime is fixed
    assert "public" not in names(ann.request("GET", f"/{login}?marker=public"))
    assert names(ann.request("GET", f"/{login}?limit=1")) == names(everything)[:1]


def test_s7_an_empty_directory_is_removed(ann: Client, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    ann.put(f"{stor}/d/o", b"")
    full = ann.request("DELETE", f"{stor}/d")
    assert (code_of(full), full.json()["message"]) == ((400, "DirectoryNotEmpty"), f"{stor}/d is not empty")
    ann.request("DELETE", f"{stor}/d/o")
    assert ann.request("DELETE", f"{stor}/d", headers={"If-Match": "nonsense"}).status == 204
    assert code_of(ann.request("DELETE", f"{stor}/d")) == (404, "ResourceNotFound")
