"""The authcache: all accounts and keys in memory, following the change feed of schema `directory` on shard 1.

It answers what it knows while shard 1 is away, and says in its status since when. Nothing is answered before it has been filled once.
Asked for a key that it does not know, it reads the changes first: a key counts from the moment it was added.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from urllib.parse import parse_qsl, unquote

import msgspec
import structlog

from mobula.auth.config import AuthcacheConfig
from mobula.core.accounts import Account
from mobula.metadata.directory import Directory
from mobula.metadata.model import MetadataError
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_exchange import Request, Response
from mobula.wire.zookeeper import Client

log = structlog.get_logger()

REREAD_POLLS = 120
"""each so many polls everything is read anew: what a missed change left behind does not last"""
OVERLAP = 50
"""numbers are given before commit: a lower one may become visible later, so each poll looks this far back"""
REFRESH_GAP_S = 0.05
"""between two reads that unknown keys ask for: whoever guesses keys makes no more work than this"""
REFRESH_BOUND_S = 1.0
"""no unknown key waits longer for shard 1"""
JSON = [("Content-Type", "application/json")]


class Authcache:
    """One instance."""

    def __init__(self, config: AuthcacheConfig) -> None:
        self._config = config
        self._zookeeper = Client(config.zookeeper)
        self._metadata = PostgresMetadata(self._zookeeper, config.postgres)
        self._directory = Directory(self._metadata)
        self._accounts: dict[str, Account] | None = None
        self._by_uuid: dict[str, Account] = {}
        self._newest = 0
        self._blind_since: dt.datetime | None = None
        self._why = "the accounts have never been read from shard 1"
        self._task: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._read_began_s = 0.0

    async def start(self) -> None:
        """Begin to follow."""
        self._zookeeper.start()
        self._metadata.start()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
        self._metadata.stop()
        await self._zookeeper.stop()

    async def _follow(self) -> None:
        polls = 0
        while True:
            try:
                await self._poll(everything=self._accounts is None or polls % REREAD_POLLS == 0)
                self._blind_since = None
            except (MetadataError, msgspec.MsgspecError) as error:
                self._why = f"shard 1: {error}"
                if self._blind_since is None:
                    self._blind_since = dt.datetime.now(dt.UTC)
                    log.warning("accounts can't be read", why=str(error))
            polls += 1
            await asyncio.sleep(self._config.poll_s)

    async def _poll(self, *, everything: bool) -> None:
        async with self._reading:
            await self._read(everything=everything)

    async def _read(self, *, everything: bool) -> None:
        self._read_began_s = time.monotonic()
        found = await self._directory.read(None if everything else max(0, self._newest - OVERLAP))
        accounts = {} if everything or self._accounts is None else self._accounts
        accounts.update({account.login: account for account in found.accounts})
        self._accounts, self._newest = accounts, found.newest
        self._by_uuid = {str(account.uuid): account for account in accounts.values()}

    async def _refresh(self) -> None:
        """Know all that was committed before now; one read serves all who wait for it. What goes wrong, `_follow` tells."""
        asked_s = time.monotonic()
        with contextlib.suppress(TimeoutError, MetadataError, msgspec.MsgspecError):
            async with asyncio.timeout(REFRESH_BOUND_S), self._reading:
                if self._read_began_s < asked_s:
                    await asyncio.sleep(max(0.0, self._read_began_s + REFRESH_GAP_S - asked_s))
                    await self._read(everything=False)

    def status(self) -> dict[str, object]:
        """Healthy once filled; how many accounts, and since when shard 1 has been away."""
        filled = self._accounts is not None
        return {
            "healthy": filled,
            "why": "" if filled else self._why,
            "accounts": len(self._accounts or {}),
            "newest_change": self._newest,
            "blind_since": self._blind_since.isoformat() if self._blind_since else None,
        }

    def _find(self, path: str) -> Account | None:
        _, kind, name = path.split("/", 2)
        return (self._by_uuid if kind == "uuids" else self._accounts or {}).get(unquote(name))

    async def handle(self, request: Request, response: Response) -> None:
        """``GET /accounts/<login>[?key=<fingerprint>[&user=<login>]]`` and ``GET /uuids/<account uuid>``."""
        path = request.path.decode("latin-1")
        if request.method != "GET" or not path.startswith(("/accounts/", "/uuids/")):
            await response.send_error(404, "ResourceNotFound", f"{path} was not found")
            return
        if self._accounts is None:
            await response.send_error(503, "ServiceUnavailable", self._why, [("Retry-After", "1")])
            return
        account = self._find(path)
        wanted = dict(parse_qsl(request.query))
        if "key" in wanted and (account is None or not account.knows(wanted["key"], wanted.get("user"))):
            await self._refresh()
            account = self._find(path)
        if account is None:
            await response.send_error(404, "AccountDoesNotExist", "there is no such account")
            return
        await response.send(200, JSON, msgspec.json.encode(account))
