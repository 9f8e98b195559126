"""Raw HTTP requests with an HTTP Signature, made from the standard library: an implementation independent of the server's."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """names in lower case"""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


def fingerprint(key: Any) -> str:
    """MD5 fingerprint of the public half, as Manta clients send it."""
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.md5(base64.b64decode(line.split()[1])).hexdigest()  # noqa: S324 (the protocol's choice)
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


def sign(key: Any, text: bytes) -> tuple[str, bytes]:
    """Algorithm and signature of `text`, as the key's kind wants it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa-sha256", key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "ecdsa-sha256", key.sign(text, ec.ECDSA(hashes.SHA256()))
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return "ed25519-sha512", key.sign(text)


def encode(path: str) -> str:
    """A path as JavaScript's encodeURIComponent would write each segment."""
    return quote(path, safe="/!'()*~-_.")


KEPT_S = 30
"""a connection without work for longer is not used again: the loadbalancer ends it after 60 s"""


class Client:
    """Requests of one account (or its sub-user) through the region's door; one connection, made anew when the server closed it."""

    def __init__(
        self, port: int, account: str, private_pem: bytes, *, user: str | None = None, tls: bool = True
    ) -> None:
        self._port = port
        self._principal = account if user is None else f"{account}/{user}"
        self._tls = tls
        self._key = serialization.load_pem_private_key(private_pem, None)
        self._connection: http.client.HTTPConnection | None = None
        self._used_s = 0.0

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def authorization(self) -> dict[str, str]:
        """Date and Authorization headers of a request made now."""
        date = email.utils.formatdate(usegmt=True)
        algorithm, signature = sign(self._key, f"date: {date}".encode())
        encoded = base64.b64encode(signature).decode()
        value = f'Signature keyId="{self.key_id}",algorithm="{algorithm}",headers="date",signature="{encoded}"'
        return {"Date": date, "Authorization": value}

    @property
    def key_id(self) -> str:
        """The name of the key that signs."""
        return f"/{self._principal}/keys/{fingerprint(self._key)}"

    def sign_text(self, text: bytes) -> tuple[str, str]:
        """Algorithm and signature (base64) of any text."""
        algorithm, signature = sign(self._key, text)
        return algorithm, base64.b64encode(signature).decode()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] = {},
        *,
        signed: bool = True,
    ) -> Answer:
        """One request; `path` goes out as given (encode it), an iterable body goes out chunked."""
        send = {**(self.authorization() if signed else {}), **headers}
        if method == "PUT" and body is None:
            send.setdefault("Content-Length", "0")
        if time.monotonic() - self._used_s > KEPT_S:
            self.close()
        connection = self._connection or self._connect()
        chunked = body is not None and not isinstance(body, bytes)
        kept = self._connection is not None
        try:
            connection.request(method, path, body=body, headers=send, encode_chunked=chunked)
            response = connection.getresponse()
        except ConnectionError:
            self.close()
            if not kept or chunked:
                raise
            # The loadbalancer that held the kept connection is gone: once more, on a new one.
            return self.request(method, path, body, headers, signed=signed)
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        self._used_s = time.monotonic()
        self._connection = None if response.will_close else connection
        if response.will_close:
            connection.close()
        return answer

    def open_get(self, path: str) -> http.client.HTTPResponse:
        """A body that the caller reads, over a connection of its own that ends with it."""
        connection = self._connect()
        connection.request("GET", encode(path), headers=self.authorization() | {"Connection": "close"})
        return connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection("localhost", self._port, timeout=60, context=insecure())
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def mkdir(self, path: str) -> Answer:
        return self.request("PUT", encode(path), headers={"Content-Type": "application/json; type=directory"})

    def put(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.request("PUT", encode(path), body, {k.replace("_", "-"): v for k, v in headers.items()})

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", encode(path), headers={k.replace("_", "-"): v for k, v in headers.items()})

    def list_all(self, path: str) -> list[dict[str, Any]]:
        """All entries of a directory, page by page."""
        entries: list[dict[str, Any]] = []
        while True:
            marker = f"&marker={quote(entries[-1]['name'], safe='')}" if entries else ""
            answer = self.request("GET", f"{encode(path)}?limit=1000{marker}")
            assert answer.status == 200, answer
            page = answer.lines()
            entries += page[1:] if marker else page
            if len(page) < 1000:
                return entries

    def remove_tree(self, path: str) -> None:
        for entry in self.list_all(path):
            child = f"{path}/{entry['name']}"
            if entry["type"] == "directory":
                self.remove_tree(child)
            else:
                self.request("DELETE", encode(child))
        answer = self.request("DELETE", encode(path))
        assert answer.status == 204, answer

    def raw(self) -> socket.socket:
        """A bare connection, for what an HTTP library would hide."""
        connection = socket.create_connection(("127.0.0.1", self._port), 30)
        return insecure().wrap_socket(connection, server_hostname="localhost") if self._tls else connection


def insecure() -> ssl.SSLContext:
    """TLS without a look at the certificate: the tests of the certificate are elsewhere."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
