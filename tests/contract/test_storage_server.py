"""The storage protocol over the wire, against a real process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from mobula.core.capability import HEADER, Grant, sign
from mobula.core.clock import SystemClock
from mobula.core.ranges import ByteRange
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer
from mobula.wire.storage_client import (
    CopyExists,
    CopyMissing,
    CopyName,
    SourceMissing,
    SourceUnavailable,
    SourceWrong,
    StorageClient,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)

SOURCES = Path(__file__).parents[2] / "src"
KEY_TEXT = "5e" * 32
ACCOUNT = "930896af-bf8c-48d4-885c-6573a94b1853"
BOUND_S = 10.0


@dataclass
class Storage:
    process: subprocess.Popen[bytes]
    address: Address
    data_dir: Path

    def files(self) -> list[Path]:
        return sorted(path for path in self.data_dir.rglob("*") if path.is_file())

    async def settled(self) -> list[Path]:
        """The files, once no upload is on its way."""
        deadline_s = time.monotonic() + BOUND_S
        while any((self.data_dir / "tmp").iterdir()):
            assert time.monotonic() < deadline_s, "an upload stays in tmp/"
            await asyncio.sleep(0.02)
        return self.files()


PROGRAM = (sys.executable, "-m", "mobula.storage")


def start(folder: Path, *, program: Sequence[str] = PROGRAM, **fields: object) -> Storage:
    (folder / "capability-1.key").write_text(KEY_TEXT + "\n")
    config = {
        "region": "test",
        "host": "test-a-storage-01",
        "az": "a",
        "address": "127.0.0.1",
        "listen": "127.0.0.1",
        "port": 0,
        "data_dir": str(folder / "objects"),
        "capability_keys": [str(folder / "capability-1.key")],
        "fill_max": 1.0,
        **fields,
    }
    path = folder / "storage.json"
    path.write_text(json.dumps(config))
    log = folder / "storage.log"  # no pipe, which would have to be emptied
    with log.open("wb") as out:
        process = subprocess.Popen(
            # It ends with this run of the tests, however that ends.
            ["setpriv", "--pdeathsig=KILL", *program, "--config", str(path)],
            stderr=out,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
        )
    deadline_s = time.monotonic() + BOUND_S
    while process.poll() is None and time.monotonic() < deadline_s:
        for line in log.read_bytes().split(b"\n")[:-1]:
            event = json.loads(line)
            if event["event"] == "ready":
                return Storage(process, Address("127.0.0.1", event["port"]), folder / "objects")
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the storage server did not start: {process.wait()}, {log.read_text()}")


def end(storage: Storage) -> None:
    storage.process.kill()
    storage.process.wait(BOUND_S)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    storage = start(tmp_path_factory.mktemp("storage"))
    yield storage
    end(storage)


@pytest.fixture
def own_storage(tmp_path: Path) -> Iterator[Storage]:
    storage = start(tmp_path)
    yield storage
    end(storage)


@contextlib.asynccontextmanager
async def speaking(key: str = KEY_TEXT) -> AsyncIterator[StorageClient]:
    http = HttpClient(timeouts=Timeouts(response_s=BOUND_S))
    try:
        yield StorageClient(http, key=bytes.fromhex(key), caller="test", clock=SystemClock())
    finally:
        await http.close()


def new_id() -> str:
    return str(uuid.uuid4())


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


async def read(
    client: StorageClient, server: Address, object_id: str, data: bytes, part: ByteRange | None = None
) -> bytes:
    async with await client.open_get(server, ACCOUNT, object_id, len(data), md5(data), part=part) as reader:
        return b"".join([chunk async for chunk in reader.chunks()])


async def raw(storage: Storage, method: str, path: str, size: int | None, **headers: str) -> tuple[int, dict[str, str]]:
    object_id = path.rpartition("/")[2].partition(".")[0]
    grant = Grant(method, object_id, size, int(time.time()) + 60, "test")
    http = HttpClient()
    fields = [(HEADER, sign(bytes.fromhex(KEY_TEXT), grant)), *headers.items()]
    response = await http.request(storage.address, method, path, headers=fields)
    await response.body()
    await http.close()
    return response.status, {name.lower(): value for name, value in response.headers}


@pytest.mark.parametrize("size", [0, 1, 1024, 64 * 1024, 64 * 1024 + 1, 300_000, 5_000_000])
async def test_what_is_put_is_got_back(storage: Storage, size: int) -> None:
    data = os.urandom(size)
    async with speaking() as client:
        for announced in (size, None):
            object_id = new_id()
            writer = await client.open_put(storage.address, ACCOUNT, object_id, announced)
            for begin in range(0, size, 100_000):
                await writer.write(data[begin : begin + 100_000])
            stored = await writer.finish()
            assert (stored.size_bytes, stored.md5) == (size, md5(data))
            assert (storage.data_dir / ACCOUNT / f"{object_id}.{size}.{md5(data).hex()}").read_bytes() == data
            assert await read(client, storage.address, object_id, data) == data


@pytest.mark.parametrize("size", [0, 1024, 64 * 1024, 2_000_000])
async def test_what_is_put_in_one_go_is_got_back(storage: Storage, size: int) -> None:
    data, object_id = os.urandom(size), new_id()
    async with speaking() as client:
        assert (await client.put(storage.address, ACCOUNT, object_id, data)).md5 == md5(data)
        assert await read(client, storage.address, object_id, data) == data


async def test_a_thread_can_write_a_copy(storage: Storage) -> None:
    data, object_id = os.urandom(3_000_000), new_id()
    async with speaking() as client:
        writer = await client.open_put(storage.address, ACCOUNT, object_id, len(data))
        write = await writer.thread_writer()
        await asyncio.to_thread(write, memoryview(data))
        assert (await writer.finish()).md5 == md5(data)


async def test_a_copy_is_relayed_to_a_client(storage: Storage) -> None:
    data, object_id = os.urandom(3_000_000), new_id()
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, data)

        async def front(_request: Request, response: Response) -> None:
            await response.start(200, [], len(data))
            async with await client.open_get(storage.address, ACCOUNT, object_id, len(data), md5(data)) as reader:
                await reader.relay_to(response)
            await response.finish()

        server, http = HttpServer(front), HttpClient()
        address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
        assert await (await http.request(address, "GET", "/")).body(len(data)) == data
        await http.close()
        await server.stop(1.0)


@pytest.mark.parametrize("size", [1000, 100_000, 2_000_000])
async def test_any_part_can_be_read(storage: Storage, size: int) -> None:
    data, object_id = os.urandom(size), new_id()
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, data)
        for first, last in ((0, 0), (1, size - 2), (size // 2, size - 1), (0, size - 1)):
            part = await read(client, storage.address, object_id, data, ByteRange(first, last))
            assert part == data[first : last + 1]


async def test_a_range_beyond_the_end_is_refused_and_head_tells_the_size(storage: Storage) -> None:
    data, object_id = b"0123456789", new_id()
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, data)
    path = f"/objects/{ACCOUNT}/{object_id}.10.{md5(data).hex()}"
    status, headers = await raw(storage, "GET", path, 10, Range="bytes=10-")
    assert (status, headers["content-range"]) == (416, "bytes */10")
    assert (await raw(storage, "GET", path, 10, Range="bytes=0-1,3-4"))[0] == 501
    status, headers = await raw(storage, "HEAD", path, 10)
    assert (status, headers["content-length"]) == (200, "10")
    assert (await raw(storage, "HEAD", path.replace(".10.", ".11."), 11))[0] == 404
    assert (await raw(storage, "PATCH", path, 10))[0] == 405


async def test_a_deleted_copy_is_gone(storage: Storage) -> None:
    data, object_id = b"abc", new_id()
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, data)
        await client.delete(storage.address, ACCOUNT, object_id, 3, md5(data))
        with pytest.raises(CopyMissing):
            await client.delete(storage.address, ACCOUNT, object_id, 3, md5(data))
        with pytest.raises(CopyMissing):
            await read(client, storage.address, object_id, data)


async def test_an_id_is_taken_once(storage: Storage) -> None:
    object_id = new_id()
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, b"abc")
        with pytest.raises(CopyExists):
            await client.put(storage.address, ACCOUNT, object_id, b"other")
        with pytest.raises(CopyExists):
            await client.open_put(storage.address, ACCOUNT, object_id, 1 << 20)
        assert await read(client, storage.address, object_id, b"abc") == b"abc"


async def test_without_the_regions_key_nothing_is_done(storage: Storage) -> None:
    data, object_id = b"abc", new_id()
    async with speaking() as client, speaking("00" * 32) as stranger:
        await client.put(storage.address, ACCOUNT, object_id, data)
        before = storage.files()
        with pytest.raises(StorageRefused):
            await stranger.put(storage.address, ACCOUNT, new_id(), data)
        with pytest.raises(StorageRefused):
            await stranger.open_put(storage.address, ACCOUNT, new_id(), 1 << 20)
        with pytest.raises(StorageRefused):
            await read(stranger, storage.address, object_id, data)
        with pytest.raises(StorageRefused):
            await stranger.delete(storage.address, ACCOUNT, object_id, 3, md5(data))
        assert storage.files() == before


@pytest.mark.parametrize(
    "path", ["/objects/../etc", f"/objects/{ACCOUNT}/..%2f..%2fx", "/objects/tmp/x", f"/objects/{ACCOUNT}/x"]
)
async def test_a_name_that_is_none_is_refused(storage: Storage, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await raw(storage, method, path, None))[0] in (400, 404)


async def test_an_upload_that_breaks_off_leaves_nothing(storage: Storage) -> None:
    before = await storage.settled()
    async with speaking() as client:
        for announced, sent in ((5_000_000, 1_000_000), (5_000_000, 10), (None, 1_000_000), (100, 10)):
            writer = await client.open_put(storage.address, ACCOUNT, new_id(), announced)
            await writer.write(b"x" * sent)
            writer.abort()
    assert await storage.settled() == before


async def test_a_full_pool_says_so_before_the_body(tmp_path: Path) -> None:
    storage = start(tmp_path, fill_max=0.0)
    try:
        async with speaking() as client:
            with pytest.raises(StorageFull):
                await client.open_put(storage.address, ACCOUNT, new_id(), 1 << 30)
            with pytest.raises(StorageFull):
                await client.put(storage.address, ACCOUNT, new_id(), b"abc")
        assert storage.files() == []
    finally:
        end(storage)


async def test_what_was_acknowledged_survives_a_kill(own_storage: Storage) -> None:
    data = os.urandom(200_000)
    async with speaking() as client:
        unfinished = await client.open_put(own_storage.address, ACCOUNT, new_id(), 1 << 20)
        await unfinished.write(b"x" * 1000)
        object_id = new_id()
        await client.put(own_storage.address, ACCOUNT, object_id, data)
        end(own_storage)
        with pytest.raises(StorageUnavailable):
            await client.put(own_storage.address, ACCOUNT, new_id(), data)
        again = start(own_storage.data_dir.parent)
        try:
            assert [path.name for path in again.files()] == [f"{object_id}.{len(data)}.{md5(data).hex()}"]
            assert await read(client, again.address, object_id, data) == data
        finally:
            end(again)


async def test_a_stop_lets_an_upload_finish(own_storage: Storage) -> None:
    async with speaking() as client:
        writer = await client.open_put(own_storage.address, ACCOUNT, new_id(), 600_000)
        await writer.write(b"x" * 300_000)
        own_storage.process.send_signal(signal.SIGTERM)
        await writer.write(b"x" * 300_000)
        assert (await writer.finish()).size_bytes == 600_000
        assert await asyncio.to_thread(own_storage.process.wait, BOUND_S) == 0
        with pytest.raises(StorageUnavailable):
            await client.put(own_storage.address, ACCOUNT, new_id(), b"abc")


async def test_the_status_tells_who_and_how_much(storage: Storage) -> None:
    http = HttpClient()
    response = await http.request(storage.address, "GET", "/status")
    status = json.loads(await response.body())
    assert (status["service"], status["healthy"], status["host"]) == ("storage", True, "test-a-storage-01")
    config = storage.data_dir.parent / "storage.json"
    assert status["config_digest"] == hashlib.sha256(config.read_bytes()).hexdigest()
    assert 0 < status["available_bytes"] < status["size_bytes"]
    assert b"http_request_seconds" in await (await http.request(storage.address, "GET", "/metrics")).body()
    assert (await http.request(storage.address, "GET", "/ping")).status == 200
    await http.close()
    async with speaking() as client:
        capacity = await client.capacity(storage.address)
        assert capacity.size_bytes == status["size_bytes"]


class Busy:
    """Puts small objects, and deletes some, until the server is gone; what was acknowledged, and what may have happened."""

    def __init__(self, server: Address, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)  # noqa: S311
        self.there: dict[str, bytes] = {}
        self.gone: dict[str, bytes] = {}
        self.asked: set[str] = set()
        """of these no answer came"""

    async def work(self, client: StorageClient) -> None:
        with contextlib.suppress(StorageUnavailable):
            while True:
                object_id, data = new_id(), self.random.randbytes(self.random.choice([0, 1, 1000, 65_536]))
                self.asked.add(object_id)
                await client.put(self.server, ACCOUNT, object_id, data)
                self.there[object_id] = data
                self.asked.discard(object_id)
                if self.random.random() < 0.3:
                    victim = self.random.choice(list(self.there))
                    lost = self.there.pop(victim)
                    self.asked.add(victim)
                    await client.delete(self.server, ACCOUNT, victim, len(lost), md5(lost))
                    self.gone[victim] = lost
                    self.asked.discard(victim)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_was_acknowledged_survives_a_kill_and_the_loss_of_every_unsynced_file(
    tmp_path: Path, seed: int
) -> None:
    """A file system may have none of the files that were not synced; the log brings them back."""
    storage = start(tmp_path)
    try:
        busy = Busy(storage.address, seed)
        async with speaking() as client:
            tasks = [asyncio.create_task(busy.work(client)) for _ in range(8)]
            wanted = busy.random.randint(50, 400)
            async with asyncio.timeout(BOUND_S):
                while len(busy.there) + len(busy.gone) < wanted:
                    await asyncio.sleep(0.001)
            storage.process.kill()
            storage.process.wait(BOUND_S)
            await asyncio.gather(*tasks)
        assert busy.gone
        for path in (storage.data_dir / ACCOUNT).iterdir():
            if busy.random.random() < 0.5:
                path.unlink()
            elif busy.random.random() < 0.5:
                os.truncate(path, 0)
    finally:
        end(storage)
    storage = start(tmp_path)
    try:
        async with speaking() as client:
            for object_id, data in busy.there.items():
                assert await read(client, storage.address, object_id, data) == data
            for object_id, data in busy.gone.items():
                with pytest.raises(CopyMissing):
                    await read(client, storage.address, object_id, data)
        ids = {path.name.partition(".")[0] for path in storage.files()}
        assert ids - busy.there.keys() <= busy.asked
    finally:
        end(storage)


async def test_files_are_listed_in_pages_to_who_may_and_only_old_ones(own_storage: Storage) -> None:
    bodies = [os.urandom(size) for size in (10, 70_000)] * 3
    async with speaking() as client:
        names = set()
        for body in bodies:  # the small ones are in the log still
            object_id = new_id()
            await client.put(own_storage.address, ACCOUNT, object_id, body)
            names.add((ACCOUNT, object_id, len(body), md5(body).hex()))
        page = await client.list_files(own_storage.address, after="", older_s=0)
        assert {(f.account, f.object_id, f.size_bytes, f.md5) for f in page.files} == names
        assert (page.looked_at, page.next) == (len(names), "")
        assert all(0 <= f.age_s <= BOUND_S for f in page.files)
        assert (await client.list_files(own_storage.address, after="", older_s=3600)).files == ()
        with pytest.raises(StorageRefused, match="InvalidMarker"):
            await client.list_files(own_storage.address, after="../x", older_s=0)
    async with speaking("00" * 32) as stranger:
        with pytest.raises(StorageRefused):
            await stranger.list_files(own_storage.address, after="", older_s=0)


@pytest.mark.parametrize("older", ["-1", "x", "1e3", "9" * 40, "\u0663"])
async def test_a_listing_of_files_older_than_nonsense_is_refused(storage: Storage, older: str) -> None:
    grant = Grant("GET", "*", None, int(time.time()) + 60, "test")
    http = HttpClient()
    target = f"/objects?{urlencode({'older_s': older})}"
    response = await http.request(
        storage.address, "GET", target, headers=[(HEADER, sign(bytes.fromhex(KEY_TEXT), grant))]
    )
    assert response.status == 400
    await response.body()
    await http.close()


async def test_a_small_file_that_is_deleted_while_its_log_stands_stays_away_after_a_crash(tmp_path: Path) -> None:
    storage = start(tmp_path)
    object_id = new_id()
    try:
        async with speaking() as client:
            await client.put(storage.address, ACCOUNT, object_id, b"small")
            await client.delete(storage.address, ACCOUNT, object_id, 5, md5(b"small"))
    finally:
        end(storage)
    storage = start(tmp_path)
    try:
        async with speaking() as client:
            assert (await client.list_files(storage.address, after="", older_s=0)).files == ()
    finally:
        end(storage)


# copies from another server, and bytes that are not what they should be


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    other = start(tmp_path_factory.mktemp("other"))
    yield other
    end(other)


def name_of(object_id: str, data: bytes) -> CopyName:
    return CopyName(ACCOUNT, object_id, len(data), md5(data))


def file_of(storage: Storage, name: CopyName) -> Path:
    return storage.data_dir / str(name)


@pytest.mark.parametrize("size", [1, 1024, 64 * 1024, 64 * 1024 + 1, 3_000_000])
async def test_a_server_fetches_another_ones_copy(storage: Storage, other: Storage, size: int) -> None:
    data, object_id = os.urandom(size), new_id()
    name = name_of(object_id, data)
    async with speaking() as client:
        await client.put(other.address, ACCOUNT, object_id, data)
        assert not await client.holds(storage.address, name)
        assert await client.copy(storage.address, name, other.address)
        assert file_of(storage, name).read_bytes() == data
        assert await client.holds(storage.address, name)
        assert await read(client, storage.address, object_id, data) == data
        assert not await client.copy(storage.address, name, other.address)


@pytest.mark.parametrize("size", [1000, 1_000_000])
async def test_a_copy_that_went_or_rotted_is_brought_back(storage: Storage, other: Storage, size: int) -> None:
    data, object_id = os.urandom(size), new_id()
    name = name_of(object_id, data)
    async with speaking() as client:
        for server in (storage, other):
            await client.put(server.address, ACCOUNT, object_id, data)
        file_of(storage, name).unlink()
        assert await client.copy(storage.address, name, other.address)
        file_of(storage, name).write_bytes(os.urandom(size))
        assert await client.copy(storage.address, name, other.address)
        assert file_of(storage, name).read_bytes() == data


@pytest.mark.parametrize("size", [1000, 1_000_000])
async def test_a_copy_is_taken_only_if_it_is_right(storage: Storage, other: Storage, size: int) -> None:
    data, object_id = os.urandom(size), new_id()
    name = name_of(object_id, data)
    before = storage.files()
    async with speaking() as client:
        with pytest.raises(SourceMissing):
            await client.copy(storage.address, name, other.address)
        with pytest.raises(SourceUnavailable):
            await client.copy(storage.address, name, Address("127.0.0.1", 1))

        async def liar(_request: Request, response: Response) -> None:
            await response.send(200, [], os.urandom(size))

        server = HttpServer(liar)
        with pytest.raises(SourceWrong):
            await client.copy(storage.address, name, Address("127.0.0.1", await server.listen("127.0.0.1", 0)))
        await server.stop(1.0)
    async with speaking("00" * 32) as stranger:
        with pytest.raises(StorageRefused):
            await stranger.copy(storage.address, name, other.address)
    path = f"/objects/{name}"
    for source in ("", "localhost:1", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999"):
        assert (await raw(storage, "POST", path, size, **{"x-mobula-source": source}))[0] == 400
    assert (await raw(storage, "POST", path, size, **{"x-mobula-source": str(other.address)}))[0] == 424
    assert await storage.settled() == before


async def test_a_copy_whose_source_dies_leaves_nothing(storage: Storage) -> None:
    name, begun = name_of(new_id(), b"x" * 5_000_000), asyncio.Event()
    before = storage.files()

    async def dying(_request: Request, response: Response) -> None:
        await response.start(200, [], 5_000_000)
        await response.write(b"x" * 2_000_000)
        begun.set()
        raise ConnectionAbortedError

    server = HttpServer(dying)
    async with speaking() as client:
        with pytest.raises(SourceUnavailable):
            await client.copy(storage.address, name, Address("127.0.0.1", await server.listen("127.0.0.1", 0)))
    await server.stop(1.0)
    assert begun.is_set()
    assert await storage.settled() == before


@pytest.mark.parametrize(
    ("size", "how"),
    [
        *((size, how) for size in (1, 1000, 64 * 1024) for how in ("rewritten", "shorter")),
        *((size, how) for size in (64 * 1024 + 1, 1_000_000, 70_000_000) for how in ("rewritten", "shorter", "longer")),
    ],
)
async def test_wrong_bytes_are_never_given_out(storage: Storage, size: int, how: str) -> None:
    """Not even of a file that was right when it was last looked at."""
    data, object_id = b"r" * size, new_id()
    name = name_of(object_id, data)
    async with speaking() as client:
        await client.put(storage.address, ACCOUNT, object_id, data)
        assert await read(client, storage.address, object_id, data) == data
        file = file_of(storage, name)
        if how == "rewritten":
            with file.open("r+b") as out:
                out.seek(size // 2)
                out.write(b"w")
        else:
            with file.open("r+b") as out:
                out.truncate(size - 1 if how == "shorter" else size + 1)
        with pytest.raises((CopyMissing, StorageUnavailable)):
            await read(client, storage.address, object_id, data)
        with pytest.raises(CopyMissing):
            await read(client, storage.address, object_id, data, ByteRange(0, 0))
        assert str(name) in (await client.capacity(storage.address)).wrong_copies
        assert not file.exists()
        (storage.data_dir / "quarantine" / str(name).replace("/", ".")).unlink()


async def wait_for_wrong(client: StorageClient, server: Address, name: CopyName, *, wrong: bool) -> None:
    async with asyncio.timeout(BOUND_S):
        while (str(name) in (await client.capacity(server)).wrong_copies) != wrong:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("mended", [False, True])
async def test_wrong_bytes_are_kept_until_their_object_is_deleted(
    tmp_path: Path, other: Storage, *, mended: bool
) -> None:
    storage = start(tmp_path)
    try:
        async with speaking() as client:
            data, object_id = os.urandom(300_000), new_id()
            name = name_of(object_id, data)
            for server in (storage, other):
                await client.put(server.address, ACCOUNT, object_id, data)
            os.truncate(file_of(storage, name), 10)
            with pytest.raises(CopyMissing):
                await read(client, storage.address, object_id, data)
            if mended:
                assert await client.copy(storage.address, name, other.address)
            assert [path.name for path in (storage.data_dir / "quarantine").glob("*-*")]
            with contextlib.nullcontext() if mended else pytest.raises(CopyMissing):
                await client.delete(storage.address, ACCOUNT, object_id, len(data), name.md5)
            assert not [path.name for path in (storage.data_dir / "quarantine").glob("*-*")]
            end(storage)
            storage = start(tmp_path)
            assert (await client.capacity(storage.address)).wrong_copies == ()
    finally:
        end(storage)


async def test_what_nobody_reads_is_verified_all_the_same(tmp_path: Path, other: Storage) -> None:
    """Found, put aside, also known after a restart, and right again once another server's copy has come."""
    storage = start(tmp_path, verify_settle_s=0.05)
    try:
        async with speaking() as client:
            for size in (1000, 300_000):
                data, object_id = os.urandom(size), new_id()
                name = name_of(object_id, data)
                for server in (storage, other):
                    await client.put(server.address, ACCOUNT, object_id, data)
                os.truncate(file_of(storage, name), 10)
                await wait_for_wrong(client, storage.address, name, wrong=True)
                assert not await client.holds(storage.address, name)
            end(storage)
            storage = start(tmp_path, verify_settle_s=0.05)
            # The log brings back what it has; the last one is too large for it.
            assert str(name) in (await client.capacity(storage.address)).wrong_copies
            assert await client.copy(storage.address, name, other.address)
            await wait_for_wrong(client, storage.address, name, wrong=False)
            assert await read(client, storage.address, object_id, data) == data
    finally:
        end(storage)
