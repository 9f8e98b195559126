"""Section 4 of the HTTP contract: tokens."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import uuid

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mobula.core import tokens
from mobula.core.tokens import Bearer
from tests.contract.webapi.local import TOKEN_KEY, LocalRegion
from tests.region.signed import Answer, Client


def use(client: Client, token: str, path: str, method: str = "GET") -> Answer:
    return client.request(method, path, headers={"Authorization": f"Token {token}"}, signed=False)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def forge(content: object, *, cut_bytes: int = 0) -> str:
    """A token as another tool would make it; without the last bytes of what it packs."""
    padder, encryptor = (
        padding.PKCS7(128).padder(),
        Cipher(algorithms.AES(TOKEN_KEY.key), modes.CBC(TOKEN_KEY.iv)).encryptor(),
    )
    packed = padder.update(gzip.compress(json.dumps(content).encode())[: -cut_bytes or None]) + padder.finalize()
    return base64.b64encode(encryptor.update(packed) + encryptor.finalize()).decode()


def now_ms() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp() * 1000)


def test_s4_a_token_stands_for_who_made_it(ann: Client, login: str, stor: str) -> None:
    made = ann.request("POST", f"/{login}/tokens")
    assert made.status == 201
    assert made.headers["content-type"] == "application/json"
    token = made.json()["token"]
    ann.put(f"{stor}/o", b"x")
    assert use(ann, token, f"{stor}/o").body == b"x"
    assert code_of(use(ann, token, "/nobody/stor")) == (403, "AccountDoesNotExist")


def test_s4_a_token_of_another_tool_is_as_good(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    account = local.accounts.by_login[login].uuid
    content = {
        "t": now_ms(), "p": {"account": {"uuid": str(account)}, "user": None, "roles": {}},
        "c": {"activeRoles": [], "activeXAcctRoles": [], "fromjob": False}, "v": 2,
    }  # fmt: skip
    assert use(ann, forge(content), stor).status == 200
    for change in ({"v": 1}, {"t": now_ms() - 8 * 24 * 3600 * 1000}, {"t": "now"}, {"p": {}}):
        assert code_of(use(ann, forge({**content, **change}), stor)) == (403, "InvalidAuthenticationToken"), change
    assert code_of(use(ann, forge(content, cut_bytes=8), stor)) == (403, "InvalidAuthenticationToken")
    content["p"] = {"account": {"uuid": str(uuid.uuid4())}, "user": None, "roles": {}}
    assert code_of(use(ann, forge(content), stor)) == (403, "AccountDoesNotExist")


@pytest.mark.parametrize("token", ["", "x", "====", base64.b64encode(bytes(16)).decode(), "A" * 10_000, "ä"])
def test_s4_what_is_no_token_is_refused(ann: Client, stor: str, token: str) -> None:
    assert code_of(use(ann, token, stor)) == (403, "InvalidAuthenticationToken")


def test_s4_a_changed_token_is_refused(ann: Client, login: str, stor: str) -> None:
    token = bytearray(base64.b64decode(ann.request("POST", f"/{login}/tokens").json()["token"]))
    token[-20] ^= 1
    assert code_of(use(ann, base64.b64encode(token).decode(), stor)) == (403, "InvalidAuthenticationToken")


def test_s4_what_unpacks_to_very_much_is_refused_quickly(ann: Client, stor: str) -> None:
    assert code_of(use(ann, forge("x" * 5_000_000), stor)) == (403, "InvalidAuthenticationToken")


def test_s4_a_token_of_a_sub_user_stands_for_the_sub_user(local: LocalRegion, login: str, stor: str) -> None:
    user = local.add_user(login, "sub")
    token = tokens.seal(TOKEN_KEY, Bearer(local.accounts.by_login[login].uuid, user.uuid), dt.datetime.now(dt.UTC))
    sub = local.client(login, "sub")
    assert code_of(use(sub, token, stor)) == (403, "AuthorizationFailed")
    gone = tokens.seal(TOKEN_KEY, Bearer(local.accounts.by_login[login].uuid, uuid.uuid4()), dt.datetime.now(dt.UTC))
    assert code_of(use(sub, gone, stor)) == (403, "UserDoesNotExist")


def test_s4_nobody_makes_tokens_of_another_account(ann: Client, bob: Client, operator: Client, login: str) -> None:
    for answer in (bob, operator):
        assert code_of(answer.request("POST", f"/{login}/tokens")) == (403, "AuthorizationFailed")
    assert code_of(ann.request("POST", f"/{login}/tokens", signed=False)) == (403, "AuthorizationFailed")


def test_s4_a_token_does_not_prolong_itself(ann: Client, login: str) -> None:
    token = ann.request("POST", f"/{login}/tokens").json()["token"]
    assert code_of(use(ann, token, f"/{login}/tokens", "POST")) == (403, "AuthorizationFailed")


def test_s4_tokens_are_posted_only(ann: Client, login: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = ann.request(method, f"/{login}/tokens")
        assert (code_of(answer), answer.headers["allow"]) == ((405, "MethodNotAllowedError"), "POST")


def test_s4_x_auth_token_is_obsolete(ann: Client, stor: str) -> None:
    assert code_of(ann.get(stor, x_auth_token="{}")) == (403, "InvalidHttpAuthenticationToken")
