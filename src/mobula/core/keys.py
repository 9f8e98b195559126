"""Public keys of accounts: read from what people have, identified by the fingerprints that Manta clients send."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mobula.core.fingerprints import md5_fingerprint, sha256_fingerprint

RSA_BITS_MIN = 1024
TEXT_MAX = 16_384
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
"""those that OpenSSH has: a fingerprint is made of its form of the key"""
Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class InvalidKey(ValueError):
    """The text is no public key that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. `fingerprint_md5`: 16 colon-separated hex pairs; `fingerprint_sha256`: ``SHA256:`` and base64; `pem`: SPKI."""

    fingerprint_md5: str
    fingerprint_sha256: str
    pem: str
    algorithm: str
    comment: str = ""


def load_public_key(text: str) -> PublicKey:
    """Read a key from an OpenSSH line or from PEM.

    Raises:
        InvalidKey: junk, a private key, an unknown kind, or an RSA key that is too small.
    """
    text = text.strip()
    if len(text) > TEXT_MAX:
        raise InvalidKey(f"read a public key: {len(text)} characters found; at most {TEXT_MAX} are taken")
    if "PRIVATE KEY" in text:
        raise InvalidKey("read a public key: this is a private key; give the public one (the file that ends in .pub)")
    try:
        data = text.encode("ascii")
        load = serialization.load_pem_public_key if text.startswith("-----BEGIN") else serialization.load_ssh_public_key
        key = load(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey(
            "read a public key: neither an OpenSSH line nor PEM that can be read; give the content of a .pub file"
        ) from error
    if not isinstance(key, Key):
        raise InvalidKey(f"read a public key: {type(key).__name__} is not supported; use RSA, ECDSA or Ed25519")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in CURVES:
        raise InvalidKey(
            f"read a public key: ECDSA over {key.curve.name} is not supported; use nistp256, nistp384 or nistp521"
        )
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise InvalidKey(f"read a public key: RSA with {key.key_size} bits; at least {RSA_BITS_MIN} are needed")
    parts = text.split(None, 2)
    comment = parts[2] if len(parts) > 2 and not text.startswith("-----") else ""
    return _describe(key, comment)


def _describe(key: Key, comment: str) -> PublicKey:
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    blob = base64.b64decode(line.split()[1])
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    algorithm = {rsa.RSAPublicKey: "rsa", ed25519.Ed25519PublicKey: "ed25519"}
    name = next((n for kind, n in algorithm.items() if isinstance(key, kind)), "ecdsa")
    return PublicKey(md5_fingerprint(blob), sha256_fingerprint(blob), pem, name, comment)
