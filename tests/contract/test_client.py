"""Both drivers of the SDK against a real HTTP server: each test runs once with threads, once with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import ipaddress
import json
import pickle
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mobula.client import (
    AccessRefused,
    AsyncClient,
    Client,
    ConditionFailed,
    Damaged,
    Listing,
    MobulaError,
    NotFound,
    Settings,
    Unavailable,
    effects,
    jobs,
)
from mobula.wire.http_exchange import Request, Response
from tests.contract.manta import Manta, md5, serving

BIG = hashlib.sha512(b"seed").digest() * 40_000
"""2.5 MB"""


class Blocking:
    """`do` runs a method; an iterating one gives a list."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with Client(self.settings) as client:
            result = getattr(client, name)(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else result


class Asynchronous:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(self.settings) as client:
                result = getattr(client, name)(*args, **kwargs)
                return [value async for value in result] if isinstance(result, AsyncIterator) else await result

        return asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "PAUSE_S", 0.01)
    monkeypatch.setattr("mobula.client.download.PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A private key's file, and its public half."""
    made = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path_factory.mktemp("key") / "id_ecdsa"
    path.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return path, public.decode()


@pytest.fixture
def manta(key: tuple[Path, str]) -> Iterator[Manta]:
    with serving(Manta(key[1])) as service:
        yield service


@pytest.fixture(params=[Blocking, Asynchronous])
def driver(request: pytest.FixtureRequest, manta: Manta, key: tuple[Path, str]) -> Any:
    return request.param(Settings(url=manta.url, account="demo", key_id=str(key[0])))


def lose(request: Request, response: Response) -> None:
    """End the connection instead of answering."""
    request._connection._transport.abort()  # type: ignore[attr-defined]


def answering(status: int, code: str, *headers: tuple[str, str]) -> Callable[[Request, Response], Any]:
    return lambda _, response: response.send_error(status, code, "a reason", headers)


def test_what_was_put_is_got_back(driver: Any, manta: Manta, tmp_path: Path) -> None:
    stored = driver.do("put", "~~/stor/a b%2F/ü", b"content", parents=True, content_type="text/plain", copies=3)
    assert stored.md5 == md5(b"content")
    assert manta.things["/demo/stor/a b%2F/ü"].headers["x-durability-level"] == "3"
    assert b"/demo/stor/a%20b%252F/%C3%BC" in [target for _, target in manta.seen]
    assert b"".join(driver.do("get", "/demo/stor/a b%2F/ü")) == b"content"
    found = driver.do("info", "/demo/stor/a b%2F/ü")
    assert (found.kind, found.size_bytes, found.etag, found.content_md5) == ("object", 7, stored.etag, stored.md5)
    path = tmp_path / "big"
    path.write_bytes(BIG)
    assert driver.do("put", "/demo/stor/big", path).md5 == md5(BIG)
    assert b"".join(driver.do("get", "/demo/stor/big")) == BIG


def test_a_stream_of_unknown_length_is_put(driver: Any, manta: Manta) -> None:
    driver.do("put", "/demo/stor/stream", iter([b"one", b"", b"two"]))
    assert manta.things["/demo/stor/stream"].data == b"onetwo"
    driver.do("put", "/demo/stor/stream", iter([]), content_md5=md5(b""))
    assert manta.things["/demo/stor/stream"].data == b""


def test_an_asynchronous_stream_is_put_by_the_asynchronous_client(driver: Any, manta: Manta) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    source = chunks()
    if isinstance(driver, Blocking):
        with pytest.raises(TypeError, match="AsyncClient"):
            driver.do("put", "/demo/stor/stream", source)
    else:
        driver.do("put", "/demo/stor/stream", source)
        assert manta.things["/demo/stor/stream"].data == b"onetwo"


def test_a_refusal_comes_with_status_code_message_and_request_id(driver: Any, manta: Manta) -> None:
    for name, args in (("get", ["/demo/stor/x"]), ("put", ["/demo/stor/no/x", b"1"]), ("delete", ["/demo/stor/x"])):
        with pytest.raises(MobulaError) as caught:
            driver.do(name, *args)
        assert caught.value.status == 404
        assert caught.value.code in {"ResourceNotFound", "DirectoryDoesNotExist"}
        assert len(caught.value.request_id) == 36
    with pytest.raises(MobulaError) as caught:
        driver.do("info", "/demo/stor/x")
    assert (caught.value.code, caught.value.message) == ("ResourceNotFound", "/demo/stor/x was not found")


KINDS = {
    404: NotFound, 401: AccessRefused, 403: AccessRefused, 412: ConditionFailed, 503: Unavailable, 500: MobulaError,
}  # fmt: skip


@pytest.mark.parametrize("status", KINDS)
def test_a_refusal_has_a_type(driver: Any, manta: Manta, status: int) -> None:
    manta.faults = [answering(status, "SomeCode")]
    with pytest.raises(KINDS[status]) as caught:
        driver.do("get", "/demo/stor/x")
    assert (type(caught.value), caught.value.code) == (KINDS[status], "SomeCode")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (type(again), repr(again), str(again)) == (type(caught.value), repr(caught.value), str(caught.value))


def test_what_our_own_codes_mean_has_a_type(driver: Any, manta: Manta) -> None:
    manta.faults = [lambda _, response: response.send(200, [("Content-MD5", md5(b"other"))], b"data!")]
    with pytest.raises(Damaged):
        driver.do("get", "/demo/stor/x")
    manta.faults = [lose] * effects.TRIES_MAX
    with pytest.raises(Unavailable):
        driver.do("info", "/demo/stor/x")


def test_tasks_share_a_client(manta: Manta, key: tuple[Path, str]) -> None:
    async def work(client: AsyncClient, number: int) -> None:
        for i in range(10):
            path, data = f"/demo/stor/{number}-{i}", b"%d" % number * 1000
            await client.put(path, data)
            assert b"".join([chunk async for chunk in client.get(path)]) == data

    async def run() -> None:
        async with AsyncClient(Settings(url=manta.url, account="demo", key_id=str(key[0]))) as client:
            await asyncio.gather(*(work(client, number) for number in range(8)))

    asyncio.run(run())
    assert len(manta.things) == 80


def test_a_client_may_be_closed_twice(manta: Manta, key: tuple[Path, str]) -> None:
    settings = Settings(url=manta.url, account="demo", key_id=str(key[0]))
    manta.object("/demo/public/x", b"1")
    with Client(settings) as client:
        client.info("/demo/public/x")
        client.close()
    client.close()

    async def run() -> None:
        async with AsyncClient(settings) as client:
            await client.info("/demo/public/x")
            await client.close()
        await client.close()

    asyncio.run(run())


def test_the_manuals_example_does_what_it_says(
    manta: Manta,
    key: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    example = manual.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("content")
    for name, value in (("URL", manta.url), ("USER", "demo"), ("KEY_ID", str(key[0]))):
        monkeypatch.setenv(f"MANTA_{name}", value)
    exec(compile(example, "docs/clients.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    listed, missing, *walked = capsys.readouterr().out.splitlines()
    assert listed.startswith("one 7 2")
    assert missing == "ResourceNotFound ~~/stor/books/nothing was not found"
    assert walked == ["~~/stor/books", "~~/stor/books/one", "~~/stor/books/two"]
    assert sorted(manta.things) == ["/demo/stor/books", "/demo/stor/books/one", "/demo/stor/books/two"]


def test_a_refused_upload_sends_no_body(driver: Any, manta: Manta, tmp_path: Path) -> None:
    read = []

    def chunks() -> Iterator[bytes]:
        read.append(1)
        yield b"x"

    with pytest.raises(MobulaError, match="does not exist"):
        driver.do("put", "/demo/stor/no/x", chunks())
    assert not read


def test_a_stream_is_not_lost_to_a_missing_parent(driver: Any, manta: Manta) -> None:
    driver.do("put", "/demo/stor/one/two/x", iter([b"data"]), parents=True)
    assert manta.things["/demo/stor/one/two/x"].data == b"data"


@pytest.mark.parametrize("page", [2, 4, 7, 1024])
@pytest.mark.parametrize("by_mtime", [False, True])
def test_a_listing_has_every_entry_once(driver: Any, manta: Manta, page: int, by_mtime: bool) -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    names = [f"n{i:02}" for i in range(11)] + ["ü", "a b", "-"]
    for i, name in enumerate(names):
        shared = i // 3 if page > 3 else i  # several of the same millisecond
        manta.object(f"/demo/stor/{name}", b"", at + dt.timedelta(milliseconds=shared))
    found = [e.name for e in driver.do("list_directory", "/demo/stor", Listing(page=page, by_mtime=by_mtime))]
    assert sorted(found) == sorted(names)


def test_more_entries_of_one_moment_than_a_page_holds_are_no_endless_loop(driver: Any, manta: Manta) -> None:
    for i in range(4):
        manta.object(f"/demo/stor/{i}", b"", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(MobulaError, match="list by name"):
        driver.do("list_directory", "/demo/stor", Listing(page=2, by_mtime=True))


def test_a_listing_of_an_object_is_refused(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/x", b"1")
    with pytest.raises(MobulaError, match="it is an object"):
        driver.do("list_directory", "/demo/stor/x")
    manta.directory("/demo/stor/d")
    with pytest.raises(MobulaError, match="it is a directory"):
        driver.do("get", "/demo/stor/d")


def grow(manta: Manta, width: int, depth: int, path: str = "/demo/stor/t") -> None:
    manta.directory(path)
    for i in range(width):
        manta.object(f"{path}/o{i}", b"x")
    for i in range(width if depth else 0):
        grow(manta, width, depth - 1, f"{path}/d{i}")


def test_a_tree_is_walked_and_removed(driver: Any, manta: Manta) -> None:
    grow(manta, 3, 3)
    found = driver.do("walk", "/demo/stor/t")
    assert sorted(f.path for f in found) == sorted(set(manta.things) - {"/demo/stor/t"})
    assert {f.depth for f in driver.do("walk", "/demo/stor/t", depth_max=2)} == {1, 2}
    count = len(manta.things)
    assert driver.do("delete_tree", "/demo/stor/t") == count
    assert not manta.things


def test_a_directory_larger_than_a_page_is_removed(driver: Any, manta: Manta) -> None:
    manta.directory("/demo/stor/t")
    for i in range(1500):
        manta.object(f"/demo/stor/t/{i}", b"")
    assert driver.do("delete_tree", "/demo/stor/t") == 1501
    assert not manta.things


def test_a_link_and_new_metadata(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/a (1)", b"1")
    driver.do("link", "/demo/stor/a (1)", "/demo/stor/d/b", parents=True)
    assert manta.things["/demo/stor/d/b"].data == b"1"
    driver.do("update_metadata", "/demo/stor/d/b", {"m-colour": "red"})
    assert manta.things["/demo/stor/d/b"].headers == {"m-colour": "red"}


# what goes wrong on the way


def test_a_download_that_breaks_goes_on_where_it_stopped(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/big", BIG)
    manta.cut_after_bytes = [1_000_000, 0, 500_000]
    assert b"".join(driver.do("get", "/demo/stor/big")) == BIG
    assert [m for m, _ in manta.seen] == ["GET"] * 4


def test_a_download_of_an_object_that_changes_is_given_up(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/big", BIG)
    manta.cut_after_bytes = [1_000_000]

    def change(request: Request, response: Response) -> Any:
        manta.object("/demo/stor/big", b"new")
        return manta.serve(request, response)

    manta.faults = [manta.serve, change]
    with pytest.raises(MobulaError) as caught:
        driver.do("get", "/demo/stor/big")
    assert caught.value.code == "PreconditionFailed"


def test_a_download_that_always_breaks_ends(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/big", BIG)
    manta.cut_after_bytes = [0] * 20
    with pytest.raises(MobulaError) as caught:
        driver.do("get", "/demo/stor/big")
    assert caught.value.code == "ConnectionFailed"
    assert len(manta.seen) == effects.TRIES_MAX


def test_a_lost_answer_is_asked_for_again(driver: Any, manta: Manta) -> None:
    manta.faults = [lose]
    driver.do("put", "/demo/stor/x", b"1")
    manta.faults = [lose, lose]
    assert b"".join(driver.do("get", "/demo/stor/x")) == b"1"


def test_a_delete_whose_answer_was_lost_is_done(driver: Any, manta: Manta) -> None:
    manta.object("/demo/stor/x", b"1")

    def carry_out_and_lose(request: Request, response: Response) -> None:
        del manta.things["/demo/stor/x"]
        lose(request, response)

    manta.faults = [carry_out_and_lose]
    driver.do("delete", "/demo/stor/x")


def test_a_conditional_put_is_not_repeated(driver: Any, manta: Manta) -> None:
    async def take_and_lose(request: Request, response: Response) -> None:
        await request.body(100)
        lose(request, response)

    manta.faults = [take_and_lose]
    with pytest.raises(MobulaError) as caught:
        driver.do("put", "/demo/stor/x", b"1", headers={"If-Match": ""})
    assert (caught.value.status, caught.value.code) == (0, "ConnectionFailed")
    assert len(manta.seen) == 1
    driver.do("put", "/demo/stor/x", b"1", headers={"If-Match": ""})
    with pytest.raises(MobulaError, match="something is there"):
        driver.do("put", "/demo/stor/x", b"1", headers={"If-Match": ""})


def test_a_stream_that_was_begun_is_not_repeated(driver: Any, manta: Manta) -> None:
    async def take_and_lose(request: Request, response: Response) -> None:
        await request.body(100)
        lose(request, response)

    manta.faults = [take_and_lose]
    with pytest.raises(MobulaError, match=r"connection|reset|ended"):
        driver.do("put", "/demo/stor/x", iter([b"1"]))
    assert len(manta.seen) == 1


def test_an_unavailable_service_is_asked_again_if_it_says_when(driver: Any, manta: Manta) -> None:
    manta.faults = [answering(503, "ServiceUnavailable", ("Retry-After", "0"))] * 2
    driver.do("put", "/demo/stor/x", iter([b"1"]))
    assert len(manta.seen) == 3
    manta.faults = [answering(503, "ServiceUnavailable")]
    with pytest.raises(MobulaError, match="a reason") as caught:
        driver.do("get", "/demo/stor/x")
    assert caught.value.status == 503
    manta.faults = [answering(503, "ServiceUnavailable", ("Retry-After", "0"))] * 99
    with pytest.raises(MobulaError):
        driver.do("get", "/demo/stor/x")
    assert len(manta.seen) == 3 + 1 + effects.TRIES_MAX


def test_an_answer_in_the_middle_of_an_upload_is_heard(driver: Any, manta: Manta) -> None:
    def refuse(request: Request, response: Response) -> Any:
        request.accept_body()
        return response.send_error(507, "NotEnoughSpace", "full")

    manta.faults = [refuse]
    with pytest.raises(MobulaError) as caught:
        driver.do("put", "/demo/stor/x", BIG)
    assert caught.value.code in {"NotEnoughSpace", "ConnectionFailed"}


def test_an_error_that_is_no_json_keeps_its_status(driver: Any, manta: Manta) -> None:
    manta.faults = [lambda _, response: response.send(502, [("Content-Type", "text/html")], b"<html>")]
    with pytest.raises(MobulaError, match="GET /demo/stor/x answered 502") as caught:
        driver.do("get", "/demo/stor/x")
    assert (caught.value.status, caught.value.code) == (502, "Status502")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"null", b"{}", b'{"name": "x", "type": "object", "mtime": "now"}', b"\xff"]
)
def test_a_listing_that_is_none_is_one_sentence(driver: Any, manta: Manta, body: bytes) -> None:
    headers = [("Content-Type", "application/x-json-stream; type=directory")]
    manta.faults = [lambda _, response: response.send(200, headers, body)]
    with pytest.raises(MobulaError) as caught:
        driver.do("list_directory", "/demo/stor")
    assert caught.value.code == "InvalidAnswer"
    manta.faults = [lambda _, response: response.send(500, [("Content-Type", "application/json")], body)]
    with pytest.raises(MobulaError, match="GET /demo/stor answered 500"):
        driver.do("list_directory", "/demo/stor")


def test_a_damaged_download_is_noticed(driver: Any, manta: Manta) -> None:
    headers = [("Content-MD5", md5(b"other")), ("Etag", "e")]
    manta.faults = [lambda _, response: response.send(200, headers, b"data!")]
    with pytest.raises(MobulaError) as caught:
        driver.do("get", "/demo/stor/x")
    assert caught.value.code == "BodyDamaged"


def test_nobody_there_is_one_sentence(driver: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    driver.settings = Settings(url=f"http://127.0.0.1:{port}", account="demo", key_id=None)
    with pytest.raises(MobulaError, match=f"connect to 127.0.0.1:{port}: "):
        driver.do("info", "/demo/stor/x")


def test_what_is_not_http_is_one_sentence(driver: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(1000)
                        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        driver.settings = Settings(url=f"http://127.0.0.1:{listener.getsockname()[1]}", account="demo", key_id=None)
        with pytest.raises(MobulaError):
            driver.do("info", "/demo/stor/x")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_threads_share_a_client(manta: Manta, key: tuple[Path, str]) -> None:
    settings = Settings(url=manta.url, account="demo", key_id=str(key[0]))
    failures = []
    with Client(settings) as client:

        def work(worker: int) -> None:
            try:
                for i in range(20):
                    path, data = f"/demo/stor/{worker}-{i}", b"%d" % worker * 1000
                    client.put(path, data)
                    assert b"".join(client.get(path)) == data
            except Exception as error:  # noqa: BLE001 (told to the test)
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not failures
    assert len(manta.things) == 160


def test_an_iteration_that_is_left_keeps_nothing(driver: Any, manta: Manta, key: tuple[Path, str]) -> None:
    manta.object("/demo/stor/big", BIG)
    with Client(driver.settings) as client:
        for _ in client.get("/demo/stor/big"):
            break
        assert b"".join(client.get("/demo/stor/big")) == BIG


@pytest.mark.parametrize("chunks", [[b"four"], [b"fo", b"ur and more"]])
def test_a_body_of_another_length_than_announced_is_not_stored(driver: Any, manta: Manta, chunks: list[bytes]) -> None:
    with pytest.raises(MobulaError) as caught:
        driver.do("put", "/demo/stor/x", iter(chunks), size_bytes=6)
    assert caught.value.code == "BodyChanged"
    assert not manta.things


def test_an_object_that_has_not_changed_is_said(driver: Any, manta: Manta) -> None:
    manta.faults = [lambda _, response: response.send(304, [("Etag", "e")])]
    with pytest.raises(MobulaError) as caught:
        driver.do("get", "/demo/stor/x", headers={"If-None-Match": "e"})
    assert (caught.value.status, caught.value.code) == (304, "NotModified")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(self_signed())
    return path


def self_signed(common_name: str = "test") -> bytes:
    """A self-signed certificate for 127.0.0.1, and its key, in PEM."""
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        name, name, made.public_key(), 1, now - dt.timedelta(days=1), now + dt.timedelta(days=1)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=False).sign(made, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM) + made.private_bytes(*form)


@pytest.mark.parametrize("kind", [Blocking, Asynchronous])
def test_a_server_is_trusted_by_its_ca_or_not_at_all(
    kind: Any, certificate: Path, key: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with serving(Manta(key[1]), context) as manta:
        plain = Settings(url=manta.url, account="demo", key_id=str(key[0]))
        for settings in (
            plain._replace(ca_file=str(certificate)),
            plain._replace(extra_ca_file=str(certificate)),
            plain._replace(tls_insecure=True),
        ):
            driver = kind(settings)
            driver.do("put", "/demo/stor/big", BIG)
            assert b"".join(driver.do("get", "/demo/stor/big")) == BIG
        other = tmp_path / "other.pem"
        other.write_bytes(self_signed("other"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # the system's authorities
        for extra in (None, str(other)):  # asked only when our own don't know the certificate
            kind(plain._replace(extra_ca_file=extra)).do("put", "/demo/stor/big", BIG)
        monkeypatch.setenv("SSL_CERT_FILE", str(other))
        begun_s = time.monotonic()
        with pytest.raises(MobulaError, match="MANTA_CA_FILE") as caught:
            kind(plain).do("info", "/demo/stor/big")
        assert caught.value.code == "NotTrusted"
        assert time.monotonic() - begun_s < 2  # not tried again
        (tmp_path / "junk.pem").write_text("junk")
        for name in ("junk.pem", "none.pem"):
            with pytest.raises(MobulaError, match=name):
                kind(plain._replace(ca_file=str(tmp_path / name))).do("info", "/demo/stor/big")


# jobs

JOB = "8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10"
QUEUED = {"state": "queued", "stats": {}}
DONE = {"state": "done", "stats": {}, "timeArchiveDone": "2026-01-01T00:00:00.000Z"}


def saying(status: dict[str, Any]) -> Callable[[Request, Response], Any]:
    return lambda _, response: response.send(200, [], json.dumps(status).encode())


def test_a_job_is_created_once_and_fed_once(driver: Any, manta: Manta) -> None:
    manta.faults = [lambda _, response: response.send(201, [("Location", f"/demo/jobs/{JOB}")])]
    assert driver.do("create_job", b"{}") == JOB
    manta.faults = [lambda _, response: response.send(204)]
    driver.do("add_inputs", JOB, [b"/a", b"/b"])
    seen = list(manta.seen)
    assert seen == [("POST", b"/demo/jobs"), ("POST", f"/demo/jobs/{JOB}/live/in".encode())]
    for call in (("create_job", b"{}"), ("add_inputs", JOB, [b"/a"])):
        manta.faults = [lose]  # nobody knows whether it was done
        with pytest.raises(Unavailable):
            driver.do(*call)
    assert len(manta.seen) == len(seen) + 2


@pytest.mark.parametrize("call", ["end_inputs", "cancel_job"])
def test_an_order_whose_answer_was_lost_is_given_again(driver: Any, manta: Manta, call: str) -> None:
    manta.faults = [lose, answering(409, "InvalidJobState")]
    driver.do(call, JOB)
    manta.faults = [answering(409, "InvalidJobState")]
    with pytest.raises(MobulaError) as caught:
        driver.do(call, JOB)
    assert caught.value.code == "InvalidJobState"


def test_a_job_is_waited_for_although_nobody_can_be_reached_meanwhile(
    driver: Any, manta: Manta, monkeypatch: pytest.MonkeyPatch
) -> None:
    manta.faults = [saying(QUEUED), *[answering(503, "ServiceUnavailable")] * 3, saying(QUEUED), saying(DONE)]
    assert driver.do("wait_job", JOB) == [QUEUED, QUEUED, DONE]
    monkeypatch.setattr(jobs, "AWAY_MAX", 2)
    manta.faults = [answering(503, "ServiceUnavailable")] * 2
    with pytest.raises(Unavailable):
        driver.do("wait_job", JOB)


def test_an_archived_job_has_its_status_as_an_object(driver: Any, manta: Manta) -> None:
    with pytest.raises(NotFound, match="live/status"):
        driver.do("job_status", JOB)
    manta.object(f"/demo/jobs/{JOB}/job.json", json.dumps(DONE).encode())
    assert driver.do("job_status", f"/demo/jobs/{JOB}/") == DONE
    assert driver.do("wait_job", JOB) == [DONE]
    for text in (b"", b"[]", b"{}"):
        manta.object(f"/demo/jobs/{JOB}/job.json", text)
        with pytest.raises(MobulaError) as caught:
            driver.do("job_status", JOB)
        assert caught.value.code == "InvalidAnswer"


def test_the_archive_is_waited_for(driver: Any, manta: Manta, monkeypatch: pytest.MonkeyPatch) -> None:
    early = {**DONE, "timeArchiveDone": None}
    manta.faults = [saying(early), saying(early), saying(DONE)]
    assert driver.do("wait_archived", JOB)
    monkeypatch.setattr(jobs, "ARCHIVE_S_MAX", 0.0)
    manta.faults = [saying(early)]
    assert not driver.do("wait_archived", JOB)


def test_a_live_list_says_whether_it_is_whole(driver: Any, manta: Manta) -> None:
    for total, whole in (("2", True), ("3", False), ("", True)):
        headers = [("Result-Set-Size", total)] if total else []
        manta.faults = [lambda _, response, headers=headers: response.send(200, headers, "/ä\n\n".encode())]
        found = driver.do("live_list", JOB, "out")
        assert (found.lines, list(found.said), found.whole) == (["/ä", ""], ["/ä"], whole)
