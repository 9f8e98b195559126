"""Section 2 of the HTTP contract: names and paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client, encode


@pytest.mark.parametrize(
    "path", ["/stor/%", "/stor/%zz", "/stor/%ff", "/stor/a%00b", "/stor/..", "/stor/%2e%2e/x", "/stor/a%2Fb"]
)
def test_s2_a_path_that_cannot_be_decoded_is_invalid_resource(ann: Client, login: str, path: str) -> None:
    answer = ann.request("GET", f"/{login}{path}")
    assert (answer.status, answer.json()["code"]) == (400, "InvalidResource")
    assert answer.json()["message"] == f'"/{login}{path}" is invalid'


def test_s2_slashes_collapse_and_a_final_one_is_dropped(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"x")
    assert ann.request("GET", f"/{stor}//o/").body == b"x"


@pytest.mark.parametrize(
    "name", ["a b", "100%", "a\rb", "!'()*~", "=", "äöü", "\U0001f600", "{x}", "a;b,c", '"', "a\\b"]
)
def test_s2_any_character_is_legal_in_a_name(ann: Client, stor: str, name: str) -> None:
    assert ann.put(f"{stor}/{name}", b"x").status == 204
    assert ann.get(f"{stor}/{name}").body == b"x"
    assert [entry["name"] for entry in ann.get(stor).lines()] == [name]
    assert ann.request("DELETE", encode(f"{stor}/{name}")).status == 204


def test_s2_names_are_sorted_as_utf8_bytes(ann: Client, stor: str) -> None:
    names = ["B", "a", "Z", "ä", "\uff5e", "\U0001f600", "1"]
    for name in names:
        ann.put(f"{stor}/{name}", b"")
    assert [entry["name"] for entry in ann.get(stor).lines()] == sorted(names, key=str.encode)


@pytest.mark.parametrize("login", ["a-b", "a.b@c", "A_1"])
def test_s2_logins_may_have_dashes_dots_and_at_signs(local: LocalRegion, login: str) -> None:
    local.add_account(login)
    client = local.client(login)
    assert client.put(f"/{login}/stor/o", b"x").status == 204
    assert client.request("GET", f"/{login.replace('@', '%40')}/stor/o").body == b"x"


def test_s2_a_renamed_account_keeps_its_data(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()
    client = region.client("ann")
    client.put("/ann/stor/o", b"x")
    account = region.accounts.by_login.pop("ann")
    region.accounts.by_login["eva"] = type(account)(account.uuid, "eva", True, False, account.keys)
    renamed = region.client("ann")
    renamed._principal = "eva"
    assert renamed.get("/eva/stor/o").body == b"x"


@pytest.mark.parametrize("root", ["", "/stor", "/public", "/reports"])
def test_s2_root_directories_exist_and_cannot_be_deleted(ann: Client, login: str, root: str) -> None:
    assert ann.request("HEAD", f"/{login}{root}").status == 200
    refused = ann.request("DELETE", f"/{login}{root}")
    assert (refused.status, refused.json()["code"]) == (400, "OperationNotAllowedOnRootDirectory")


@pytest.mark.parametrize("root", ["stor", "public", "reports"])
def test_s2_a_root_directory_may_store_headers(ann: Client, login: str, root: str) -> None:
    directory = {"Content-Type": "application/json; type=directory", "m-colour": "red"}
    assert ann.request("PUT", f"/{login}/{root}", headers=directory).status == 204
    assert ann.request("HEAD", f"/{login}/{root}").headers["m-colour"] == "red"
    ann.put(f"/{login}/{root}/o", b"")
    listing = ann.get(f"/{login}/{root}")
    assert (listing.headers["result-set-size"], len(listing.lines())) == ("1", 1)


def test_s2_an_account_and_an_unknown_namespace_take_nothing(ann: Client, login: str) -> None:
    for path, status, code in (
        (f"/{login}", 400, "OperationNotAllowedOnRootDirectory"),
        (f"/{login}/nowhere/o", 404, "ResourceNotFound"),
    ):
        for put in (ann.put(path, b"x"), ann.mkdir(path)):
            assert (put.status, put.json()["code"]) == (status, code)


def test_s2_a_child_of_a_root_directory_needs_no_parent(ann: Client, login: str) -> None:
    assert ann.put(f"/{login}/reports/o", b"x").status == 204


def test_s2_a_full_directory_takes_nothing_more(own_region: Callable[..., LocalRegion]) -> None:
    client = own_region(entries_max=2).client("ann")
    assert [client.put(f"/ann/stor/{n}", b"x").status for n in (1, 2, 3, 1)] == [204, 204, 409, 204]
    refused = client.put("/ann/stor/4", b"")
    assert (refused.status, refused.json()["code"]) == (409, "DirectoryLimitExceeded")
