"""Where the supervisors of jobs are: each shard's has a node ``/jobs/supervisors/shard-<n>`` in ZooKeeper that says its address."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import structlog

from mobula.core.capability import HEADER, Grant, sign
from mobula.core.clock import Clock
from mobula.wire.http_client import ClientResponse, HttpClient
from mobula.wire.http_failures import Address, ConnectFailed, RequestFailed
from mobula.wire.http_message import Pairs
from mobula.wire.zookeeper import Client, Tree

log = structlog.get_logger()

ROOT, KIND = "/jobs", "supervisors"
SUBJECT = "jobs"
"""stands in a capability where others have an object"""
VALID_S = 60


def node_of(shard: int) -> str:
    """What a shard's node is called."""
    return f"shard-{shard}"


class Supervisors:
    """Follows them."""

    def __init__(self, zookeeper: Client) -> None:
        self._tree = Tree(zookeeper, ROOT, self._on_change)
        self._addresses: dict[str, Address] = {}

    def start(self) -> None:
        """Begin to follow, as soon as there is a session."""
        self._tree.start()

    def stop(self) -> None:
        """Follow no more."""
        self._tree.stop()

    def of(self, shard: int) -> Address | None:
        """Who leads the jobs of a shard now; None: nobody."""
        return self._addresses.get(node_of(shard))

    @property
    def count(self) -> int:
        """Of shards that are led."""
        return len(self._addresses)

    def _on_change(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        found = {}
        for node, data in picture.get(KIND, {}).items():
            try:
                found[node] = Address.parse(data.decode("ascii"))
            except ValueError:
                log.warning("supervisor's address not understood", node=node)
        self._addresses = found


class Line:
    """What a webapi says to the supervisors of jobs."""

    def __init__(self, supervisors: Supervisors, client: HttpClient, *, key: bytes, caller: str, clock: Clock) -> None:
        self._supervisors = supervisors
        self._client = client
        self._key = key
        self._caller = caller
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, shard: int, job: uuid.UUID) -> None:
        """Something has happened to a job. Returns at once; if it can't be said, the supervisor finds out by itself a moment later."""
        where = self._supervisors.of(shard)
        if where is not None:
            task = asyncio.get_running_loop().create_task(self._tell(where, shard, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, where: Address, shard: int, job: uuid.UUID) -> None:
        headers = [permission(self._key, self._caller, self._clock)]
        try:
            reply = await self._client.request(
                where, "POST", f"/jobs/{shard}/wake/{job}", headers=headers, repeatable=True
            )
            await reply.body()
        except RequestFailed as error:
            log.info("supervisor not woken", shard=shard, why=str(error))

    async def attach(self, shard: int, job: uuid.UUID, side: str, headers: Pairs) -> ClientResponse:
        """Ask for an end of a job's terminal: a 101, or why not. `headers` ask for a websocket. Raises RequestFailed."""
        where = self._supervisors.of(shard)
        if where is None:
            raise ConnectFailed(f"nobody leads the jobs of shard {shard} now")
        allowed = permission(self._key, self._caller, self._clock, "GET")
        target = f"/jobs/{shard}/attach/{job}/{side}"
        return await self._client.request(where, "GET", target, headers=[allowed, *headers])


def permission(key: bytes, caller: str, clock: Clock, method: str = "POST") -> tuple[str, str]:
    """The header that lets a request through to a supervisor."""
    return HEADER, sign(key, Grant(method, SUBJECT, None, int(clock.now_s()) + VALID_S, caller))
