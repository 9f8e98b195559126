"""Section 5 of the HTTP contract: presigned URLs."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client

HOST = "storage.example:8080"


def presign(client: Client, path: str, methods: str = "GET", **changes: str | None) -> str:
    """A URL, signed as clients do; `changes` of its parameters, None drops one."""
    query: dict[str, str | None] = {
        "algorithm": "ED25519-SHA512", "expires": str(int(time.time()) + 60), "keyId": client.key_id, **changes,
    }  # fmt: skip
    found = {name: value for name, value in query.items() if value is not None}
    listed = sorted(found.items(), key=lambda pair: pair[0].lower())
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in listed)
    _, signature = client.sign_text("\n".join([",".join(sorted(methods.split(","))), HOST, path, text]).encode())
    return f"{path}?{text}&signature={quote(signature, safe='')}"


def send(client: Client, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    return client.request(method, url, body, {"Host": HOST, **headers}, signed=False)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def test_s5_a_signed_url_reads_without_a_header(ann: Client, stor: str) -> None:
    ann.put(f"{stor}/a b", b"x")
    assert send(ann, presign(ann, f"{stor}/a%20b")).body == b"x"


def test_s5_the_path_is_signed_exactly_as_sent(ann: Client, stor: str) -> None:
    ann.mkdir(f"{stor}/d")
    assert send(ann, presign(ann, f"{stor}/d/")).status == 200
    assert code_of(send(ann, presign(ann, f"{stor}/d/").replace("/d/?", "/d?"))) == (403, "InvalidSignature")


def test_s5_several_methods_may_be_signed(ann: Client, stor: str) -> None:
    url = presign(ann, f"{stor}/o", "PUT,GET", method="PUT,GET")
    assert send(ann, url, "PUT", b"x").status == 204
    assert send(ann, url).body == b"x"
    assert code_of(send(ann, url, "DELETE")) == (403, "InvalidQueryStringAuthentication")


def test_s5_a_url_for_get_does_not_work_for_head(ann: Client, stor: str) -> None:
    assert send(ann, presign(ann, stor), "HEAD").status == 403


def test_s5_further_parameters_are_signed_too(ann: Client, stor: str) -> None:
    for name in "abc":
        ann.put(f"{stor}/{name}", b"")
    url = presign(ann, stor, limit="2", marker="b")
    assert [entry["name"] for entry in send(ann, url).lines()] == ["b", "c"]
    assert code_of(send(ann, url.replace("marker=b", "marker=a"))) == (403, "InvalidSignature")


def test_s5_the_host_is_signed(ann: Client, stor: str) -> None:
    assert code_of(send(ann, presign(ann, stor), Host="other")) == (403, "InvalidSignature")


def test_s5_expires_in_ms_is_only_far_away(ann: Client, stor: str) -> None:
    assert send(ann, presign(ann, stor, expires=str(int(time.time() * 1000)))).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": None},
        {"keyId": None},
        {"algorithm": None},
        {"expires": "1"},
        {"expires": "soon"},
        {"algorithm": "x"},
    ],
)
def test_s5_what_is_missing_or_wrong_is_said(ann: Client, stor: str, changes: dict[str, str | None]) -> None:
    assert code_of(send(ann, presign(ann, stor, **changes))) == (403, "InvalidQueryStringAuthentication")


def test_s5_a_url_without_its_signature_is_refused(ann: Client, stor: str) -> None:
    url = presign(ann, stor).partition("&signature")[0]
    assert code_of(send(ann, url)) == (403, "InvalidQueryStringAuthentication")


@pytest.mark.parametrize(
    ("key_id", "code"), [("nonsense", "InvalidKeyId"), ("/nobody/keys/aa:bb", "AccountDoesNotExist")]
)
def test_s5_the_key_is_looked_for_as_in_a_header(ann: Client, stor: str, key_id: str, code: str) -> None:
    assert code_of(send(ann, presign(ann, stor, keyId=key_id))) == (403, code)


def test_s5_a_stranger_cannot_sign_for_another_account(ann: Client, bob: Client, stor: str) -> None:
    ann.put(f"{stor}/o", b"x")
    assert code_of(send(bob, presign(bob, f"{stor}/o"))) == (403, "AuthorizationFailed")


def test_s5_a_sub_users_key_signs_for_the_sub_user(local: LocalRegion, login: str, stor: str) -> None:
    local.add_user(login, "sub")
    sub = local.client(login, "sub")
    assert code_of(send(sub, presign(sub, stor))) == (403, "AuthorizationFailed")


def test_s5_an_authorization_header_counts_alone(ann: Client, stor: str) -> None:
    assert ann.request("GET", f"{stor}?expires=1&signature=x").status == 200


def test_s5_empty_parameters_claim_nothing(ann: Client, stor: str) -> None:
    assert code_of(ann.request("GET", f"{stor}?expires=", signed=False)) == (403, "AuthorizationFailed")


def test_s5_a_presigned_request_may_come_in_clear_text(ann: Client, stor: str) -> None:
    assert send(ann, presign(ann, stor), **{"x-forwarded-proto": "http"}).status == 200
