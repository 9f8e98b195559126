"""A registration beside a connection that is lost at a bad moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from mobula.wire.zookeeper import Client, Registration

PATH = "/names/storage/a"
BOUND_S = 5.0


class Losing:
    """In the place of a Client: its connection is lost right after the first answer, and is back with the next look."""

    def __init__(self) -> None:
        self.looks = 0
        self.made: list[str] = []
        self.kazoo = SimpleNamespace(client_id=(1, b""), exists_async=self._exists)

    def on_state(self, callback: Callable[[bool], None]) -> None: ...

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        return method(*args)

    def _exists(self, _path: str) -> SimpleNamespace:
        self.looks += 1
        self.kazoo.client_id = None if self.looks == 1 else (1, b"")
        return SimpleNamespace(ephemeralOwner=0)

    async def delete(self, path: str) -> None: ...

    async def create(self, path: str, _data: bytes, *, ephemeral: bool) -> None:
        assert ephemeral
        self.made.append(path)


async def test_a_connection_that_is_lost_between_an_answer_and_its_use_is_waited_for() -> None:
    client = Losing()
    registration = Registration(cast("Client", client), PATH, b"1")
    registration.ensure()
    async with asyncio.timeout(BOUND_S):
        while not registration.held:
            await asyncio.sleep(0.01)
    assert client.made == [PATH]
    await registration.withdraw()
