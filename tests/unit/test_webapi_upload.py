"""An upload of a small body: taken whole, stored in one go, on another group when a server refuses or fails."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock
from uuid import UUID

import pytest

from mobula.core.errors import ApiError
from mobula.core.groups import Group, StorageServer
from mobula.core.paths import parse
from mobula.proto.put import State
from mobula.webapi import upload as uploads
from mobula.webapi.context import Context, Store
from mobula.webapi.notes import Notes
from mobula.webapi.upload import Upload, Wish
from mobula.wire.http_client import Address
from mobula.wire.http_exchange import BodyTimeout
from mobula.wire.storage_client import (
    CopyMissing,
    CopyWriter,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StoredCopy,
)

BODY = b"a small body"
MD5 = hashlib.md5(BODY).digest()  # noqa: S324 (the protocol's)
A, B, C = (StorageServer(name, name, "10.0.0.1", port) for port, name in enumerate("abc", 1))
GROUPS = [Group(1, 1, (A, B)), Group(2, 1, (A, C))]


@dataclass
class Storage:
    """Storage servers by port; `fail` says what a server raises."""

    fail: dict[int, StorageError] = field(default_factory=dict)
    stored: dict[tuple[int, str], bytes] = field(default_factory=dict)
    md5: bytes = MD5

    async def put(self, server: Address, _account: str, object_id: str, data: bytes, **_: str) -> StoredCopy:
        if server.port in self.fail:
            raise self.fail[server.port]
        assert (server.port, object_id) not in self.stored
        self.stored[server.port, object_id] = data
        return StoredCopy(len(data), self.md5)

    async def delete(self, server: Address, _account: str, object_id: str, *_: object) -> None:
        if self.stored.pop((server.port, object_id), None) is None:
            raise CopyMissing("not there")


@dataclass
class Body:
    """A request's body, or what goes wrong while it comes."""

    error: Exception | None = None
    request_id: str = "id"

    async def body(self, _max_bytes: int) -> bytes:
        if self.error:
            raise self.error
        return BODY


def upload(
    storage: Storage, *, md5: bytes | None = None, body: Body | None = None, groups: list[Group] = GROUPS
) -> tuple[Upload, list[str]]:
    """An upload to these servers, and the list of those that it will suspect."""
    suspected: list[str] = []
    owner = SimpleNamespace(uuid=UUID(int=1))
    bound = cast(Any, SimpleNamespace(paused=contextlib.nullcontext))
    context = Context(
        cast(Any, body or Body()), cast(Any, None), bound, parse(b"/ann/stor/o"), cast(Any, owner), None, {}
    )
    directory = cast(Any, SimpleNamespace(suspect=suspected.append))
    store = Store(cast(Any, None), cast(Any, storage), directory, "a", random.Random(1), Notes())  # noqa: S311
    return Upload(context, store, Wish(2, md5, len(BODY), 1 << 20), groups), suspected


async def test_both_copies_are_stored_in_one_go() -> None:
    storage = Storage()
    made, _ = upload(storage)
    assert await made.receive() == StoredCopy(len(BODY), MD5)
    assert storage.stored == {(port, str(made.object_id)): BODY for port in (1, 2)}
    assert made.machine.state == State.COMMITTING
    assert made.group.id == 1


@pytest.mark.parametrize("error", [StorageFull("full"), StorageUnavailable("gone")])
async def test_another_group_takes_the_object_when_a_server_does_not_and_nothing_stays(error: StorageError) -> None:
    storage = Storage(fail={2: error})
    made, suspected = upload(storage)
    await made.receive()
    assert storage.stored == {(port, str(made.object_id)): BODY for port in (1, 3)}
    assert made.group.id == 2
    assert suspected == (["b"] if isinstance(error, StorageUnavailable) else [])


async def test_when_no_group_takes_it_it_is_503_and_nothing_stays() -> None:
    storage = Storage(fail={2: StorageUnavailable("gone"), 3: StorageUnavailable("gone")})
    made, _ = upload(storage)
    with pytest.raises(ApiError) as caught:
        await made.receive()
    assert (caught.value.status, storage.stored) == (503, {})
    assert made.machine.state == State.FAILED


