"""Private keys in files: PEM and OpenSSH form; RSA, ECDSA, Ed25519. Imported only when a key is not in an agent: 40 ms."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

FILE_BYTES_MAX = 64 * 1024
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
}  # fmt: skip
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class UnusableKey(ValueError):
    """The file holds no private key that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """A private key; `blob` is the wire form of its public half."""

    blob: bytes
    algorithm: str
    _key: Key = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        """Signature of `text` as HTTP Signature wants it."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(text, ec.ECDSA(_CURVES[self._key.curve.name]))
        return self._key.sign(text)


def load(path: Path) -> FileKey:
    """The private key in a file. Raises UnusableKey."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise UnusableKey(f"read the private key {str(path)!r}: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> FileKey:
    """A private key from what its file holds; `name` is for messages. Raises UnusableKey."""
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    loader = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        # An RSA key's own arithmetic takes 25 ms to prove: whoever can write this file signs with what he likes anyway.
        key = loader(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        raise UnusableKey(
            f"read the private key {name!r}: it is protected by a passphrase; add it to an ssh-agent (ssh-add {name})"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"read the private key {name!r}: neither PEM nor an OpenSSH key that can be read") from error
    if not isinstance(key, Key) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES):
        raise UnusableKey(f"read the private key {name!r}: use RSA, ECDSA (nistp256, 384, 521) or Ed25519")
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return FileKey(base64.b64decode(line.split()[1]), _algorithm(key), key)


def _algorithm(key: Key) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa-sha256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"ecdsa-{_CURVES[key.curve.name].name}"
    return "ed25519-sha512"
