"""Tokens: a caller, frozen for a while. Pure: key and time come in. Source: the HTTP contract, section "Tokens".

The format is fixed by it, as other tools make tokens too: base64(AES-128-CBC(gzip(JSON))) with a fixed iv and PKCS#7 padding. It has no
MAC, so whatever is wrong with a token gives one and the same answer.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import gzip
import hmac
import uuid
import zlib
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mobula.core.errors import ApiError

LIFE_S = 7 * 24 * 3600
TEXT_MAX = 8192
JSON_MAX = 64 * 1024
"""of a token's content: what is packed small must not unpack to anything"""
VERSION = 2


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Key and iv, 16 bytes each; the same on all webapis."""

    key: bytes
    iv: bytes

    @classmethod
    def derived(cls, secret: bytes) -> TokenKey:
        """From a secret of the region that serves other purposes."""
        digest = hmac.digest(secret, b"mobula token key", "sha256")
        return cls(digest[:16], digest[16:])

    @classmethod
    def parse(cls, text: str) -> TokenKey:
        """From a file's content: key and iv, 32 hex digits each. Raises ValueError."""
        parts = [bytes.fromhex(part) for part in text.split()]
        if [len(part) for part in parts] != [16, 16]:
            raise ValueError("read a token key: it is not two lines of 32 hex digits, key and iv")
        return cls(*parts)

    def cipher(self) -> Cipher[modes.CBC]:
        return Cipher(algorithms.AES(self.key), modes.CBC(self.iv))


class _Uuid(msgspec.Struct, frozen=True):
    uuid: uuid.UUID


class _Principal(msgspec.Struct, frozen=True):
    account: _Uuid
    user: _Uuid | None = None
    roles: object = msgspec.field(default_factory=dict)


class _Content(msgspec.Struct, frozen=True):
    t: int
    """when it was made, in ms since the epoch"""
    p: _Principal
    c: dict[str, object] = msgspec.field(default_factory=dict)
    v: int = VERSION


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token stands for."""

    account: uuid.UUID
    user: uuid.UUID | None
    job: uuid.UUID | None = None
    """of theirs, for which the token was made"""
    archives: bool = False
    """made for who writes the job's lists when it is done"""


def seal(key: TokenKey, bearer: Bearer, now: dt.datetime) -> str:
    """A token that counts from `now` on."""
    user = _Uuid(bearer.user) if bearer.user else None
    conditions: dict[str, object] = {"activeRoles": [], "activeXAcctRoles": [], "fromjob": bearer.job is not None}
    if bearer.job is not None:
        conditions["job"] = str(bearer.job)
    if bearer.archives:
        conditions["archives"] = True
    content = _Content(int(now.timestamp() * 1000), _Principal(_Uuid(bearer.account), user), conditions)
    padder, encryptor = padding.PKCS7(128).padder(), key.cipher().encryptor()
    packed = padder.update(gzip.compress(msgspec.json.encode(content), mtime=0)) + padder.finalize()
    return base64.b64encode(encryptor.update(packed) + encryptor.finalize()).decode()


def unseal(key: TokenKey, token: str, now: dt.datetime) -> Bearer:
    """Whom a token stands for.

    Raises:
        ApiError: InvalidAuthenticationToken (it is none, or it is older than seven days).
    """
    refused = ApiError.of("InvalidAuthenticationToken")
    if len(token) > TEXT_MAX:
        raise refused
    try:
        decryptor, unpadder = key.cipher().decryptor(), padding.PKCS7(128).unpadder()
        packed = decryptor.update(base64.b64decode(token, validate=True)) + decryptor.finalize()
        packed = unpadder.update(packed) + unpadder.finalize()
        unzip = zlib.decompressobj(wbits=31)
        text = unzip.decompress(packed, JSON_MAX)
        if not unzip.eof:  # too much, or its end with the checksum is missing
            raise refused
        content = msgspec.json.decode(text, type=_Content)
        job = msgspec.convert(content.c.get("job"), uuid.UUID | None)
    except (binascii.Error, ValueError, zlib.error, msgspec.MsgspecError) as error:
        raise refused from error
    age_s = now.timestamp() - content.t / 1000
    if content.v != VERSION or age_s > LIFE_S:
        raise refused
    user = content.p.user.uuid if content.p.user else None
    return Bearer(content.p.account.uuid, user, job, content.c.get("archives") is True)