async def test_a_body_that_is_not_what_its_md5_says_is_never_stored() -> None:
    storage = Storage()
    made, _ = upload(storage, md5=b"0" * 16)
    with pytest.raises(ApiError, match="MD5"):
        await made.receive()
    assert storage.stored == {}


async def test_a_copy_that_is_something_else_than_was_sent_is_not_committed() -> None:
    storage = Storage(md5=b"1" * 16)
    made, _ = upload(storage)
    with pytest.raises(ApiError) as caught:
        await made.receive()
    assert (caught.value.status, made.machine.state) == (503, State.FAILED)
    assert storage.stored == {}


async def test_copies_that_took_too_long_for_their_commit_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "COMMIT_DEADLINE_S", -1)
    storage = Storage()
    made, _ = upload(storage)
    with pytest.raises(ApiError) as caught:
        await made.receive()
    assert (caught.value.status, storage.stored) == (503, {})


async def test_a_client_that_stops_sending_is_told_so() -> None:
    made, _ = upload(Storage(), body=Body(BodyTimeout("no byte came")))
    with pytest.raises(ApiError) as caught:
        await made.receive()
    assert caught.value.code == "UploadTimeout"


async def test_an_error_that_is_no_servers_word_goes_through() -> None:
    storage = Storage()
    storage.put = cast(Any, lambda *_, **__: 1 / 0)  # type: ignore[method-assign]
    made, _ = upload(storage)
    with pytest.raises(ZeroDivisionError):
        await made.receive()


LARGE = b"0123456789abcdef" * 32_768  # 512 KiB


class Writer(CopyWriter):
    """A copy being streamed; `damage` is what its server makes of the bytes."""

    def __init__(self, damage: bytes) -> None:
        self.got, self.damage, self.aborted = b"", damage, False

    async def thread_writer(self) -> Callable[[memoryview], None]:
        def write(piece: memoryview) -> None:
            self.got += bytes(piece)

        return write

    async def finish(self) -> StoredCopy:
        return StoredCopy(len(self.got), hashlib.md5(self.got + self.damage).digest())  # noqa: S324

    def abort(self) -> None:
        self.aborted = True


def large_upload(copies: int, *damages: bytes, md5: bytes | None = None) -> tuple[Upload, list[Writer]]:
    """An upload of a large body to servers that do `damages` to it."""
    made, _ = upload(Storage())
    writers = [Writer(damage) for damage in damages]
    waiting = iter(writers)

    async def open_put(*_: object, **__: object) -> Writer:
        return next(waiting)

    async def receive_into(consume: Callable[[memoryview], None]) -> None:
        for at in range(0, len(LARGE), 200_000):
            consume(memoryview(LARGE[at : at + 200_000]))

    context, store = made._context, made._store
    store.storage = cast(Any, SimpleNamespace(open_put=open_put, delete=AsyncMock()))
    context.request = cast(Any, SimpleNamespace(receive_into=receive_into, request_id="id"))
    return Upload(context, store, Wish(copies, md5, len(LARGE), 1 << 20), GROUPS), writers


@pytest.mark.parametrize("copies", [1, 2])
async def test_a_large_body_reaches_every_copy_and_has_their_md5(copies: int) -> None:
    made, writers = large_upload(copies, *[b""] * copies)
    assert await made.receive() == StoredCopy(len(LARGE), hashlib.md5(LARGE).digest())  # noqa: S324
    assert {writer.got for writer in writers} == {LARGE}


@pytest.mark.parametrize("damages", [(b"x",), (b"x", b""), (b"", b"x"), (b"x", b"y")])
async def test_a_copy_of_a_large_body_that_came_damaged_is_not_committed(damages: tuple[bytes, ...]) -> None:
    made, writers = large_upload(len(damages), *damages)
    with pytest.raises(ApiError) as caught:
        await made.receive()
    assert (caught.value.status, made.machine.state) == (503, State.FAILED)
    assert all(writer.aborted for writer in writers)


async def test_a_large_body_that_is_not_what_its_md5_says_is_refused() -> None:
    made, _ = large_upload(2, b"", b"", md5=b"0" * 16)
    with pytest.raises(ApiError, match="MD5"):
        await made.receive()
