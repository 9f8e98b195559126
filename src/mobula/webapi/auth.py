"""Who asks, and may they? Authentication before anything is looked at; then owner, operator, or a public read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from urllib.parse import quote

from mobula.core import presigned, signature, tokens
from mobula.core.accounts import Account, Caller
from mobula.core.errors import ApiError
from mobula.core.paths import Path
from mobula.core.tokens import TokenKey
from mobula.wire.accounts import Accounts
from mobula.wire.http_exchange import Request

READS = frozenset({"GET", "HEAD", "OPTIONS"})


async def authenticate(
    request: Request, query: Mapping[str, str], accounts: Accounts, token_key: TokenKey, now: dt.datetime
) -> Caller | None:
    """Who signed the request, in a header or in its URL, or holds its token; None if nobody did.

    Raises:
        ApiError: as the HTTP contract, sections 3 to 5, says.
    """
    header = request.headers.get
    signature.check_age(header("date"), now)
    if header("x-auth-token"):
        raise ApiError.of("InvalidHttpAuthenticationToken")
    authorization = header("authorization")
    if authorization is None:
        return await _by_url(request, query, accounts, now) if presigned.is_presigned(query) else None
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "token":
        return await _by_token(tokens.unseal(token_key, rest.strip(), now), accounts)
    parsed = signature.parse(authorization, ("x-date",) if header("x-date") else ("date",))
    text = signature.signing_string(parsed, request.method, request.target.decode("latin-1"), request.version, header)
    signature.check_skew(signature.signed_date(parsed, header), now)
    return await _by_key(parsed, text, accounts)


async def _by_url(request: Request, query: Mapping[str, str], accounts: Accounts, now: dt.datetime) -> Caller:
    parsed = presigned.parse(query, request.method, now)
    host = request.headers.get("host") or ""
    return await _by_key(parsed, presigned.signed_text(query, request.method, host, request.path), accounts)


async def _by_token(bearer: tokens.Bearer, accounts: Accounts) -> Caller:
    account = await accounts.by_uuid(bearer.account)
    if account is None:
        raise ApiError.of("AccountDoesNotExist", login=bearer.account)
    _check_active(account)
    if bearer.user is None:
        return Caller(account, None, bearer.job, bearer.archives)
    user = next((user for user in account.users.values() if user.uuid == bearer.user), None)
    if user is None:
        raise ApiError.of("UserDoesNotExist", login=f"{account.login}/{bearer.user}")
    return Caller(account, user, bearer.job, bearer.archives)


async def _by_key(parsed: signature.Signature, text: bytes, accounts: Accounts) -> Caller:
    key_id = signature.parse_key_id(parsed.key_id)
    account = await accounts.get(key_id.account, key=key_id.fingerprint, user=key_id.user)
    if account is None:
        raise ApiError.of("AccountDoesNotExist", login=key_id.account)
    user = account.users.get(key_id.user) if key_id.user is not None else None
    if key_id.user is not None and user is None:
        raise ApiError.of("UserDoesNotExist", login=f"{key_id.account}/{key_id.user}")
    _check_active(account)
    caller = Caller(account, user)
    pem = (user or account).keys.get(key_id.fingerprint)
    if pem is None:
        raise ApiError.of("KeyDoesNotExist", login=caller, fingerprint=quote(key_id.fingerprint, safe=":"))
    if not signature.verify(parsed, text, pem):
        raise ApiError.of("InvalidSignature")
    return caller


def _check_active(account: Account) -> None:
    if not (account.approved or account.operator):
        raise ApiError.of("AccountBlocked", login=account.login)


def is_public_read(method: str, path: Path) -> bool:
    """Reads below ``/:login/public``, which anybody may do."""
    return path.namespace == "public" and method in READS


def require_caller(caller: Caller | None, method: str, path: Path) -> None:
    """Nobody unknown goes further, but to read what is public.

    Raises:
        ApiError: AuthorizationFailed.
    """
    if caller is None and not is_public_read(method, path):
        raise ApiError.of("AuthorizationFailed", who="anonymous", path=path)


def authorize(caller: Caller | None, owner: Account, method: str, path: Path) -> None:
    """Owner and operators may everything; anybody may read below ``/:login/public``. Sub-users have no roles yet.

    Raises:
        ApiError: AuthorizationFailed, AccountBlocked.
    """
    if is_public_read(method, path):
        return
    if caller is not None and caller.user is None and (caller.account.uuid == owner.uuid or caller.account.operator):
        return
    if not owner.approved:
        raise ApiError.of("AccountBlocked", login=owner.login)
    raise ApiError.of("AuthorizationFailed", who=caller or "anonymous", path=path)


def require_secure(request: Request, query: Mapping[str, str], caller: Caller | None, path: Path) -> None:
    """On the clear-text port (the loadbalancer says which it was) only presigned requests and public reads are served.

    Raises:
        ApiError: SecureTransportRequired.
    """
    if request.headers.get("x-forwarded-proto") != "http":
        return
    if caller is None and is_public_read(request.method, path):
        return
    if "authorization" not in request.headers and presigned.is_presigned(query):
        return
    raise ApiError.of("SecureTransportRequired")
