"""Whom to trust: the TLS context that the settings ask for."""

from __future__ import annotations

import ssl

from mobula.client.errors import MobulaError
from mobula.client.settings import Settings


class Trust:
    """A TLS context (`context`; None: clear text), and the authorities that it knows.

    Reading the system's takes 30 to 50 ms. With a CA of the settings' own they are read only once a server's certificate is none of its,
    by `widen`; until then `whole` is false.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises MobulaError (InvalidSetting): a CA file that can't be read."""
        self.context: ssl.SSLContext | None = None
        self.whole = True
        if not settings.secure:
            return
        self.context = made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.set_alpn_protocols(["http/1.1"])
        if settings.tls_insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
            return
        for path in filter(None, (settings.ca_file, settings.extra_ca_file)):
            try:
                made.load_verify_locations(path)
            except OSError as error:  # SSLError is one
                raise MobulaError("InvalidSetting", f"read the CA file {path!r}: {error.strerror or error}") from error
        if settings.ca_file is None:
            self.whole = False
            if settings.extra_ca_file is None:
                self.widen()

    def widen(self) -> None:
        """Trust the system's authorities, too. Doing it twice, or in two threads at once, does no harm."""
        if self.context is not None and not self.whole:
            self.context.load_default_certs()
            self.whole = True
