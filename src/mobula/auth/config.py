"""authcache.json."""

from __future__ import annotations

import ssl

import msgspec

from mobula.metadata.config import Postgres


class Tls(msgspec.Struct, frozen=True):
    """Our certificate, and the CA that signs those whom we answer. Paths are absolute."""

    ca: str
    certificate: str
    key: str

    def server_context(self) -> ssl.SSLContext:
        """TLS that demands a certificate of the region's CA from every client."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class AuthcacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds."""

    region: str
    host: str
    az: str
    address: str
    port: int
    zookeeper: tuple[str, ...]
    postgres: Postgres
    tls: Tls
    poll_s: float = 0.5
