"""Both ends of the accounts' protocol over a wire: what an authcache answers is what the webapi reads."""

from __future__ import annotations

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

    async def read(self, _after: int | None = None) -> Accounts:
        return Accounts(1, self.accounts)


@pytest_asyncio.fixture
async def shard() -> Shard:
    return Shard()


@pytest_asyncio.fixture
async def server(shard: Shard) -> AsyncIterator[HttpServer]:
    cache = Authcache(CONFIG)
    cache._directory = shard  # type: ignore[assignment]
    await cache._poll(everything=True)
    made = HttpServer(cache.handle)
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
