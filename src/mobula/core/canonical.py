"""The text that a presigned URL's signature covers, for whoever makes it or checks it. Pure, and without a cryptographic library.

Source: the HTTP contract, section "Presigned URLs".
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote


def encode_value(text: str) -> str:
    """Percent-encoded as RFC 3986 has it: all but letters, digits and ``- _ . ~``."""
    return quote(text, safe="-_.~")


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Decoded parameters, sorted by name without regard to case, encoded and joined; the signature itself is not among them."""
    kept = [(name, value) for name, value in parameters if name != "signature"]
    kept.sort(key=lambda pair: (pair[0].lower(), pair[0]))
    return "&".join(f"{encode_value(name)}={encode_value(value)}" for name, value in kept)


def canonical_text(methods: Iterable[str], host: str, path: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """What is signed: the sorted methods, the Host header and the path exactly as sent, and the parameters, a line each."""
    lines = (",".join(sorted(methods)), host, path, canonical_query(parameters))
    return "\n".join(lines).encode("latin-1", errors="replace")
