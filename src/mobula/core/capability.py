"""Capabilities: what lets a request through to a storage server.

`1;<expires>;<caller>;<hmac hex>`, HMAC-SHA256 under a region key over
`1\\n<METHOD>\\n<object id>\\n<size or ->\\n<expires>\\n<caller>`. The first key of a rotation signs, all of them verify:
a new key is put last everywhere, then first everywhere, then the old one is taken away.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = "x-mobula-capability"
LISTING = "*"
"""stands for the object id where a server is asked which files it has"""

_FORM = re.compile(r"1;([0-9]{1,12});([A-Za-z0-9_.:-]{1,128});([0-9a-f]{64})", re.ASCII)
_CALLER = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_KEY = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


class CapabilityRefused(Exception):
    """A request's capability is missing, malformed, expired or for something else. -> 403"""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a capability allows: one method on one object, until `expires_s` (seconds since the epoch).

    `size_bytes` is the object's size, None where it isn't known yet (a PUT of unknown length).
    """

    method: str
    object_id: str
    size_bytes: int | None
    expires_s: int
    caller: str

    def text(self) -> bytes:
        size = "-" if self.size_bytes is None else str(self.size_bytes)
        return f"1\n{self.method}\n{self.object_id}\n{size}\n{self.expires_s}\n{self.caller}".encode()


def parse_key(text: str) -> bytes:
    """A key file's content (64 hex digits) as 32 bytes. Raises ValueError."""
    digits = text.strip()
    if not _KEY.fullmatch(digits):
        raise ValueError(f"read a capability key: {len(digits)} characters found; a key is 64 hex digits")
    return bytes.fromhex(digits)


def sign(key: bytes, grant: Grant) -> str:
    """The header's value that carries `grant`. Raises ValueError for a caller that the form can't hold."""
    if not _CALLER.fullmatch(grant.caller):
        raise ValueError(f"sign a capability for caller {grant.caller!r}: letters, digits and _.:- only")
    return f"1;{grant.expires_s};{grant.caller};{hmac.digest(key, grant.text(), 'sha256').hex()}"


def verify(
    keys: Sequence[bytes], header: str | None, method: str, object_id: str, size_bytes: int | None, *, now_s: float
) -> Grant:
    """What the header grants, if that is just this request. Takes as long whichever key signed, or none.

    Raises CapabilityRefused.
    """
    match = _FORM.fullmatch(header or "")
    if match is None:
        raise CapabilityRefused("no capability" if not header else "malformed capability")
    grant = Grant(method, object_id, size_bytes, int(match[1]), match[2])
    text, given = grant.text(), bytes.fromhex(match[3])
    genuine = False
    for key in keys:
        genuine |= hmac.compare_digest(hmac.digest(key, text, "sha256"), given)
    if not genuine:
        raise CapabilityRefused(f"the capability is not for {method} of this object, or under another key")
    if grant.expires_s <= now_s:
        raise CapabilityRefused(f"the capability expired {now_s - grant.expires_s:.0f} s ago")
    return grant
