"""Accounts, asked of the authcaches: the own AZ's first, another one when that one does not answer; remembered for a second.

While no authcache answers at all, an account is as it was last known, for five minutes: who is known goes on (CL-30).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec

from mobula.core.accounts import Account
from mobula.core.errors import ApiError, unavailable
from mobula.wire.http_client import Address, HttpClient, RequestFailed

REMEMBERED_S = 1.0
"""a key that was taken away is refused everywhere this much later, at most"""
BLIND_S = 300.0
"""how old an account may be while nobody can be asked"""
ASK_AGAIN_S = 1.0
"""after all authcaches have failed to answer: the next one who is known is not to wait for them"""
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
        """when it was asked for, and what was answered, by login or /uuid"""
        self._asking: dict[str, asyncio.Task[Account | None]] = {}
        """what is asked for just now, by target"""
        self._blind_until_s = 0.0

    async def get(self, login: str, *, key: str | None = None, user: str | None = None) -> Account | None:
        wanted = {name: value for name, value in (("key", key), ("user", user)) if value}
        target = f"/accounts/{quote(login, safe='')}" + (f"?{urlencode(wanted)}" if wanted else "")
        return await self._look(login, target, lambda account: key is None or account.knows(key, user))

    async def by_uuid(self, number: uuid.UUID) -> Account | None:
        # No login begins with a slash: both kinds of names have room beside each other.
        return await self._look(f"/{number}", f"/uuids/{number}", lambda _: True)

    async def _look(self, name: str, target: str, serves: Callable[[Account], bool]) -> Account | None:
        """What is known under a name if that is new enough and `serves`, else what an authcache says."""
        now_s = time.monotonic()
        asked_s, known = self._known.get(name, (0.0, None))
        usable = known is not None and serves(known)
        if usable and now_s < asked_s + REMEMBERED_S:
            return known
        in_blindness = usable and now_s < asked_s + BLIND_S
        if in_blindness and now_s < self._blind_until_s:
            return known
        try:
            account = await self._ask_together(target, serves)
        except ApiError:
            if not in_blindness:
                raise
            self._blind_until_s = time.monotonic() + ASK_AGAIN_S
            return known
        return self._remember(name, account)

    def _remember(self, name: str, account: Account | None) -> Account | None:
        if account is None:
            self._known.pop(name, None)
        else:
            if len(self._known) > REMEMBERED_MAX:
                self._known.clear()
            self._known[name] = (time.monotonic(), account)
        return account

    async def _ask_together(self, target: str, serves: Callable[[Account], bool]) -> Account | None:
        """One question for all that have it at a time: a job's five hundred inputs, say, would open as many connections. An answer that
        was asked for before we came counts only if it `serves`: what it lacks may be younger than the question.
        """
        if (earlier := self._asking.get(target)) is not None:
            account = await asyncio.shield(earlier)
            if account is not None and serves(account):
                return account
        if (asking := self._asking.get(target)) is None:
            asking = self._asking[target] = asyncio.create_task(self._ask(target))
            asking.add_done_callback(partial(self._asked, target))
        return await asyncio.shield(asking)

    def _asked(self, target: str, asking: asyncio.Task[Account | None]) -> None:
        del self._asking[target]
        if not asking.cancelled():
            asking.exception()  # whoever waited has it; perhaps nobody does any more

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
