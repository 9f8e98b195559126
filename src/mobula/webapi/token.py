"""``POST /:login/tokens``: a token for the caller."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib

import msgspec

from mobula.core import tokens
from mobula.core.errors import ApiError
from mobula.core.tokens import Bearer, TokenKey
from mobula.webapi.context import Context

BODY_MAX = 100_000


async def create(context: Context, key: TokenKey) -> None:
    """A token that stands for the caller for seven days. A token never makes another one: it would last for ever.

    Raises:
        ApiError: AuthorizationFailed, and what is wrong with a JSON body.
    """
    caller = context.caller
    if caller is None or caller.account.uuid != context.owner.uuid or _is_by_token(context):
        raise ApiError.of("AuthorizationFailed", who=caller or "anonymous", path=context.path)
    await read_json(context)
    user = caller.user.uuid if caller.user else None
    token = tokens.seal(key, Bearer(caller.account.uuid, user), dt.datetime.now(dt.UTC))
    body = msgspec.json.encode({"token": token})
    headers = [("Content-Type", "application/json"), ("Content-MD5", _md5(body))]
    await context.response.send(201, headers, body)


def _is_by_token(context: Context) -> bool:
    return (context.header("authorization") or "").strip().lower().startswith("token ")


async def read_json(context: Context) -> object:
    """A request's JSON body; None if it has none.

    Raises:
        ApiError: RequestEntityTooLargeError, BadDigest, InvalidContent.
    """
    body = await context.body(BODY_MAX)
    wanted = context.header("content-md5")
    if wanted is not None and wanted != _md5(body):
        raise ApiError.of("BadDigest")
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise ApiError.of("InvalidContent", why=f"the body is not JSON: {error}") from error


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
