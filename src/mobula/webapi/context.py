"""One request on its way through the handlers: what has been found out about it so far."""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from mobula.core.accounts import Account, Caller
from mobula.core.clock import SystemClock
from mobula.core.errors import ApiError
from mobula.core.paths import Path
from mobula.metadata.jobs import JobDoor
from mobula.metadata.model import Lookup, Metadata
from mobula.webapi.bound import Bound
from mobula.webapi.notes import Notes
from mobula.webapi.placement import StorageDirectory
from mobula.webapi.usage import RequestCounts
from mobula.wire.http_client import ClientResponse
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_message import Pairs
from mobula.wire.storage_client import StorageClient


@dataclass(slots=True)
class Context:
    """`caller` None: nobody has signed. `owner`: the account that the path names. `found`: what is there, as of one look."""

    request: Request
    response: Response
    bound: Bound
    path: Path
    owner: Account
    caller: Caller | None
    query: Mapping[str, str]
    found: Lookup = Lookup(None, directory_exists=True)  # noqa: RUF009 (frozen)
    parent_is_object: bool = False

    @property
    def directory(self) -> str:
        """The parent, as the metadata tier knows it."""
        return self.path.parent.stored(self.owner.uuid)

    @property
    def stored(self) -> str:
        """The path, as the metadata tier knows it."""
        return self.path.stored(self.owner.uuid)

    def require_parent(self) -> None:
        """The parent is a directory.

        Raises:
            ApiError: ParentNotDirectory.
        """
        if self.parent_is_object:
            raise ApiError.of("ParentNotDirectory", path=self.path.parent)

    def cors(self) -> list[tuple[str, str]]:
        """What every write answers to a browser."""
        origin = self.header("origin")
        return [("Access-Control-Allow-Origin", origin)] if origin else []

    async def body(self, max_bytes: int) -> bytes:
        """The whole body; whoever sends it slowly has not used up our time. Raises what `Request.body` raises."""
        with self.bound.paused():
            return await self.request.body(max_bytes)

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        return self.request.headers.get(name)


@dataclass(frozen=True, slots=True)
class JobsOfRegion:
    """Where jobs are kept; how their supervisor learns that something has happened to one, and is asked for an end of its terminal."""

    door: JobDoor
    wake: Callable[[uuid.UUID], None]
    attach: Callable[[uuid.UUID, str, Pairs], Awaitable[ClientResponse]]
    images: tuple[str, ...]
    """versions that jobs may ask for"""


@dataclass(slots=True)
class Store:
    """What the handlers of objects work with."""

    metadata: Metadata
    storage: StorageClient
    directory: StorageDirectory
    az: str
    pick: random.Random
    notes: Notes
    jobs: JobsOfRegion | None = None
    """None: the region has no compute"""
    usage: RequestCounts = field(default_factory=lambda: RequestCounts(SystemClock()))


def read_query(query: str) -> dict[str, str]:
    """Parameters of a query; of one that comes twice the last counts."""
    return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=100))
