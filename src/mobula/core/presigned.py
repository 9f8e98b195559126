"""Presigned URLs: who signed a request in its query, and over which text. Pure. Source: the HTTP contract, section "Presigned URLs"."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping

from mobula.core.canonical import canonical_text
from mobula.core.errors import ApiError
from mobula.core.signature import ALGORITHMS, Signature

PARAMETERS = ("expires", "signature", "keyId", "algorithm")


def is_presigned(query: Mapping[str, str]) -> bool:
    """Whether a request without an Authorization header claims to be signed in its query."""
    return any(query.get(name) for name in PARAMETERS)


def _refused(why: str) -> ApiError:
    return ApiError.of("InvalidQueryStringAuthentication", why=why)


def parse(query: Mapping[str, str], method: str, now: dt.datetime) -> Signature:
    """The signature that a query carries, if it may be used now for this method.

    Raises:
        ApiError: InvalidQueryStringAuthentication.
    """
    missing = [name for name in PARAMETERS if not query.get(name)]
    if missing:
        raise _refused(f"parameters missing: {', '.join(missing)}")
    if method not in _methods(query, method):
        raise _refused(f"the URL was not signed for {method}")
    expires = query["expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
        raise _refused("expires must be in seconds since the epoch")
    if int(expires) < now.timestamp():
        raise _refused("the URL has expired")
    algorithm = query["algorithm"].lower()
    if algorithm not in ALGORITHMS:
        raise _refused(f"{query['algorithm'][:40]} is not a supported signing algorithm")
    try:
        signature = base64.b64decode(query["signature"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError.of("InvalidSignature") from error
    return Signature(query["keyId"], algorithm, (), signature)


def _methods(query: Mapping[str, str], method: str) -> list[str]:
    return query.get("method", method).split(",")


def signed_text(query: Mapping[str, str], method: str, host: str, path: bytes) -> bytes:
    """What must have been signed; `host` and `path` exactly as received."""
    return canonical_text(_methods(query, method), host, path.decode("latin-1"), query.items())
