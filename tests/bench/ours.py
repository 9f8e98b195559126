"""Mobula itself, from the base image and this clone's release: everything that answers a request in production, except the
loadbalancer in front (peers have none either) and Patroni, whose keys are written by hand (nobody fails over here).

ZooKeeper; PostgreSQL, a primary and its synchronous standby, each with its guard and under a lease; an authcache; two storage servers in
two AZs; a webapi per core. Metadata and accounts go over TLS, the client's side and the objects' bytes in clear text. Logs go to
files, at the level of a region.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import email.utils
import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mobula.core.keys import load_public_key
from mobula.metadata import admin, migrate
from mobula.metadata.config import Postgres
from mobula.metadata.model import StorageServer
from mobula.wire.zookeeper import Client, NodeExists
from ops import release, task_image
from ops.region import CACHE
from ops.secrets import Authority
from tests.bench.plan import MIB
from tests.bench.system import BenchError, System, ask
from tests.probe import postgres, shard, zookeeper
from tests.probe.machine import INSIDE, Process, root, user_id

ACCOUNT = "bench"
WEBAPI_PORT, WEBAPI_STATUS, AUTHCACHE_PORT, STORAGE_PORT, GUARD_STATUS = 7080, 7180, 7070, 7060, 7009
PEERS = ("a", "b")
START_BOUND_S = 60.0
DATES = 64
"""requests are signed with so many dates in turn, a second apart: a signature is over its date, as Manta's clients make it"""
# As roles/metadata has it, beside what the probes' servers have anyway.
PRODUCTION = """
max_connections = 200
shared_buffers = 32MB
max_worker_processes = 4
wal_keep_size = 256MB
checkpoint_timeout = 5min
max_wal_size = 512MB
min_wal_size = 96MB
log_min_messages = warning
log_checkpoints = off
"""


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes what a client of the account sends to prove itself."""

    key: rsa.RSAPrivateKey

    @property
    def public_text(self) -> str:
        """The key's public half, as an OpenSSH line."""
        public = self.key.public_key()
        return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

    def heads(self) -> list[str]:
        """Signed header blocks, each of another date around now."""
        fingerprint = load_public_key(self.public_text).fingerprint_md5
        now, blocks = dt.datetime.now(dt.UTC), []
        for number in range(DATES):
            date = email.utils.format_datetime(now + dt.timedelta(seconds=number - DATES // 2), usegmt=True)
            signature = self.key.sign(f"date: {date}".encode(), padding.PKCS1v15(), hashes.SHA256())
            blocks.append(
                f"Date: {date}\r\n"
                f'Authorization: Signature keyId="/{ACCOUNT}/keys/{fingerprint}",algorithm="rsa-sha256",headers="date",'
                f'signature="{base64.b64encode(signature).decode()}"\r\n'
            )
        return blocks


@dataclass(frozen=True, slots=True)
class Ours(System):
    """What the measurements of our own limits and of jobs need besides."""

    folder: Path = Path()
    webapis: Sequence[int] = ()
    """process ids, in the order of `ports`"""
    zookeeper: str = ""
    primary: postgres.Server = None  # type: ignore[assignment]  # (fields with a default come before it)


class Services:
    """Starts processes of the release; each with its config."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.pids: list[int] = []
        self._stack = stack

    def start(self, name: str, package: str, user: str, config: Mapping[str, object]) -> None:
        """Start one, without waiting for it."""
        (self.folder / f"{name}.json").write_text(json.dumps({"region": "bench", "address": "127.0.0.1", **config}))
        argv = ["/usr/bin/python3", "-m", f"mobula.{package}", "--config", f"{INSIDE}/{name}.json"]
        environment = {"PYTHONPATH": f"{INSIDE}/lib", "PYTHONDONTWRITEBYTECODE": "1"}
        process = Process(self.folder, user_id(user), argv, environment, log=f"{name}.log")
        self._stack.callback(process.kill)
        self.pids.append(process.pid)

    def wait(self, name: str, url: str, wanted: Callable[[bytes], bool] = lambda _: True) -> None:
        """Until `url` answers well. Raises BenchError."""
        end, why = time.monotonic() + START_BOUND_S, "no answer"
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (our own address)
                    found = answer.read()
                if wanted(found):
                    return
                why = found[:200].decode(errors="replace")
            except OSError as error:
                why = str(error)
            time.sleep(0.1)
        said = (self.folder / f"{name}.log").read_text()[-400:]
        raise BenchError(f"start {name}: {why} after {START_BOUND_S:.0f} s; {said}")


def ensure_libraries(progress: Callable[[str], None]) -> Path:
    """The services' libraries, unpacked into the cache first. Raises OperatorError."""
    return release.libraries(CACHE, root(), progress)


@contextmanager
def running(folder: Path, libraries: Path, cores: int) -> Iterator[Ours]:
    """A region's services on fresh data in `folder`.

    Raises:
        BenchError, ProbeError: something of it does not get ready.
    """
    signer = Signer(rsa.generate_private_key(65537, 2048))
    with ExitStack() as stack:
        services = Services(folder, stack)
        shutil.copytree(libraries, folder / "lib", copy_function=os.link)
        release.install_package(folder / "lib/mobula", root())
        _secrets(folder / "secrets")
        keeper = zookeeper.Server(_folder(folder / "zookeeper"))
        stack.callback(keeper.stop)
        keeper.start()
        peers = [postgres.Server(_folder(folder / f"postgres-{name}")) for name in PEERS]
        for peer in peers:
            stack.callback(peer.remove)
        asyncio.run(_shard(peers, folder / "secrets"))
        asyncio.run(_patronis_part(keeper.address, peers))
        _guards(services, keeper.address, peers)
        _start_services(services, keeper.address, peers[0].port, signer, cores)
        ports = [WEBAPI_PORT + number for number in range(cores)]
        system = Ours(
            "mobula", release.version(), ports, f"/{ACCOUNT}/stor/bench/", signer.heads, lambda c: _pages(c, signer),
            f"/{ACCOUNT}/stor/list/", [*services.pids, keeper.pid, *(peer.pid for peer in peers)], lambda: _clear(folder),
            folder, [child_of(pid) for pid in services.pids[-cores:]], keeper.address, peers[0],
        )  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", WEBAPI_PORT, timeout=30)
        stack.callback(connection.close)
        for name in ("bench", "list"):
            kind = "application/json; type=directory"
            system.request(connection, "PUT", f"/{ACCOUNT}/stor/{name}", Content_Type=kind)
        for port in ports:
            _until_stored(system, port)
        yield system


def child_of(pid: int) -> int:
    """The process that a starter stands for: its only child's only child..., to the last one."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def _until_stored(system: System, port: int) -> None:
    """A webapi takes objects as soon as it knows both storage servers' room. Raises BenchError."""
    end = time.monotonic() + START_BOUND_S
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while True:
        try:
            system.request(connection, "PUT", f"{system.prefix}first", b"first")
        except BenchError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            connection.close()
            return


def _clear(folder: Path) -> None:
    """The garbage collector's part, for what fills the disk. Small files stay: an ext4 without a journal searches for a new inode
    all the longer, the more were freed in the last seconds, and the next measurement would pay for it.
    """
    for path in folder.glob("data-?/*-*/*"):
        if path.stat().st_size >= MIB:
            path.unlink()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _secrets(at: Path) -> None:
    at.mkdir()
    authority = Authority(at, "bench")
    authority.certify(at / "host", "host", ["localhost"], ["127.0.0.1"])
    authority.certify(at / "mobula", "mobula", [], ["127.0.0.1"])
    (at / "capability-1.key").write_text(os.urandom(32).hex() + "\n")
    subprocess.run(["chown", "-R", str(user_id("nobody")), str(at)], check=True)


async def _shard(peers: Sequence[postgres.Server], secrets: Path) -> None:
    """A primary with the schema, and its synchronous standby."""
    primary, standby = peers
    user = user_id("postgres")
    for name in ("ca.pem", "host.pem", "host.key"):
        shutil.copyfile(secrets / name, primary.folder / name)
        os.chown(primary.folder / name, user, user)
    (primary.folder / "host.key").chmod(0o600)
    primary.make(hba="hostssl mobula mobula 127.0.0.0/8 cert")
    primary.configure(shard.TLS + PRODUCTION)
    primary.start()
    await primary.ready()
    await migrate.migrate(str(primary.folder), primary.port)
    standby.copy_of(primary, PEERS[1])
    source = f"host={primary.address} port={primary.port} user=postgres application_name={PEERS[1]}"
    standby.configure(f"primary_conninfo = '{source}'\n{PRODUCTION}")
    standby.start()
    await standby.ready()
    primary.configure(f"{shard.TLS}{PRODUCTION}synchronous_standby_names = '{PEERS[1]}'\n")
    connection = await primary.connect()
    try:
        await connection.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(START_BOUND_S):
            sql = "SELECT sync_state FROM pg_stat_replication"
            while await connection.fetchval(sql) != "sync":
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def _patronis_part(address: str, peers: Sequence[postgres.Server]) -> None:
    """Who leads the shard, and the storage servers' registrations."""
    client = Client([address])
    client.start()
    try:
        await client.wait_connected(START_BOUND_S)
        member = {"conn_url": f"postgres://{peers[0].address}:{peers[0].port}/postgres", "role": "primary"}
        nodes: dict[str, object] = {
            "/patroni/shard-1/members/a": member,
            "/patroni/shard-1/sync": {"leader": PEERS[0], "sync_standby": PEERS[1]},
        }
        for number, name in enumerate(PEERS):
            nodes[f"/names/storage/storage-{name}"] = {"address": "127.0.0.1", "port": STORAGE_PORT + number, "ttl": 5}
        for path, value in nodes.items():
            await client.ensure_path(path)
            await client.set(path, json.dumps(value).encode())
        await client.ensure_path("/metadata")
        try:
            await client.create("/patroni/shard-1/leader", PEERS[0].encode())
        except NodeExists:
            raise BenchError("write the leader key: it is there; the folder of ZooKeeper is not fresh") from None
    finally:
        await client.stop()


def _guards(services: Services, zookeeper_address: str, peers: Sequence[postgres.Server]) -> None:
    names = [{"host": name, "address": peer.address} for name, peer in zip(PEERS, peers, strict=True)]
    for number, (name, peer) in enumerate(zip(PEERS, peers, strict=True)):
        services.start(f"guard-{name}", "metadata.guard", "postgres", {
            "host": name, "az": name, "shard": 1, "peers": names, "zookeeper": [zookeeper_address],
            "socket_dir": f"{INSIDE}/postgres-{name}", "postgres_port": peer.port, "status_port": GUARD_STATUS + number,
        })  # fmt: skip
    for number, name in enumerate(PEERS):
        url = f"http://127.0.0.1:{GUARD_STATUS + number}/status"
        services.wait(f"guard-{name}", url, lambda found: bool(json.loads(found)["healthy"]))


def _start_services(services: Services, zookeeper_address: str, postgres_port: int, signer: Signer, cores: int) -> None:
    """Authcache, region data, storage servers, webapis."""
    secrets = f"{INSIDE}/secrets"
    tls = {"ca": f"{secrets}/ca.pem", "certificate": f"{secrets}/mobula.pem", "key": f"{secrets}/mobula.key"}
    server_tls = {**tls, "certificate": f"{secrets}/host.pem", "key": f"{secrets}/host.key"}
    keys = [f"{secrets}/capability-1.key"]
    common = {"az": "a", "zookeeper": [zookeeper_address], "postgres": {**tls, "port": postgres_port}}
    for number, name in enumerate(PEERS):
        data = _folder(services.folder / f"data-{name}")
        os.chown(data, user_id("nobody"), -1)
        services.start(f"storage-{name}", "storage", "nobody", {
            "host": f"storage-{name}", "az": name, "port": STORAGE_PORT + number, "data_dir": f"{INSIDE}/data-{name}",
            "capability_keys": keys,
        })  # fmt: skip
    config = {**common, "host": "authcache", "port": AUTHCACHE_PORT, "tls": server_tls}
    services.start("authcache", "auth", "nobody", config)
    asyncio.run(_region_data(services.folder / "secrets", zookeeper_address, postgres_port, signer))
    for number in range(cores):
        services.start(f"webapi-{number}", "webapi", "nobody", {
            **common, "host": f"webapi-{number}", "port": WEBAPI_PORT + number, "status_port": WEBAPI_STATUS + number,
            "domain": "mobula.test", "authcaches": [f"127.0.0.1:{AUTHCACHE_PORT}"], "tls": tls, "capability_keys": keys,
            "images": [task_image.VERSION],
        })  # fmt: skip
    for number, name in enumerate(PEERS):
        services.wait(f"storage-{name}", f"http://127.0.0.1:{STORAGE_PORT + number}/ping")
    for number in range(cores):
        services.wait(f"webapi-{number}", f"http://127.0.0.1:{WEBAPI_PORT + number}/ping")


async def _region_data(secrets: Path, zookeeper_address: str, postgres_port: int, signer: Signer) -> None:
    """Shard map, placement groups, account and key: by the same verbs as an operator's command."""
    at = Postgres(str(secrets / "ca.pem"), str(secrets / "mobula.pem"), str(secrets / "mobula.key"), port=postgres_port)
    config = admin.Config((zookeeper_address,), at)
    storages = tuple(
        StorageServer(f"storage-{name}", name, "127.0.0.1", STORAGE_PORT + number) for number, name in enumerate(PEERS)
    )
    await admin.act(config, "region-init", admin.RegionInit(storages, 1))
    await admin.act(config, "account-create", admin.AccountCreate(ACCOUNT))
    await admin.act(config, "key-add", admin.KeyAdd(ACCOUNT, signer.public_text))


def _pages(connection: http.client.HTTPConnection, signer: Signer) -> int:
    """All entries: 1,024 to a page; a page begins with the last entry of the one before."""
    head = dict(line.split(": ", 1) for line in signer.heads()[0].splitlines())
    found, marker = 0, ""
    while True:
        path = f"/{ACCOUNT}/stor/list?limit=1024{f'&marker={marker}' if marker else ''}"
        lines = ask(connection, "GET", path, b"", head).splitlines()
        found += len(lines) - bool(marker)
        if len(lines) < 1024:
            return found
        marker = json.loads(lines[-1])["name"]
