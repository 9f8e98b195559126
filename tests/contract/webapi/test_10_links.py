"""Section 10 of the HTTP contract: snaplinks."""

from __future__ import annotations

import os

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client, encode

LINK = "application/json; type=link"


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def link(client: Client, source: str | None, target: str, **headers: str) -> Answer:
    location = {} if source is None else {"Location": source}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request("PUT", encode(target), headers={"Content-Type": LINK, **location, **named})


@pytest.mark.parametrize("size", [0, 5, 400_000])
def test_s10_a_link_is_the_object_of_that_moment(local: LocalRegion, ann: Client, stor: str, size: int) -> None:
    data = os.urandom(size)
    put = ann.put(f"{stor}/a", data, content_type="text/plain", m_a="1")
    before = local.files_settled()
    made = link(ann, f"{stor}/a", f"{stor}/b", origin="http://o")
    assert (made.status, made.body) == (204, b"")
    assert (made.headers["etag"], made.headers["last-modified"]) == (put.headers["etag"], put.headers["last-modified"])
    assert made.headers["access-control-allow-origin"] == "http://o"
    assert local.files_settled() == before
    source, linked = ann.get(f"{stor}/a"), ann.get(f"{stor}/b")
    assert linked.body == data
    for name in ("etag", "content-md5", "content-type", "durability-level", "m-a"):
        assert linked.headers[name] == source.headers[name]
    assert [(e["name"], e["type"], e["size"]) for e in ann.get(stor).lines()] == [
        ("a", "object", size),
        ("b", "object", size),
    ]


def test_s10_later_changes_to_either_do_not_touch_the_other(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/a", b"first")
    for name in "bc":
        link(ann, f"{stor}/a", f"{stor}/{name}")
    ann.put(f"{stor}/a", b"second")
    ann.request("DELETE", f"{stor}/b")
    ann.request("PUT", f"{stor}/c?metadata=true", headers={"m-a": "1"})
    assert [ann.get(f"{stor}/{name}").status for name in "abc"] == [200, 404, 200]
    assert (ann.get(f"{stor}/a").body, ann.get(f"{stor}/c").body) == (b"second", b"first")
    assert "m-a" not in ann.get(f"{stor}/a").headers


@pytest.mark.parametrize("form", ["{}", "http://storage.example{}", "https://storage.example:8443{}", "{}?x=y"])
def test_s10_the_location_is_a_path_or_a_url_percent_encoded(ann: Client, stor: str, form: str) -> None:
    ann.put(f"{stor}/a ä", b"x")
    assert link(ann, form.format(encode(f"{stor}/a ä")), f"{stor}/b").status == 204
    assert ann.get(f"{stor}/b").body == b"x"


def test_s10_a_link_may_replace_an_object_and_be_linked_again(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/a", b"a")
    ann.put(f"{stor}/b", b"b")
    assert link(ann, f"{stor}/a", f"{stor}/b").status == 204
    assert link(ann, f"{stor}/b", f"{stor}/c").status == 204
    assert link(ann, f"{stor}/a", f"{stor}/a").status == 204
    assert [ann.get(f"{stor}/{name}").body for name in "abc"] == [b"a"] * 3


@pytest.mark.parametrize("location", ["", " "])
def test_s10_without_a_location_it_is_location_required(ann: Client, stor: str, location: str) -> None:
    assert code_of(link(ann, None, f"{stor}/b")) == (400, "LocationRequired")
    assert code_of(link(ann, location, f"{stor}/b")) == (400, "LocationRequired")


@pytest.mark.parametrize("location", ["nonsense", "/x/%zz", "ftp://h/ann/stor/a", "/", "http://[::1/x", "/a/../b"])
def test_s10_a_location_that_is_none_is_invalid_link(ann: Client, stor: str, location: str) -> None:
    assert code_of(link(ann, location, f"{stor}/b")) == (400, "InvalidLink")


def test_s10_a_source_that_is_missing_is_source_object_not_found(ann: Client, stor: str) -> None:
    for source in (f"{stor}/missing", f"{stor}/no/a", "/nobody/stor/a"):
        refused = link(ann, source, f"{stor}/b")
        assert code_of(refused) == (404, "SourceObjectNotFound")
        assert source in refused.json()["message"]


def test_s10_a_directory_is_no_source_and_no_target(ann: Client, login: str, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    ann.put(f"{stor}/a", b"x")
    for source in (f"{stor}/d", stor, f"/{login}"):
        assert code_of(link(ann, source, f"{stor}/b")) == (400, "LinkNotObject")
    assert code_of(link(ann, f"{stor}/a", f"{stor}/d")) == (400, "OperationNotAllowedOnDirectory")
    assert code_of(link(ann, f"{stor}/a", stor)) == (400, "OperationNotAllowedOnRootDirectory")


def test_s10_parent_rules_as_usual(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/a", b"x")
    assert code_of(link(ann, f"{stor}/a", f"{stor}/no/b")) == (404, "DirectoryDoesNotExist")
    assert code_of(link(ann, f"{stor}/a", f"{stor}/a/b")) == (400, "ParentNotDirectory")


def test_s10_conditions_are_the_sources(ann: Client, stor: str) -> None:
    etag = ann.put(f"{stor}/a", b"x").headers["etag"]
    ann.put(f"{stor}/b", b"y")
    assert code_of(link(ann, f"{stor}/a", f"{stor}/b", if_match="other")) == (412, "PreconditionFailed")
    assert code_of(link(ann, f"{stor}/a", f"{stor}/b", if_none_match=etag)) == (412, "PreconditionFailed")
    assert link(ann, f"{stor}/a", f"{stor}/b", if_match=etag).status == 204


def test_s10_who_may_not_read_the_source_may_not_link_it(ann: Client, bob: Client, login: str, stor: str) -> None:
    own = "/" + bob.key_id.split("/")[1] + "/stor"
    ann.put(f"{stor}/a", b"secret")
    ann.put(f"/{login}/public/a", b"public")
    refused = link(bob, f"{stor}/a", f"{own}/b")
    assert code_of(refused) == (403, "AuthorizationFailed")
    assert refused.json()["message"].endswith(f"is not allowed to access {stor}/a")
    assert code_of(link(bob, f"/{login}/public/a", f"{stor}/b")) == (403, "AuthorizationFailed")
    assert link(bob, f"/{login}/public/a", f"{own}/b").status == 204
    ann.request("DELETE", f"/{login}/public/a")
    assert bob.get(f"{own}/b").body == b"public"
