"""Private keys in files: PEM and OpenSSH form; RSA, ECDSA, Ed25519. Imported only when a key is not in an agent.

The library's own readers of files take 25 ms to import. RSA keys, the most common, are read here and handed over as numbers.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mobula.client.agent import AgentError, take_string, wire_string

FILE_BYTES_MAX = 64 * 1024
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
}  # fmt: skip
_PEM = re.compile(rb"-----BEGIN ((?:RSA |OPENSSH )?PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----")
_RSA_OID = bytes.fromhex("06092a864886f70d010101")
_OPENSSH_PLAIN = b"openssh-key-v1\0" + b"".join(map(wire_string, (b"none", b"none", b""))) + struct.pack(">I", 1)


class UnusableKey(ValueError):
    """The file holds no private key that can be used; the message says why."""


class FileKey:
    """A private key; `blob` is the wire form of its public half, `sign` gives a signature as HTTP Signature wants it."""

    def __init__(self, blob: bytes, algorithm: str, sign: Callable[[bytes], bytes]) -> None:
        self.blob = blob
        self.algorithm = algorithm
        self.sign = sign


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
    numbers = read_rsa(data)
    if numbers is not None:
        try:
            # An RSA key's own arithmetic takes 25 ms to prove: whoever can write this file signs with what he likes anyway.
            return _rsa_key(numbers.private_key(unsafe_skip_rsa_key_validation=True))
        except ValueError as error:
            raise UnusableKey(f"read the private key {name!r}: its numbers are no RSA key's") from error
    return _parse_any(data, name)


def _rsa_key(key: rsa.RSAPrivateKey) -> FileKey:
    public = key.public_key().public_numbers()
    blob = wire_string(b"ssh-rsa") + wire_string(_mpint(public.e)) + wire_string(_mpint(public.n))
    return FileKey(blob, "rsa-sha256", lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256()))


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _parse_any(data: bytes, name: str) -> FileKey:
    """What `parse` gives, by the library's own readers."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 (25 ms)
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415

    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    loader = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = loader(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        raise UnusableKey(
            f"read the private key {name!r}: it is protected by a passphrase; add it to an ssh-agent (ssh-add {name})"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"read the private key {name!r}: neither PEM nor an OpenSSH key that can be read") from error
    if isinstance(key, rsa.RSAPrivateKey):
        return _rsa_key(key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm, sign = "ed25519-sha512", key.sign
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        digest = _CURVES[key.curve.name]
        algorithm, sign = f"ecdsa-{digest.name}", partial(key.sign, signature_algorithm=ec.ECDSA(digest))
    else:
        raise UnusableKey(f"read the private key {name!r}: use RSA, ECDSA (nistp256, 384, 521) or Ed25519")
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return FileKey(base64.b64decode(line.split()[1]), algorithm, sign)


# RSA keys without a passphrase: PKCS #1 (RFC 8017), PKCS #8 (RFC 5208), OpenSSH's PROTOCOL.key. Pure.


def read_rsa(data: bytes) -> rsa.RSAPrivateNumbers | None:
    """The numbers of an RSA key in a file; None: it is another key, or has a passphrase, or is damaged."""
    found = _PEM.search(data)
    try:
        if found is None:
            return None
        raw = binascii.a2b_base64(found[2])
        if found[1] == b"OPENSSH PRIVATE KEY":
            return _openssh(raw)
        return _pkcs1(raw if found[1] == b"RSA PRIVATE KEY" else _pkcs8(raw))
    except (AgentError, ValueError, IndexError, ZeroDivisionError):
        return None


def _pkcs1(der: bytes) -> rsa.RSAPrivateNumbers:
    body, numbers, position = _der(der, 0, 0x30)[0], list[int](), 0
    while position < len(body):
        value, position = _der(body, position, 0x02)
        numbers.append(int.from_bytes(value, "big"))
    version, n, e, d, p, q, dp, dq, inverse = numbers
    if version != 0:
        raise ValueError("a key of more than two primes")
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, inverse, rsa.RSAPublicNumbers(e, n))


def _pkcs8(der: bytes) -> bytes:
    body, _ = _der(der, 0, 0x30)
    _, position = _der(body, 0, 0x02)
    algorithm, position = _der(body, position, 0x30)
    if not algorithm.startswith(_RSA_OID):
        raise ValueError("another kind of key")
    return _der(body, position, 0x04)[0]


def _der(data: bytes, position: int, tag: int) -> tuple[bytes, int]:
    """The value at a position, which must have that tag, and where it ends. Raises ValueError, IndexError."""
    size, begin = data[position + 1], position + 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(data[position + 2 : begin], "big")
    if data[position] != tag or begin + size > len(data):
        raise ValueError("not the DER that was expected")
    return data[begin : begin + size], begin + size


def _openssh(raw: bytes) -> rsa.RSAPrivateNumbers:
    if not raw.startswith(_OPENSSH_PLAIN):
        raise ValueError("several keys, or a passphrase")
    _, position = take_string(raw, len(_OPENSSH_PLAIN))
    private, _ = take_string(raw, position)
    kind, position = take_string(private, 8)  # after a number that is there twice
    if kind != b"ssh-rsa":
        raise ValueError("another kind of key")
    numbers = []
    for _ in range(6):
        value, position = take_string(private, position)
        numbers.append(int.from_bytes(value, "big"))
    n, e, d, inverse, p, q = numbers
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), inverse, rsa.RSAPublicNumbers(e, n))
