from __future__ import annotations

import base64
import datetime as dt
import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mobula.core.accounts import Account, Caller
from mobula.core.errors import ApiError
from mobula.core.tokens import TokenKey
from mobula.webapi.auth import authenticate
from mobula.wire.http_exchange import Request
from mobula.wire.http_message import Headers

TOKEN_KEY = TokenKey.derived(b"secret")
NOW = dt.datetime(2026, 11, 23, 2, 50, 32, tzinfo=dt.UTC)
DATE, OLD = "Mon, 23 Nov 2026 02:50:32 GMT", "Mon, 23 Nov 2026 02:40:32 GMT"
KEY = ed25519.Ed25519PrivateKey.generate()
PEM = (
    KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
)
ALICE = Account(uuid.UUID(int=1), "alice", approved=True, operator=False, keys={"aa:bb": PEM})


class Known:
    """`Accounts` with one account."""

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:  # noqa: ARG002 (it has no users)
        return ALICE if login == ALICE.login and key in {None, *ALICE.keys} else None

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        return ALICE if number == ALICE.uuid else None


class NoConnection:
    """Carries nothing."""

    peer = "192.0.2.1"
    lost = False

    def body_changed(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


def request(signed: str, **headers: str) -> Request:
    """One that signs the header `signed` and nothing else."""
    text = f"{signed}: {headers[signed.replace('-', '_')]}".encode()
    signature = base64.b64encode(KEY.sign(text)).decode()
    authorization = (
        f'Signature keyId="/alice/keys/aa:bb",algorithm="ed25519-sha512",headers="{signed}",signature="{signature}"'
    )
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    found = Headers([*raw, (b"authorization", authorization.encode())])
    return Request(NoConnection(), "GET", b"/alice/stor", found, "1.1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signed", "headers"),
    [("date", {"date": DATE}), ("x-date", {"x_date": DATE}), ("x-date", {"date": DATE, "x_date": DATE})],
)
async def test_who_signs_a_date_is_known(signed: str, headers: dict[str, str]) -> None:
    assert await authenticate(request(signed, **headers), {}, Known(), TOKEN_KEY, NOW) == Caller(ALICE)


async def test_a_signed_request_cannot_be_sent_again_beside_a_new_date() -> None:
    """Section 3: the date that was signed must be near, whatever else the request says."""
    with pytest.raises(ApiError, match="clock skew of 600 s"):
        await authenticate(request("x-date", date=DATE, x_date=OLD), {}, Known(), TOKEN_KEY, NOW)
