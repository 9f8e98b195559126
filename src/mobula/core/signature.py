"""HTTP Signature: parse the Authorization header, make the string that was signed, verify. Pure: the time and the keys come in.

Source: the HTTP contract, section "Authentication by HTTP Signature" (draft-cavage-http-signatures as Manta's clients speak it).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from mobula.core.dates import parse_date
from mobula.core.errors import ApiError

SKEW_S = 300
# A date has seconds, so a busy client signs the same again and again: what was read and verified lately is known.
_KNOWN_MAX = 1_000
_KNOWN_BYTES_MAX = 2_048
"""of what comes from outside: longer ones would make the memory of it dear"""
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512,
}  # fmt: skip
ALGORITHMS = frozenset(
    [f"rsa-{h}" for h in ("sha1", "sha256", "sha384", "sha512")]
    + [f"ecdsa-{h}" for h in ("sha256", "sha384", "sha512")]
    + ["ed25519-sha512", "dsa-sha1", "dsa-sha256"]
)
_PARAMETER = re.compile(r'\s*([A-Za-z]+)="([^"]*)"\s*')
_PREFIX = "Invalid Signature Authorization header"


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed Authorization header."""

    key_id: str
    algorithm: str
    headers: tuple[str, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class KeyId:
    """Whom a key id names: `user` is a sub-user."""

    account: str
    user: str | None
    fingerprint: str


def _invalid(why: str) -> ApiError:
    return ApiError.of("InvalidHeader", why=f"{_PREFIX}: {why}")


def parse(header: str, default_headers: tuple[str, ...] = ("date",)) -> Signature:
    """Read ``Signature keyId="...",algorithm="...",headers="...",signature="..."``.

    Raises:
        ApiError: AuthorizationSchemeNotAllowed, InvalidHeader, InvalidAlgorithm.
    """
    return (_parse_known if len(header) <= _KNOWN_BYTES_MAX else _parse)(header, default_headers)


def _parse(header: str, default_headers: tuple[str, ...]) -> Signature:
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "signature":
        raise ApiError.of("AuthorizationSchemeNotAllowed", found=scheme[:40])
    parameters: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _PARAMETER.match(rest, position)
        if match is None or (match.end() < len(rest) and rest[match.end()] != ","):
            raise _invalid("bad param format")
        parameters[match[1].lower()] = match[2]
        position = match.end() + 1
    for name in ("keyid", "algorithm", "signature"):
        if not parameters.get(name):
            raise _invalid(f"{name} was not specified")
    algorithm = parameters["algorithm"].lower()
    if algorithm not in ALGORITHMS:
        raise ApiError.of("InvalidAlgorithm", found=parameters["algorithm"][:40])
    try:
        signature = base64.b64decode(parameters["signature"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("signature is not base64") from error
    names = tuple(parameters["headers"].lower().split()) if parameters.get("headers") else default_headers
    return Signature(parameters["keyid"], algorithm, names, signature)


_parse_known = functools.lru_cache(_KNOWN_MAX)(_parse)


def parse_key_id(key_id: str) -> KeyId:
    """``/<account>/keys/<fingerprint>`` or ``/<account>/<user>/keys/<fingerprint>``, each part percent-decoded.

    Raises:
        ApiError: InvalidKeyId.
    """
    parts = [unquote(part) for part in key_id.split("/")[1:]] if key_id.startswith("/") else []
    if len(parts) == 3 and parts[1] == "keys":
        account, user, fingerprint = parts[0], None, parts[2]
    elif len(parts) == 4 and parts[2] == "keys":
        account, user, fingerprint = parts[0], parts[1], parts[3]
    else:
        raise ApiError.of("InvalidKeyId")
    if not account or user == "" or not fingerprint:
        raise ApiError.of("InvalidKeyId")
    return KeyId(account, user, fingerprint.removeprefix("MD5:"))


def signing_string(
    signature: Signature, method: str, target: str, version: str, header: Callable[[str], str | None]
) -> bytes:
    """What the client must have signed; `header` answers a header's value exactly as received.

    Raises:
        ApiError: InvalidHeader (a signed header is missing, or the date is not signed).
    """
    if "date" not in signature.headers and "x-date" not in signature.headers:
        raise _invalid("date must be among the signed headers")
    lines = []
    for name in signature.headers:
        if name == "(request-target)":
            lines.append(f"(request-target): {method.lower()} {target}")
        elif name == "request-line":
            lines.append(f"{method} {target} HTTP/{version}")
        else:
            value = header(name)
            if value is None:
                raise _invalid(f"{name} was not in the request")
            lines.append(f"{name}: {value}")
    return "\n".join(lines).encode("latin-1", errors="replace")


def signed_date(signature: Signature, header: Callable[[str], str | None]) -> str | None:
    """The date that the client signed. Any other in the request is anybody's: an old request could be sent again beside a new one."""
    return header("date" if "date" in signature.headers else "x-date")


def check_age(date: str | None, now: dt.datetime) -> None:
    """A request that is too old is refused first, whoever sends it.

    Raises:
        ApiError: RequestExpired.
    """
    found = parse_date(date) if date else None
    if found is not None and (now - found).total_seconds() > SKEW_S:
        raise ApiError.of("RequestExpired", found=date)


def check_skew(date: str | None, now: dt.datetime) -> None:
    """The date of a signed request must be a date, and near.

    Raises:
        ApiError: InvalidHeader.
    """
    found = parse_date(date) if date else None
    if found is None:
        raise _invalid(f"{date!r} is not a date" if date else "the date is missing")
    skew_s = abs((now - found).total_seconds())
    if skew_s > SKEW_S:
        raise _invalid(f"clock skew of {skew_s:.0f} s was greater than {SKEW_S} s")


@functools.lru_cache(maxsize=10_000)
def _load(pem: str) -> object:
    return serialization.load_pem_public_key(pem.encode())


def verify(signature: Signature, text: bytes, pem: str) -> bool:
    """The signature over `text` is of this key; a key of another family than the algorithm's verifies nothing."""
    known = len(text) <= _KNOWN_BYTES_MAX and len(signature.signature) <= _KNOWN_BYTES_MAX
    return (_verify_known if known else _verify)(text, signature.algorithm, signature.signature, pem)


def _verify(text: bytes, algorithm: str, signature: bytes, pem: str) -> bool:
    family, _, digest = algorithm.partition("-")
    try:
        key = _load(pem)
        if family == "rsa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, text, padding.PKCS1v15(), _HASHES[digest]())
        elif family == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(_HASHES[digest]()))
        elif family == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, text)
        else:
            return False
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


_verify_known = functools.lru_cache(_KNOWN_MAX)(_verify)
