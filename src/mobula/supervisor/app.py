"""The supervisor: moves the jobs of the shards that it has the lease of, and answers the agents that work on them."""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import partial

import structlog

from mobula.core import tokens
from mobula.core.clock import SystemClock
from mobula.core.tokens import Bearer
from mobula.jobs.archive import Archive, Pace
from mobula.jobs.archive_front import ArchiveFront
from mobula.jobs.lead import Lead
from mobula.jobs.places import RegionPlaces
from mobula.jobs.wire import SupervisorDoor
from mobula.metadata.job_store import PostgresJobs
from mobula.metadata.jobs import Deposed, Job
from mobula.metadata.store import PostgresMetadata
from mobula.supervisor.config import SupervisorConfig
from mobula.wire.accounts import Authcaches
from mobula.wire.http_client import HttpClient, Timeouts
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.posts import Posts
from mobula.wire.registered import ROOT as NAMES
from mobula.wire.registered import Webapis
from mobula.wire.supervisors import KIND, ROOT, node_of
from mobula.wire.zookeeper import Client, Tree

log = structlog.get_logger()

LOOK_PERIOD_S = 1.0
WRITE_S = 60.0
"""for the storage API to answer once it has all of a list"""


class Supervisor:
    """mobula.wire.service.Service."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._clock = SystemClock()
        self._zookeeper = Client(config.zookeeper)
        self._metadata = PostgresMetadata(self._zookeeper, config.postgres)
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=2.0), tls=config.tls.client_context())
        accounts = Authcaches(self._http, [Address.parse(text) for text in config.authcaches])
        self._places = RegionPlaces(self._metadata, accounts)
        self._webapis = Webapis(config.near_webapis)
        self._tree = Tree(self._zookeeper, NAMES, self._webapis.on_names)
        self._writing = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=WRITE_S))
        self._token_key = config.tokens()
        self._writer = ArchiveFront(self._writing, self._webapis.pick, self._token)
        self._pace = Pace(live_s=config.live_s, purge_s=config.purge_s)
        self._leads: dict[int, Lead] = {}
        self._door = SupervisorDoor(self._leads, config.keys(), self._clock)
        me = str(Address(config.address, config.port))
        self._posts = Posts(self._zookeeper, f"{ROOT}/{KIND}", me.encode())
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the region."""
        self._zookeeper.start()
        self._metadata.start()
        self._tree.start()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End: each term first, then its lease."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait({self._follower})
        await self._posts.stop()
        self._tree.stop()
        self._metadata.stop()
        await self._http.close()
        await self._writing.close()
        await self._zookeeper.stop()

    async def _follow(self) -> None:
        """Stand for each shard of the map."""
        while True:
            known = self._metadata.map
            shards = known.shards if known else ()
            self._posts.want({node_of(shard): partial(self._term, shard) for shard in shards})
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _term(self, shard: int) -> None:
        jobs = PostgresJobs(self._metadata, shard)
        lead = self._leads[shard] = Lead(jobs, self._places, self._clock, idle_s=self._pace.live_s)
        archive = Archive(jobs, self._writer, lead, self._clock, self._pace)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lead.work())
                group.create_task(archive.work())
        except* Deposed:
            log.info("another supervisor leads", shard=shard)
        finally:
            if self._leads.get(shard) is lead:
                del self._leads[shard]

    def _token(self, job: Job) -> str:
        bearer = Bearer(job.owner.account, job.owner.user, job.id, archives=True)
        return tokens.seal(self._token_key, bearer, dt.datetime.now(dt.UTC))

    async def handle(self, request: Request, response: Response) -> None:
        await self._door.handle(request, response)

    def status(self) -> dict[str, object]:
        """Healthy once the shard map is known."""
        ready = self._metadata.ready
        return {
            "healthy": ready,
            "why": "" if ready else "the shard map has not been read from ZooKeeper yet",
            "terminals": self._door.terminals,
            "jobs": {f"shard-{shard}": lead.says for shard, lead in sorted(self._leads.items())},
        }
