"""The authcache: filled, following, blind; and a key that counts from the moment it was added."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mobula.auth import app
from mobula.auth.app import OVERLAP, Authcache
from mobula.auth.config import AuthcacheConfig, Tls
from mobula.core.accounts import Account
from mobula.metadata.config import Postgres
from mobula.metadata.directory import Accounts
from mobula.metadata.model import Unavailable

BOUND_S = 5.0
CONFIG = AuthcacheConfig(
    region="lab", host="lab-a-api-01", az="a", address="127.0.0.1", port=0, zookeeper=("127.0.0.1:1",),
    postgres=Postgres("mobula", "mobula", 5432, "ca", "cert", "key"), tls=Tls("ca", "cert", "key"), poll_s=0.001,
)  # fmt: skip


class Shard:
    """Stands in for the directory on shard 1: accounts with the number of their last change."""

    def __init__(self) -> None:
        self.changes: dict[str, tuple[int, Account]] = {}
        self.asked: list[int | None] = []
        self.gone = False

    def put(self, number: int, login: str, *keys: str) -> None:
        account = Account(uuid.UUID(int=len(login)), login, True, False, dict.fromkeys(keys, "PEM"))
        self.changes[login] = (number, account)

    async def read(self, after: int | None = None) -> Accounts:
        self.asked.append(after)
        await asyncio.sleep(0)
        if self.gone:
            raise Unavailable("no primary")
        found: Sequence[Account] = [a for n, a in self.changes.values() if after is None or n > after]
        return Accounts(max((n for n, _ in self.changes.values()), default=0), found)


@pytest.fixture
def shard() -> Shard:
    shard = Shard()
    shard.put(100, "alice", "aa:01")
    return shard


@pytest.fixture
def cache(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> Authcache:
    monkeypatch.setattr(app, "REFRESH_GAP_S", 0.0)
    cache = Authcache(CONFIG)
    cache._directory = shard  # type: ignore[assignment]
    return cache


class Answer:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.body: Any = None
        self.headers: dict[str, str] = {}

    async def send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), json.loads(body)

    async def send_error(self, status: int, code: str, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status, self.headers, self.body = status, dict(headers), {"code": code, "message": message}


async def get(cache: Authcache, target: str, method: str = "GET") -> Answer:
    path, _, query = target.partition("?")
    answer = Answer()
    request = SimpleNamespace(method=method, path=path.encode("latin-1"), query=query)
    await cache.handle(request, answer)  # type: ignore[arg-type]
    return answer


async def test_an_account_is_found_by_its_uuid_too(cache: Authcache) -> None:
    await cache._poll(everything=True)
    assert (await get(cache, f"/uuids/{uuid.UUID(int=5)}")).body["login"] == "alice"
    assert (await get(cache, f"/uuids/{uuid.UUID(int=6)}")).status == 404


async def test_an_account_is_answered_with_its_keys_as_the_architecture_says(cache: Authcache) -> None:
    await cache._poll(everything=True)
    found = await get(cache, "/accounts/alice")
    assert (found.status, found.headers) == (200, {"Content-Type": "application/json"})
    assert found.body == {
        "uuid": str(uuid.UUID(int=5)), "login": "alice", "approved": True, "operator": False, "keys": {"aa:01": "PEM"},
        "users": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "/accounts/bob", "AccountDoesNotExist"),
        ("GET", "/accounts/", "AccountDoesNotExist"),
        ("GET", "/accounts/alice/keys", "AccountDoesNotExist"),
        ("GET", "/accounts/%ff%00", "AccountDoesNotExist"),
        ("GET", "/accounts/bob?key=", "AccountDoesNotExist"),
        ("GET", "/accounts", "ResourceNotFound"),
        ("GET", "/", "ResourceNotFound"),
        ("GET", "/\xff", "ResourceNotFound"),
        ("PUT", "/accounts/alice", "ResourceNotFound"),
        ("HEAD", "/accounts/alice", "ResourceNotFound"),
    ],
)
async def test_whatever_is_not_there_is_404(cache: Authcache, method: str, target: str, code: str) -> None:
    await cache._poll(everything=True)
    found = await get(cache, target, method)
    assert (found.status, found.body["code"]) == (404, code)


async def test_a_login_may_be_percent_encoded(cache: Authcache, shard: Shard) -> None:
    shard.put(1, "a@b.c%d")
    await cache._poll(everything=True)
    assert (await get(cache, "/accounts/a%40b.c%25d")).body["login"] == "a@b.c%d"


async def test_before_it_has_been_filled_nothing_is_answered_and_the_status_says_why(cache: Authcache) -> None:
    found = await get(cache, "/accounts/alice?key=aa:01")
    assert (found.status, found.headers) == (503, {"Retry-After": "1"})
    assert found.body["message"] == "the accounts have never been read from shard 1"
    assert cache.status()["healthy"] is False


async def test_a_known_key_is_answered_without_asking_the_shard(cache: Authcache, shard: Shard) -> None:
    await cache._poll(everything=True)
    assert (await get(cache, "/accounts/alice?key=aa%3A01")).status == 200
    assert shard.asked == [None]


async def test_a_key_counts_from_the_moment_it_was_added(cache: Authcache, shard: Shard) -> None:
    await cache._poll(everything=True)
    shard.put(101, "alice", "aa:01", "bb:02")
    shard.put(102, "bob", "cc:03")
    assert "bb:02" in (await get(cache, "/accounts/alice?key=bb:02")).body["keys"]
    assert (await get(cache, "/accounts/bob?key=cc:03")).status == 200
    assert shard.asked == [None, 100 - OVERLAP]


async def test_one_read_serves_all_who_ask_for_unknown_keys_at_once(cache: Authcache, shard: Shard) -> None:
    await cache._poll(everything=True)
    await asyncio.gather(*(get(cache, f"/accounts/alice?key={n}") for n in range(50)))
    assert len(shard.asked) <= 3


async def test_unknown_keys_make_no_more_than_one_read_each_gap(
    cache: Authcache, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache._poll(everything=True)
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(app, "REFRESH_GAP_S", 10.0)
    monkeypatch.setattr(app.asyncio, "sleep", sleep)
    await get(cache, "/accounts/alice?key=dd")
    assert max(slept) == pytest.approx(10.0, abs=1.0)


@pytest.mark.parametrize("gone", [True, False])
async def test_an_unknown_key_of_a_known_account_is_answered_with_what_is_known(
    cache: Authcache, shard: Shard, gone: bool
) -> None:
    await cache._poll(everything=True)
    shard.gone = gone
    found = await get(cache, "/accounts/alice?key=zz")
    assert (found.status, found.body["keys"]) == (200, {"aa:01": "PEM"})


async def test_a_shard_that_hangs_delays_an_unknown_key_only_so_long(
    cache: Authcache, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache._poll(everything=True)
    monkeypatch.setattr(app, "REFRESH_BOUND_S", 0.02)
    async with cache._reading:
        found = await asyncio.wait_for(get(cache, "/accounts/alice?key=zz"), BOUND_S)
    assert found.status == 200


async def test_a_poll_looks_back_over_numbers_that_were_given_but_not_yet_visible(
    cache: Authcache, shard: Shard
) -> None:
    await cache._poll(everything=True)
    shard.put(100 - OVERLAP + 1, "late", "ee:05")
    await cache._poll(everything=False)
    assert (await get(cache, "/accounts/late")).status == 200


async def test_reading_everything_forgets_an_account_that_is_gone(cache: Authcache, shard: Shard) -> None:
    shard.put(101, "bob")
    await cache._poll(everything=True)
    del shard.changes["bob"]
    await cache._poll(everything=False)
    assert (await get(cache, "/accounts/bob")).status == 200
    await cache._poll(everything=True)
    assert (await get(cache, "/accounts/bob")).status == 404


async def until(holds: Any) -> None:
    async with asyncio.timeout(BOUND_S):
        while not holds():
            await asyncio.sleep(0.001)


async def test_it_answers_what_it_knows_while_the_shard_is_away_and_says_since_when(
    cache: Authcache, shard: Shard
) -> None:
    follower = asyncio.create_task(cache._follow())
    await until(lambda: cache.status()["healthy"])
    shard.gone = True
    await until(lambda: cache.status()["blind_since"])
    since = cache.status()["blind_since"]
    asked = len(shard.asked)
    await until(lambda: len(shard.asked) > asked + 2)
    assert cache.status() == {
        "healthy": True, "why": "", "accounts": 1, "newest_change": 100, "blind_since": since,
    }  # fmt: skip
    assert (await get(cache, "/accounts/alice")).status == 200
    shard.gone = False
    await until(lambda: cache.status()["blind_since"] is None)
    follower.cancel()


async def test_an_empty_cache_of_a_shard_that_is_away_says_what_the_shard_said(cache: Authcache, shard: Shard) -> None:
    shard.gone = True
    follower = asyncio.create_task(cache._follow())
    await until(lambda: cache.status()["blind_since"])
    assert cache.status()["why"] == "shard 1: no primary"
    assert (await get(cache, "/accounts/alice")).body["message"] == "shard 1: no primary"
    follower.cancel()


async def test_everything_is_read_anew_now_and_then(
    cache: Authcache, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "REREAD_POLLS", 3)
    follower = asyncio.create_task(cache._follow())
    await until(lambda: len(shard.asked) >= 7)
    follower.cancel()
    assert shard.asked[:7] == [None, 50, 50, None, 50, 50, None]
