"""Who asks, and may they? Authentication before anything is looked at; then owner, operator, or a public read."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote

from mobula.core import signature
from mobula.core.accounts import Account
from mobula.core.errors import ApiError
from mobula.core.paths import Path
from mobula.webapi.accounts import Accounts
from mobula.wire.http_exchange import Request

READS = frozenset({"GET", "HEAD", "OPTIONS"})


async def authenticate(request: Request, accounts: Accounts, now: dt.datetime) -> Account | None:
    """The account that signed the request; None if nobody did.

    Raises:
        ApiError: as the table in the HTTP contract, section 3, says.
    """
    header = request.headers.get
    signature.check_age(header("date"), now)
    authorization = header("authorization")
    if authorization is None:
        return None
    parsed = signature.parse(authorization, ("x-date",) if header("x-date") else ("date",))
    text = signature.signing_string(parsed, request.method, request.target.decode("latin-1"), request.version, header)
    signature.check_skew(signature.signed_date(parsed, header), now)
    key_id = signature.parse_key_id(parsed.key_id)
    account = await accounts.get(key_id.account, key=key_id.fingerprint)
    if account is None:
        raise ApiError.of("AccountDoesNotExist", login=key_id.account)
    if key_id.user is not None:
        raise ApiError.of("UserDoesNotExist", login=f"{key_id.account}/{key_id.user}")
    if not (account.approved or account.operator):
        raise ApiError.of("AccountBlocked", login=account.login)
    pem = account.keys.get(key_id.fingerprint)
    if pem is None:
        raise ApiError.of("KeyDoesNotExist", login=account.login, fingerprint=quote(key_id.fingerprint, safe=":"))
    if not signature.verify(parsed, text, pem):
        raise ApiError.of("InvalidSignature")
    return account


def authorize(caller: Account | None, owner: Account, method: str, path: Path) -> None:
    """Owner and operators may everything; anybody may read below ``/:login/public``.

    Raises:
        ApiError: AuthorizationFailed, AccountBlocked.
    """
    if path.namespace == "public" and method in READS:
        return
    if caller is not None and (caller.uuid == owner.uuid or caller.operator):
        return
    if not owner.approved:
        raise ApiError.of("AccountBlocked", login=owner.login)
    raise ApiError.of("AuthorizationFailed", who=caller.login if caller else "anonymous", path=path)


def require_secure(request: Request, caller: Account | None, path: Path) -> None:
    """On the clear-text port (the loadbalancer says which it was) only public reads are served.

    Raises:
        ApiError: SecureTransportRequired.
    """
    if request.headers.get("x-forwarded-proto") != "http":
        return
    if caller is None and path.namespace == "public" and request.method in READS:
        return
    raise ApiError.of("SecureTransportRequired")
