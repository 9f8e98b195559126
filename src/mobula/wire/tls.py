"""TLS between services of a region."""

from __future__ import annotations

import ssl

import msgspec


class Tls(msgspec.Struct, frozen=True):
    """Our client certificate, and the CA of those whom we ask. Paths are absolute."""

    ca: str
    certificate: str
    key: str

    def client_context(self) -> ssl.SSLContext:
        """TLS to services of the region: found by address, known by the region's own CA."""
        context = ssl.create_default_context(cafile=self.ca)
        context.check_hostname = False
        context.load_cert_chain(self.certificate, self.key)
        return context
