"""Duties that go on in steps: one after the other, a pause when there is nothing to do."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from mobula.metadata.model import MetadataError
from mobula.workers.repair import Step

log = structlog.get_logger()

IDLE_S = 2.0


class Steps(Protocol):
    """Work that may be cut off after, or in, any step."""

    async def step(self) -> Step:
        """Do a little. Raises MetadataError: try again later."""


class Stepping:
    """mobula.workers.app.Duty."""

    wrong = ""

    def __init__(self, work: Steps) -> None:
        self._work = work
        self.says = "not begun"

    async def work(self) -> None:
        """Step by step, until cancelled."""
        while True:
            try:
                done = await self._work.step()
            except MetadataError as error:
                done = Step(f"tried again later: {error}", busy=False)
            if done.what != self.says:
                self.says = done.what
                log.debug(done.what)
            if not done.busy:
                await asyncio.sleep(IDLE_S)
