"""The HTTP API through the whole region: door, loadbalancer, webapi, shard, storage."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ops.region import Region
from tests.region.signed import Client, encode
from tests.stock_clients import Output

pytestmark = pytest.mark.region


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_an_account_made_by_the_operator_stores_with_its_key(
    kind: str, region: Region, mobula: Callable[..., Output], tmp_path: Path
) -> None:
    login = f"user{uuid.uuid4().hex[:8]}"
    key = KEYS[kind]()
    public = tmp_path / "key.pub"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b" me\n"
    )
    assert mobula("account", "create", login).returncode == 0
    added = mobula("account", "key", "add", login, str(public))
    assert added.returncode == 0, added.stderr
    with contextlib.closing(Client(region.relay_port, login, pem(key))) as client:
        # At once, on every webapi: a key counts from the moment it was added.
        answer = client.put(f"/{login}/stor/hello", b"hello")
        assert answer.status == 204, answer
        assert client.get(f"/{login}/stor/hello").body == b"hello"
        assert client.request("DELETE", f"/{login}/stor/hello").status == 204


def test_a_wrong_key_is_refused_in_the_documented_form(region: Region) -> None:
    with contextlib.closing(Client(region.relay_port, "demo", pem(rsa.generate_private_key(65537, 2048)))) as stranger:
        answer = stranger.get("/demo/stor")
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == "KeyDoesNotExist"
    assert base64.b64decode(answer.headers["content-md5"]) == hashlib.md5(answer.body).digest()  # noqa: S324


def test_a_stranger_may_read_public_and_nothing_else(demo: Client) -> None:
    name = f"/demo/public/{uuid.uuid4()}"
    assert demo.put(name, b"for all").status == 204
    assert demo.request("GET", name, signed=False).body == b"for all"
    assert demo.request("GET", "/demo/stor", signed=False).status == 403
    demo.request("DELETE", name)


def test_the_server_says_100_continue_before_it_takes_a_body(demo: Client, folder: str) -> None:
    with demo.raw() as connection:
        head = {"Host": "localhost", "Content-Length": "5", "Expect": "100-continue", **demo.authorization()}
        lines = [f"PUT {encode(folder)}/slow HTTP/1.1", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert connection.recv(4096).startswith(b"HTTP/1.1 204 ")


def test_a_put_that_must_fail_gets_its_final_status_instead_of_100(demo: Client, folder: str) -> None:
    with demo.raw() as connection:
        head = {"Host": "localhost", "Content-Length": "5", "Expect": "100-continue", **demo.authorization()}
        lines = [f"PUT {encode(folder)}/no/such/parent HTTP/1.1", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 404 ")
    # A client that is never to send its body would count the connection as busy, and has 1,024 of them.
    assert b"connection: close\r\n" in answer.lower()
    assert b"DirectoryDoesNotExist" in answer


def test_a_chunked_body_of_unknown_length_is_stored(demo: Client, folder: str) -> None:
    answer = demo.request("PUT", f"{encode(folder)}/chunked", iter([b"one ", b"two ", b"three"]))
    assert answer.status == 204
    assert base64.b64decode(answer.headers["computed-md5"]) == hashlib.md5(b"one two three").digest()  # noqa: S324
    assert demo.get(f"{folder}/chunked").body == b"one two three"


def test_ranges_head_and_conditions(demo: Client, folder: str) -> None:
    put = demo.put(f"{folder}/o", b"0123456789", content_type="text/plain")
    part = demo.get(f"{folder}/o", range="bytes=2-4")
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    head = demo.request("HEAD", f"{encode(folder)}/o")
    assert (head.headers["content-length"], head.headers["content-type"], head.headers["durability-level"]) == (
        "10",
        "text/plain",
        "2",
    )
    assert head.headers["etag"] == put.headers["etag"]
    assert demo.get(f"{folder}/o", if_none_match=put.headers["etag"]).status == 304
    assert demo.put(f"{folder}/o", b"other", if_match="nonsense").status == 412
    assert demo.get(f"{folder}/o").body == b"0123456789"


def test_a_body_with_a_wrong_content_md5_is_refused_and_nothing_is_stored(demo: Client, folder: str) -> None:
    answer = demo.put(f"{folder}/o", b"body", content_md5=base64.b64encode(bytes(16)).decode())
    assert (answer.status, answer.json()["code"]) == (400, "ContentMD5Mismatch")
    assert demo.get(f"{folder}/o").status == 404


def test_a_directory_with_entries_is_not_removed(demo: Client, folder: str) -> None:
    demo.put(f"{folder}/o", b"")
    answer = demo.request("DELETE", encode(folder))
    assert (answer.status, answer.json()["code"]) == (400, "DirectoryNotEmpty")


def test_every_answer_names_the_request_and_the_server(demo: Client) -> None:
    answer = demo.get("/demo/stor", x_request_id="my-request")
    assert answer.headers["x-request-id"] == "my-request"
    assert answer.headers["server"] == "Manta"
    assert int(answer.headers["x-response-time"]) >= 0
    assert answer.headers["x-server-name"]
    assert answer.headers["content-type"] == "application/x-json-stream; type=directory"


def test_what_a_webapi_says_of_itself_stays_inside_the_region(demo: Client) -> None:
    for name in ("status", "metrics"):
        answer = demo.get(f"/{name}")
        assert (answer.status, answer.json()["code"]) == (403, "AccountDoesNotExist")


def test_the_root_of_an_account_lists_its_namespaces(demo: Client) -> None:
    assert {"public", "stor"} <= {entry["name"] for entry in demo.get("/demo").lines()}
    refused = demo.request("DELETE", "/demo/stor")
    assert (refused.status, json.loads(refused.body)["code"]) == (400, "OperationNotAllowedOnRootDirectory")
