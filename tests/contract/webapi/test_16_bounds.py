"""However little answers: a request is decided in bounded time, and nobody waits for one copy while there is another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mobula.metadata.memory import MemoryMetadata
from mobula.webapi import app
from mobula.wire import storage_client
from mobula.wire.http_exchange import Request, Response
from tests.contract.webapi.local import BOUND_S, KnownAccounts, LocalRegion
from tests.region.signed import Client

SHORT_S = 0.3
NO_ANSWER_S = 2.0
LONG_S = 2 * BOUND_S


async def hang(*_: object, **__: object) -> Any:
    await asyncio.sleep(LONG_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are decided in 0.3 s."""
    monkeypatch.setattr(app, "DECIDE_S", SHORT_S)


@pytest.fixture
def stor(ann: Client, stor: str) -> str:
    assert ann.put(f"{stor}/o", b"hello").status == 204
    return stor


REQUESTS = [("GET", "o"), ("HEAD", "o"), ("PUT", "new"), ("DELETE", "o"), ("GET", "")]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("method", "name"), REQUESTS)
@pytest.mark.parametrize(
    ("where", "what"),
    [(KnownAccounts, ["get"]), (MemoryMetadata, ["lookup", "put_object"]), (MemoryMetadata, ["groups", "delete_object", "list_directory"])],
)  # fmt: skip
def test_a_request_that_nobody_decides_gets_503_in_time(
    where: type, what: list[str], method: str, name: str, *, ann: Client, stor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in what:
        monkeypatch.setattr(where, call, hang)
    began_s = time.monotonic()
    answer = ann.request(method, f"{stor}/{name}".rstrip("/"), b"hello" if method == "PUT" else None)
    took_s = time.monotonic() - began_s
    if method == "HEAD" and "groups" in what:
        assert answer.status == 200  # needs none of these
        return
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert took_s < BOUND_S


@pytest.mark.usefixtures("impatient")
def test_a_body_that_comes_slowly_has_all_the_time_that_it_needs(ann: Client, stor: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(4):
            time.sleep(SHORT_S / 2)
            yield b"piece"

    assert ann.request("PUT", f"{stor}/slow", pieces()).status == 204
    assert ann.get(f"{stor}/slow").body == b"piece" * 4


@pytest.fixture
def frozen(own_region: Callable[..., LocalRegion], monkeypatch: pytest.MonkeyPatch) -> LocalRegion:
    """Of three storage servers the first takes connections, and answers nothing."""
    region = own_region(storages_count=3)
    assert region.client("ann").put("/ann/stor/o", b"hello").status == 204
    server = region.storages[0].server

    async def handle(_: Request, __: Response) -> None:
        await hang()

    monkeypatch.setattr(server, "handle", handle)
    monkeypatch.setattr(storage_client, "ANSWER_S", NO_ANSWER_S)
    return region


def test_a_copy_whose_server_stands_still_is_read_elsewhere(frozen: LocalRegion) -> None:
    ann = frozen.client("ann")
    for _ in range(4):
        began_s = time.monotonic()
        assert ann.get("/ann/stor/o").body == b"hello"
        assert time.monotonic() - began_s < BOUND_S


@pytest.mark.parametrize("size_bytes", [5, 100_000])
def test_a_new_copy_goes_to_another_server_than_one_that_stands_still(frozen: LocalRegion, size_bytes: int) -> None:
    ann = frozen.client("ann")
    for number in range(4):
        began_s = time.monotonic()
        assert ann.put(f"/ann/stor/n{number}", b"x" * size_bytes).status == 204
        assert time.monotonic() - began_s < BOUND_S
