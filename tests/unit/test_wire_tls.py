from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mobula.wire.http_client import Address, ConnectFailed, HttpClient, RequestFailed, Timeouts
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(certificate: Path, *, named: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    if named:
        context.load_cert_chain(certificate)
    return context


async def test_bodies_of_every_size_pass_through_tls(certificate: Path, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    path = tmp_path / "f"
    path.write_bytes(data)

    async def handler(request: Request, response: Response) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        await request.receive_into(digest.update)
        fd = os.open(path, os.O_RDONLY)
        try:
            await response.send_file(200, [("x-md5", digest.hexdigest())], fd, 1, len(data) - 1)
        finally:
            os.close(fd)

    server, client = HttpServer(handler), HttpClient(tls=client_side(certificate, named=True))
    address = Address("127.0.0.1", await server.listen("127.0.0.1", 0, tls=server_side(certificate)))
    for body in (b"", b"abc", data):
        async with await client.request(address, "PUT", "/", body=body) as response:
            assert response.headers.get("x-md5") == hashlib.md5(body, usedforsecurity=False).hexdigest()
            assert await response.body(1 << 22) == data[1:]
    assert len(server.connections) == 1
    await client.close()
    await server.stop(1.0)


async def test_who_shows_no_certificate_or_trusts_another_gets_nothing(certificate: Path) -> None:
    async def handler(_request: Request, response: Response) -> None:
        await response.send(200)

    server = HttpServer(handler)
    address = Address("127.0.0.1", await server.listen("127.0.0.1", 0, tls=server_side(certificate)))
    nameless = HttpClient(tls=client_side(certificate, named=False), timeouts=Timeouts(response_s=2.0))
    with pytest.raises(RequestFailed):
        await nameless.request(address, "GET", "/")
    stranger = HttpClient(tls=ssl.create_default_context())
    with pytest.raises(ConnectFailed):
        await stranger.request(address, "GET", "/")
    clear = HttpClient(timeouts=Timeouts(response_s=2.0))
    with pytest.raises(RequestFailed):
        await clear.request(address, "GET", "/")
    for client in (nameless, stranger, clear):
        await client.close()
    await server.stop(1.0)
