"""Whom to trust: the TLS context that the settings ask for."""

from __future__ import annotations

import ssl

from mobula.client.errors import MobulaError
from mobula.client.settings import Settings


def context(settings: Settings) -> ssl.SSLContext | None:
    """None for clear text. Reading the system's authorities takes 20 ms: not done when nothing, or one file alone, is trusted.

    Raises:
        MobulaError: InvalidSetting: a CA file that can't be read.
    """
    if not settings.secure:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_alpn_protocols(["http/1.1"])
    if settings.tls_insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        return made
    for path in filter(None, (settings.ca_file, settings.extra_ca_file)):
        try:
            made.load_verify_locations(path)
        except OSError as error:  # SSLError is one
            raise MobulaError("InvalidSetting", f"read the CA file {path!r}: {error.strerror or error}") from error
    if settings.ca_file is None:
        made.load_default_certs()
    return made
