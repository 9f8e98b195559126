"""Accounts, asked of the authcaches: the own AZ's first, another one when that one does not answer; remembered for a second."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec

from mobula.core.accounts import Account
from mobula.core.errors import unavailable
from mobula.wire.http_client import Address, HttpClient, RequestFailed

REMEMBERED_S = 1.0
"""a key that was taken away is refused everywhere this much later, at most"""
REMEMBERED_MAX = 20_000


class Accounts(Protocol):
    """Where accounts come from."""

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:
        """The account of that login, None if there is none; its `key`, or its `user`'s, counts from the moment it was added.

        Raises:
            ApiError: nobody can be asked (503).
        """

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        """The account of that uuid, None if there is none. Raises as `get`."""


class Authcaches:
    """`Accounts` over the wire."""

    def __init__(self, http: HttpClient, servers: Sequence[Address]) -> None:
        self._http = http
        self._servers = list(servers)
        self._known: dict[str, tuple[float, Account]] = {}

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:
        known = self._known.get(login)
        if known is not None and known[0] > time.monotonic() and (key is None or known[1].knows(key, user)):
            return known[1]
        wanted = {name: value for name, value in (("key", key), ("user", user)) if value}
        account = await self._ask(f"/accounts/{quote(login, safe='')}" + (f"?{urlencode(wanted)}" if wanted else ""))
        return self._remember(login, account)

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        # No login begins with a slash: both kinds of names have room beside each other.
        known = self._known.get(f"/{number}")
        if known is not None and known[0] > time.monotonic():
            return known[1]
        return self._remember(f"/{number}", await self._ask(f"/uuids/{number}"))

    def _remember(self, name: str, account: Account | None) -> Account | None:
        if account is None:
            self._known.pop(name, None)
        else:
            if len(self._known) > REMEMBERED_MAX:
                self._known.clear()
            self._known[name] = (time.monotonic() + REMEMBERED_S, account)
        return account

    async def _ask(self, target: str) -> Account | None:
        why = "no authcache is known"
        for server in list(self._servers):
            try:
                response = await self._http.request(server, "GET", target)
                body = await response.body()
                if response.status == 200:
                    return msgspec.json.decode(body, type=Account)
                if response.status == 404:
                    return None
                why = f"{server} answers {response.status}"
            except (RequestFailed, msgspec.MsgspecError) as error:
                why = f"{server}: {error}"
            # Who doesn't answer is asked last from now on.
            self._servers.remove(server)
            self._servers.append(server)
        raise unavailable(f"accounts can't be looked up: {why}")
