"""Fingerprints of SSH public keys, over the key's wire form (RFC 4253, 6.6). Pure, and without a cryptographic library."""

from __future__ import annotations

import base64
import hashlib
import re

_MD5 = re.compile(r"(?:MD5:)?((?:[0-9a-f]{2}:){15}[0-9a-f]{2}|[0-9a-f]{32})", re.IGNORECASE)
_SHA256 = re.compile(r"SHA256:([A-Za-z0-9+/]{43})=?")


def md5_fingerprint(blob: bytes) -> str:
    """16 colon-separated pairs of lower-case hex digits: the form that goes into a key id."""
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


def sha256_fingerprint(blob: bytes) -> str:
    """``SHA256:`` and base64 without padding, as ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def normal_fingerprint(text: str) -> str | None:
    """A fingerprint as people write it, in the form that the two functions above give; None if it is none."""
    if match := _MD5.fullmatch(text.strip()):
        digits = match[1].replace(":", "").lower()
        return ":".join(digits[i : i + 2] for i in range(0, 32, 2))
    if match := _SHA256.fullmatch(text.strip()):
        return f"SHA256:{match[1]}"
    return None


def has_fingerprint(blob: bytes, wanted: str) -> bool:
    """The key is the one of `wanted`, a normal fingerprint of either kind."""
    return wanted == (sha256_fingerprint(blob) if wanted.startswith("SHA256:") else md5_fingerprint(blob))
