"""Both ends of the accounts' protocol over a wire: what an authcache answers is what the webapi reads."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mobula.auth.app import Authcache
from mobula.auth.config import AuthcacheConfig, Tls
from mobula.core.accounts import Account, User
from mobula.core.errors import ApiError
from mobula.metadata.config import Postgres
from mobula.metadata.directory import Accounts
from mobula.wire import accounts as wire_accounts
from mobula.wire.accounts import Authcaches
from mobula.wire.http_client import Address, HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer

CONFIG = AuthcacheConfig(
    region="test", host="test-a-api-01", az="a", address="192.0.2.1", port=8070, zookeeper=("192.0.2.1:2181",),
    postgres=Postgres("mobula", "mobula", 5432, "ca", "cert", "key"), tls=Tls("ca", "cert", "key"),
)  # fmt: skip
SUB = User(uuid.uuid4(), "sub", {"aa:02": "PEM"})
ANN = Account(uuid.uuid4(), "ann@x", True, False, {"aa:01": "PEM"}, {"sub": SUB})


class Shard:
    """Stands in for the directory on shard 1."""

    def __init__(self) -> None:
        self.accounts = [ANN]
        self.asked = 0
        """requests to the authcache"""
        self.reads = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, _after: int | None = None) -> Accounts:
        found = Accounts(1, self.accounts)
        self.reads += 1
        await self.answers.wait()
        return found


@pytest_asyncio.fixture
async def shard() -> Shard:
    return Shard()


@pytest_asyncio.fixture
async def server(shard: Shard) -> AsyncIterator[HttpServer]:
    cache = Authcache(CONFIG)
    cache._directory = shard  # type: ignore[assignment]
    await cache._poll(everything=True)

    async def handle(request: Request, response: Response) -> None:
        shard.asked += 1
        await cache.handle(request, response)

    made = HttpServer(handle)
    yield made
    await made.stop(1.0)


@pytest_asyncio.fixture
async def accounts(server: HttpServer) -> AsyncIterator[Authcaches]:
    http = HttpClient()
    port = await server.listen("127.0.0.1", 0)
    yield Authcaches(http, [Address("127.0.0.1", port)])
    await http.close()


async def test_an_account_comes_with_its_sub_users_by_login_and_by_uuid(accounts: Authcaches) -> None:
    assert await accounts.get("ann@x") == ANN
    assert await accounts.get("ann@x", key="aa:02", user="sub") == ANN
    assert await accounts.by_uuid(ANN.uuid) == ANN
    assert (await accounts.get("nobody"), await accounts.by_uuid(uuid.uuid4())) == (None, None)


async def test_a_sub_users_key_counts_from_the_moment_it_was_added(accounts: Authcaches, shard: Shard) -> None:
    assert await accounts.get("ann@x") == ANN  # remembered from now on
    changed = User(SUB.uuid, "sub", {**SUB.keys, "aa:03": "PEM"})
    shard.accounts = [Account(ANN.uuid, "ann@x", True, False, ANN.keys, {"sub": changed})]
    found = await accounts.get("ann@x", key="aa:03", user="sub")
    assert found is not None
    assert found.users["sub"] == changed


async def test_so_does_a_key_that_its_account_has_already(accounts: Authcaches, shard: Shard) -> None:
    (key,) = ANN.keys
    assert await accounts.get("ann@x", key=key) == ANN  # remembered from now on
    shard.accounts = [Account(ANN.uuid, "ann@x", True, False, ANN.keys, {"sub": User(SUB.uuid, "sub", ANN.keys)})]
    found = await accounts.get("ann@x", key=key, user="sub")
    assert found is not None
    assert key in found.users["sub"].keys


async def test_many_that_want_the_same_ask_once(accounts: Authcaches, shard: Shard) -> None:
    found = await asyncio.gather(
        *(accounts.get("ann@x") for _ in range(50)), *(accounts.get("nobody") for _ in range(50))
    )
    assert found == [ANN] * 50 + [None] * 50
    assert shard.asked <= 2 + 1  # "nobody" may be younger than the first question
    shard.asked = 0
    await asyncio.gather(*(accounts.by_uuid(ANN.uuid) for _ in range(50)))
    assert shard.asked == 1


async def test_an_answer_that_was_asked_for_before_a_key_was_added_does_not_refuse_it(
    accounts: Authcaches, shard: Shard
) -> None:
    shard.answers.clear()
    before = shard.reads
    early = asyncio.create_task(accounts.get("ann@x", key="aa:03"))
    async with asyncio.timeout(5):
        while shard.reads == before:
            await asyncio.sleep(0.001)
    shard.accounts = [Account(ANN.uuid, "ann@x", True, False, {**ANN.keys, "aa:03": "PEM"}, {})]
    late = asyncio.create_task(accounts.get("ann@x", key="aa:03"))
    await asyncio.sleep(0)
    shard.answers.set()
    await early
    found = await late
    assert found is not None
    assert "aa:03" in found.keys


async def test_who_gives_up_takes_the_answer_from_nobody(accounts: Authcaches, shard: Shard) -> None:
    shard.answers.clear()
    first, second = (asyncio.create_task(accounts.get("ann@x", key="aa:09")) for _ in range(2))
    async with asyncio.timeout(5):
        while not shard.asked:
            await asyncio.sleep(0.001)
    first.cancel()
    shard.answers.set()
    assert await second == ANN


async def test_who_is_known_stays_known_while_no_authcache_answers_and_nobody_else_does(
    accounts: Authcaches, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = ANN.keys
    await accounts.get("ann@x", key=key)
    await server.stop(0.0)
    monkeypatch.setattr(wire_accounts, "REMEMBERED_S", 0.0)
    for _ in range(3):
        assert await accounts.get("ann@x", key=key) == ANN
    for asked in (accounts.get("ann@x", key="aa:09"), accounts.get("bob"), accounts.by_uuid(ANN.uuid)):
        with pytest.raises(ApiError, match="can't be looked up") as refused:
            await asked
        assert refused.value.status == 503
    monkeypatch.setattr(wire_accounts, "BLIND_S", 0.0)
    with pytest.raises(ApiError, match="can't be looked up"):
        await accounts.get("ann@x", key=key)
