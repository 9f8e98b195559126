"""Configuration of the metadata tier's processes and of every process that reaches the shards."""

from __future__ import annotations

import ssl

import msgspec


class Postgres(msgspec.Struct, frozen=True):
    """How to reach a shard's primary: TLS with a client certificate whose CN is the database user. Paths are absolute."""

    ca: str
    certificate: str
    key: str
    database: str = "mobula"
    user: str = "mobula"
    port: int = 5432

    def context(self) -> ssl.SSLContext:
        """TLS of the region's CA, with our client certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        # Peers are found by address; the certificate names host and address, both signed by the region's own CA.
        context.check_hostname = False
        context.load_cert_chain(self.certificate, self.key)
        return context


class Peer(msgspec.Struct, frozen=True):
    """One PostgreSQL peer of a shard."""

    host: str
    address: str


class GuardConfig(msgspec.Struct, frozen=True):
    """guard.json; durations in seconds."""

    region: str
    host: str
    az: str
    address: str
    shard: int
    peers: tuple[Peer, ...]
    zookeeper: tuple[str, ...]
    socket_dir: str = "/run/postgresql"
    postgres_port: int = 5432
    lease_s: float = 1.0
    margin_s: float = 0.1
    period_s: float = 0.25
    status_port: int = 8009

    @property
    def scope(self) -> str:
        """Patroni's folder of this shard in ZooKeeper."""
        return f"/patroni/shard-{self.shard}"

    @property
    def fence(self) -> str:
        """The guards' folder of this shard in ZooKeeper."""
        return f"/fence/shard-{self.shard}"
