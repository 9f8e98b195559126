"""The agent: what a storage host does for jobs (mobula.jobs.agent), wired to the region."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog

from mobula.agent.boxes import Boxes, Image
from mobula.agent.config import AgentConfig
from mobula.agent.copies import RegionCopies
from mobula.core import tokens
from mobula.core.clock import SystemClock
from mobula.core.tokens import Bearer
from mobula.jobs import lead
from mobula.jobs.agent import Work
from mobula.jobs.front import FrontDoor
from mobula.jobs.runner import Runner
from mobula.jobs.wire import HttpSupervisor
from mobula.metadata.jobs import Job
from mobula.wire.http_client import HttpClient, Timeouts
from mobula.wire.http_failures import Address
from mobula.wire.registered import ROOT, Webapis, addresses_of
from mobula.wire.storage_client import StorageClient
from mobula.wire.supervisors import Supervisors
from mobula.wire.zookeeper import Client, Tree

log = structlog.get_logger()

RUN = Path("/run/mobula/agent")
ANSWER_S = 8.0
"""for a supervisor, which makes us wait for work; shorter than it takes silence for death"""
RESULT_S = 60.0
"""for the storage API to answer once it has all of an object"""


class Agent:
    """mobula.wire.service.Service."""

    def __init__(self, config: AgentConfig) -> None:
        clock = SystemClock()
        self._zookeeper = Client(config.zookeeper)
        self._supervisors = Supervisors(self._zookeeper)
        self._tree = Tree(self._zookeeper, ROOT, self._on_names)
        self._webapis = Webapis(config.near_webapis)
        self._storage_hosts: Mapping[str, Address] = {}
        self._asking = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=ANSWER_S))
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=RESULT_S))
        self._token_key = config.tokens()
        key = config.signing_key()
        storage = StorageClient(self._http, key=key, caller=config.host, clock=clock)
        copies = RegionCopies(Path(config.data_dir), config.host, storage, lambda: self._storage_hosts)
        images = {version: Image(Path(files.root), Path(files.program)) for version, files in config.images.items()}
        self._boxes = Boxes(
            images=images, volumes=Path(config.volumes), run=RUN / "sandboxes", processes_max=config.processes_max, client=self._http,
            webapi=self._webapis.pick, token=self._token,
        )  # fmt: skip
        me = lead.Agent(config.host, uuid.uuid4().hex, tuple(config.images))
        supervisors = {
            shard: HttpSupervisor(
                shard, partial(self._supervisors.of, shard), self._asking, key=key, me=me, clock=clock
            )
            for shard in range(1, config.shards + 1)
        }
        self._empty = RUN / "empty"
        store = FrontDoor(self._http, self._webapis.pick, self._token)
        runner = Runner(self._boxes, store, copies, supervisors, empty=self._empty)
        self._work = Work(supervisors, runner, clock)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work."""
        self._boxes.sweep()
        self._empty.touch(mode=0o644)
        self._zookeeper.start()
        self._supervisors.start()
        self._tree.start()
        self._task = asyncio.create_task(self._work.run())
        self._task.add_done_callback(_ended)

    async def stop(self) -> None:
        """End, with all tasks: their supervisors give them to others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._boxes.close()
        self._tree.stop()
        self._supervisors.stop()
        await self._asking.close()
        await self._http.close()
        await self._zookeeper.stop()

    def _on_names(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        self._storage_hosts = addresses_of(picture, "storage")
        self._webapis.on_names(picture)

    def _token(self, job: Job) -> str:
        """Made for each request: it is good for days, and a job may take longer."""
        bearer = Bearer(job.owner.account, job.owner.user, job.id)
        return tokens.seal(self._token_key, bearer, dt.datetime.now(dt.UTC))

    def status(self) -> dict[str, object]:
        """Healthy while it works."""
        why = "its work has ended" if self._task is not None and self._task.done() else ""
        return {
            "healthy": not why,
            "why": why,
            "tasks": self._work.held,
            "sandboxes": self._boxes.count,
            "images": self._boxes.images,
            "no_cpu_shares": self._boxes.no_shares,
            "supervisors": self._supervisors.count,
        }


def _ended(work: asyncio.Task[None]) -> None:
    """Nobody has told it to: this process can do no more, and another one may."""
    if not work.cancelled():
        log.error("the agent's work has ended", exc_info=work.exception())
        signal.raise_signal(signal.SIGTERM)
