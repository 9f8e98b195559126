"""A webapi in the test's process: the real handlers and storage servers on loopback, metadata in memory, accounts at hand.

Everything runs on one event loop in a thread, so that tests are plain functions which speak over sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mobula.core.accounts import Account, User
from mobula.core.clock import SystemClock
from mobula.core.errors import unavailable
from mobula.core.keys import load_public_key
from mobula.core.tokens import TokenKey
from mobula.jobs.wire import SupervisorDoor
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.memory import MemoryMetadata
from mobula.metadata.model import Metadata, StorageServer
from mobula.storage import app as storage_app
from mobula.storage.config import StorageConfig
from mobula.webapi.app import Webapi
from mobula.webapi.context import JobsOfRegion, Store
from mobula.webapi.notes import Notes
from mobula.webapi.placement import StorageDirectory
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer, Limits
from mobula.wire.storage_client import StorageClient
from mobula.wire.supervisors import Line, Supervisors
from tests.region.signed import Client

KEY_TEXT = "5e" * 32
BOUND_S = 10.0
TOKEN_KEY = TokenKey.derived(bytes.fromhex(KEY_TEXT))
IMAGES = ("1.0.0", "1.1.0")
IDENTITY = (("Server", "Manta"), ("x-server-name", "test"))


def new_key() -> tuple[bytes, str, str]:
    """A private key (PEM), its public half as accounts hold it (PEM), and the fingerprint."""
    key = ed25519.Ed25519PrivateKey.generate()
    kind = serialization.PrivateFormat.PKCS8
    return halves(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))


def halves(private_pem: bytes) -> tuple[bytes, str, str]:
    """A private key (PEM), its public half as accounts hold it (PEM), and the fingerprint."""
    line = serialization.load_pem_private_key(private_pem, None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = load_public_key(line.public_bytes(serialization.Encoding.PEM, form).decode())
    return private_pem, public.pem, public.fingerprint_md5


class KnownAccounts:
    """`mobula.wire.accounts.Accounts` of a dict, in place of an authcache."""

    def __init__(self) -> None:
        self.by_login: dict[str, Account] = {}
        self.away = False

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:  # noqa: ARG002 (all are known)
        if self.away:
            raise unavailable("accounts can't be looked up: no authcache is known")
        return self.by_login.get(login)

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        return next((account for account in self.by_login.values() if account.uuid == number), None)


@dataclass(slots=True)
class Room:
    """What a storage server says of its capacity."""

    size_bytes: int = 1 << 40
    available_bytes: int = 1 << 39


@dataclass(slots=True)
class Storage:
    """One storage server: the real one, but for its capacity."""

    server: storage_app.ObjectServer
    room: Room
    files: Path

    async def handle(self, request: Request, response: Response) -> None:
        if request.path == b"/status":
            room = {"size_bytes": self.room.size_bytes, "available_bytes": self.room.available_bytes}
            await response.send(200, [], json.dumps({"healthy": True, **room}).encode())
        else:
            await self.server.handle(request, response)


@dataclass(slots=True)
class LocalRegion:
    """Start it with `start`, end it with `stop`. `room` is said by all storage servers."""

    folder: Path
    storages_count: int = 2
    entries_max: int = 1_000_000
    room: Room = field(default_factory=Room)
    limits: Limits = field(default_factory=Limits)
    accounts: KnownAccounts = field(default_factory=KnownAccounts)
    storages: list[Storage] = field(default_factory=list)
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """what the webapi's handlers got"""
    notes: Notes = field(default_factory=Notes)
    jobs: MemoryJobs | None = None
    """None: there is no compute"""
    woken: list[uuid.UUID] = field(default_factory=list)
    """jobs of which a supervisor would have heard"""
    leads: dict[int, Any] = field(default_factory=lambda: {1: SimpleNamespace(leads=True)})
    """what stands in for a supervisor's term, by shard: terminals need no more of it"""
    storage: StorageClient = field(init=False)
    directory: StorageDirectory = field(init=False)
    metadata: MemoryMetadata = field(init=False)
    store: Store = field(init=False)
    _dying: bool = False
    _private: dict[str, bytes] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _thread: threading.Thread = field(init=False)
    _stopping: list[Any] = field(default_factory=list)
    _clients: list[Client] = field(default_factory=list)

    def start(self) -> None:
        """Returns when the webapi takes requests."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self._start())

    def stop(self) -> None:
        """End everything, the clients' connections too."""
        for client in self._clients:
            client.close()
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND_S)
        self._loop.close()

    def call[T](self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, run on the region's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND_S)

    async def _start(self) -> None:
        key = self.folder / "capability.key"
        key.write_text(KEY_TEXT)
        servers = [await self._start_storage(number, str(key)) for number in range(self.storages_count)]
        tier = await self._tier(servers)
        http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=BOUND_S))
        self.storage = storage = StorageClient(http, key=bytes.fromhex(KEY_TEXT), caller="test", clock=SystemClock())
        self.directory = directory = StorageDirectory(storage)
        directory.start()
        directory.on_change({server.id: Address(server.address, server.port) for server in servers})
        self._stopping += [http.close, directory.stop]
        async with asyncio.timeout(BOUND_S):
            while len(directory.rooms) < len(servers):
                await asyncio.sleep(0.002)
        jobs = await self._compute(http, self.jobs) if self.jobs is not None else None
        self.store = store = Store(tier, storage, directory, "a", random.Random(1), self.notes, jobs)  # noqa: S311
        handlers = Webapi(self.accounts, store, TOKEN_KEY)

        async def handle(request: Request, response: Response) -> None:
            if self._dying:
                response._connection._transport.abort()  # type: ignore[attr-defined]
                return
            self.asked.append(f"{request.method} {request.target.decode('latin-1')}")
            await handlers.handle(request, response)

        webapi = HttpServer(handle, limits=self.limits, identity=IDENTITY)
        self.port = await webapi.listen("127.0.0.1", 0)
        self._stopping.append(lambda: webapi.stop(1.0))

    async def _compute(self, http: HttpClient, kept: MemoryJobs) -> JobsOfRegion:
        """Jobs, and the part of a supervisor that has to do with terminals."""
        keys = [bytes.fromhex(KEY_TEXT)]
        supervisor = HttpServer(SupervisorDoor(self.leads, keys, SystemClock()).handle)
        port = await supervisor.listen("127.0.0.1", 0)
        self._stopping.append(lambda: supervisor.stop(1.0))
        zookeeper: Any = None
        found = Supervisors(zookeeper)
        found._on_change({"supervisors": {"shard-1": f"127.0.0.1:{port}".encode()}})
        line = Line(found, http, key=keys[0], caller="test", clock=SystemClock())
        return JobsOfRegion(
            kept, self.woken.append, lambda job, side, headers: line.attach(1, job, side, headers), IMAGES
        )

    async def _tier(self, servers: Sequence[StorageServer]) -> Metadata:
        """The metadata tier: in memory, unless a subclass has another one."""
        self.metadata = MemoryMetadata(servers, entries_max=self.entries_max)
        return self.metadata

    async def _start_storage(self, number: int, key: str) -> StorageServer:
        host = f"storage-{number}"
        files = self.folder / host
        config = StorageConfig("test", host, "abc"[number % 3], "127.0.0.1", 0, str(files), (key,), fill_max=1.0)
        storage = Storage(storage_app.build(config), self.room, files)
        await storage.server.start()
        self.storages.append(storage)
        frame = HttpServer(storage.handle)
        port = await frame.listen("127.0.0.1", 0)
        self._stopping += [storage.server.stop, lambda: frame.stop(1.0)]
        return StorageServer(host, config.az, "127.0.0.1", port)

    async def _stop(self) -> None:
        for end in reversed(self._stopping):
            work = end()
            if work is not None:
                await work

    @contextlib.contextmanager
    def dying(self) -> Iterator[None]:
        """The webapi's connections end when it has got a request."""
        self._dying = True
        try:
            yield
        finally:
            self._dying = False

    # accounts

    def add_account(self, login: str, *, approved: bool = True, operator: bool = False) -> Account:
        """A new account with a key."""
        self._private[login], pem, fingerprint = new_key()
        account = Account(uuid.uuid4(), login, approved, operator, {fingerprint: pem})
        self.accounts.by_login[login] = account
        return account

    def add_key(self, login: str, private_pem: bytes) -> None:
        """Give an account one more key."""
        _, pem, fingerprint = halves(private_pem)
        account = self.accounts.by_login[login]
        keys = {**account.keys, fingerprint: pem}
        self.accounts.by_login[login] = msgspec.structs.replace(account, keys=keys)

    def add_user(self, login: str, user: str, private_pem: bytes | None = None) -> User:
        """A new sub-user with a key of its own, or with that one."""
        self._private[f"{login}/{user}"], pem, fingerprint = new_key() if private_pem is None else halves(private_pem)
        account, added = self.accounts.by_login[login], User(uuid.uuid4(), user, {fingerprint: pem})
        self.accounts.by_login[login] = msgspec.structs.replace(account, users={**account.users, user: added})
        return added

    def client(self, login: str, user: str | None = None) -> Client:
        """Requests of an account that `add_account` made, or of a sub-user that `add_user` made."""
        client = Client(self.port, login, self._private[f"{login}/{user}" if user else login], user=user, tls=False)
        self._clients.append(client)
        return client

    def files(self) -> list[str]:
        """Names of all object files, of all storage servers."""
        return sorted(path.name for s in self.storages for path in s.files.glob("*-*/*"))

    def files_settled(self) -> list[str]:
        """The same, once the storage servers have dropped what was given up (bounded)."""
        deadline_s = time.monotonic() + BOUND_S
        while any(any((s.files / "tmp").iterdir()) for s in self.storages) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return self.files()
