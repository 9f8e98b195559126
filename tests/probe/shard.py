"""Shards as the store meets them: PostgreSQL with this release's schema, TLS and a lease, and Patroni's keys in ZooKeeper."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mobula.metadata import migrate, shard_map
from mobula.metadata.config import Postgres
from mobula.metadata.store import MAP_PATH
from mobula.wire.zookeeper import Client
from tests.probe import postgres, zookeeper
from tests.probe.machine import INSIDE, folder, free_port, user_id

TLS = f"""
ssl = on
ssl_ca_file = '{INSIDE}/ca.pem'
ssl_cert_file = '{INSIDE}/host.pem'
ssl_key_file = '{INSIDE}/host.key'
"""
GRANT = "SELECT fence.grant_lease(clock_timestamp() + $1, pg_postmaster_start_time(), fence.timeline(), true)"
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Shards:
    """Running shards, numbered from 1 as `servers` are from 0, and how services reach them."""

    servers: tuple[postgres.Server, ...]
    zookeeper: zookeeper.Server
    postgres: Postgres

    async def lease(self, shard: int, length: dt.timedelta) -> bool:
        """Grant a lease by hand, as that shard's guard would."""
        connection = await self.servers[shard - 1].connect(
            database="mobula", server_settings={"synchronous_commit": "off"}
        )
        try:
            return bool(await connection.fetchval(GRANT, length))
        finally:
            await connection.close()

    async def sql(self, shard: int, statement: str, *args: object) -> list[dict[str, object]]:
        """Rows of a statement of the superuser."""
        connection = await self.servers[shard - 1].connect(database="mobula")
        try:
            return [dict(row) for row in await connection.fetch(statement, *args)]
        finally:
            await connection.close()

    async def sql_script(self, shard: int, statements: str) -> None:
        """Several statements of the superuser, without an answer."""
        connection = await self.servers[shard - 1].connect(database="mobula")
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


def certificates(at: Path) -> None:
    """A CA, a certificate of 127.0.0.x servers and one of the client `mobula`: ca.pem, host.pem .key, client.pem .key."""
    now = dt.datetime.now(dt.UTC)

    def make(
        name: str, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey | None
    ) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        )  # fmt: skip
        if signer is not None:
            addresses = [x509.IPAddress(ipaddress.ip_address(f"127.0.0.{n}")) for n in (1, 2)]
            builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        made = builder.sign(signer or key, hashes.SHA256())
        (at / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (at / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key

    ca = make("ca", None, None)
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    make("host", issuer, ca)
    make("mobula", issuer, ca)


def _start(server: postgres.Server, secrets: Path) -> None:
    at = server.folder
    for name in ("ca.pem", "host.pem", "host.key"):
        (at / name).write_bytes((secrets / name).read_bytes())
    (at / "host.key").chmod(0o600)
    os.chown(at / "host.key", user_id("postgres"), user_id("postgres"))
    server.make(hba="hostssl mobula mobula 127.0.0.0/8 cert")
    server.configure(TLS)
    server.start()


async def _prepare(shards: Shards) -> None:
    client = Client([shards.zookeeper.address])
    client.start()
    try:
        await client.wait_connected(10)
        await client.create(MAP_PATH, shard_map.even(len(shards.servers)).encode())
        for number, server in enumerate(shards.servers, 1):
            await server.ready()
            await migrate.migrate(str(server.folder), server.port)
            await shards.lease(number, HOUR)
            member = {"conn_url": f"postgres://{server.address}:{server.port}/postgres", "role": "primary"}
            await client.create(f"/patroni/shard-{number}/members/m{number}", json.dumps(member).encode())
            await client.create(f"/patroni/shard-{number}/leader", f"m{number}".encode())
    finally:
        await client.stop()


@contextmanager
def shards(count: int) -> Iterator[Shards]:
    """That many running shards with leases of an hour; gone when the block ends."""
    with ExitStack() as stack:
        secrets = stack.enter_context(folder())
        certificates(secrets)
        keeper = zookeeper.Server(stack.enter_context(folder()))
        stack.callback(keeper.stop)
        keeper.start()
        port, servers = free_port(), []
        for number in range(1, count + 1):
            at = stack.enter_context(folder())
            server = postgres.Server(at, address=f"127.0.0.{number}", port=port, fsync=False)
            stack.callback(server.stop, signal.SIGKILL)
            _start(server, secrets)
            servers.append(server)
        how = Postgres(str(secrets / "ca.pem"), str(secrets / "mobula.pem"), str(secrets / "mobula.key"), port=port)
        running = Shards(tuple(servers), keeper, how)
        asyncio.run(_prepare(running))
        yield running
