"""What a shard's client makes of a driver that fails in the middle of a statement."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from mobula.metadata.model import OutcomeUnknown
from mobula.metadata.shard import Shard


@dataclass
class Connection:
    """Whose statement fails; `closed`: as it was dropped."""

    error: Exception
    closed: bool = False
    ended: bool = False

    async def fetch(self, _sql: str) -> None:
        raise self.error

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.ended = True


async def ask(connection: Connection) -> None:
    shard = Shard(1, cast(Any, SimpleNamespace(context=lambda: None)), cast(Any, None))
    await shard._never_cancel(cast(Any, connection), "SELECT 1", (), 1.0)


@pytest.mark.parametrize(
    "connection",
    [
        Connection(ConnectionResetError("reset")),
        Connection(asyncpg.InterfaceError("connection is closed")),
        Connection(asyncpg.InternalClientError("cannot switch to state 12"), closed=True),
        Connection(AttributeError("'NoneType' object has no attribute 'bind_execute'"), closed=True),
    ],
)
async def test_a_connection_that_ends_in_mid_statement_leaves_the_outcome_unknown(connection: Connection) -> None:
    with pytest.raises(OutcomeUnknown, match="connection lost"):
        await ask(connection)
    assert connection.ended


async def test_a_mistake_of_ours_on_a_connection_that_stands_is_not_hidden() -> None:
    with pytest.raises(AttributeError):
        await ask(Connection(AttributeError("no such thing")))
