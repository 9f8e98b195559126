"""A duty in steps: on at once while it is busy, later when a shard can't be asked, and it says how far it is."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mobula.metadata.model import Unavailable
from mobula.workers import stepping
from mobula.workers.repair import Step
from mobula.workers.stepping import Stepping


class Work:
    """Steps as told; then for ever idle."""

    def __init__(self, *told: Step | Exception) -> None:
        self.told = list(told)
        self.idle = asyncio.Event()

    async def step(self) -> Step:
        if not self.told:
            self.idle.set()
            return Step("nothing to do", busy=False)
        told = self.told.pop(0)
        if isinstance(told, Exception):
            raise told
        return told


async def test_steps_follow_each_other_and_a_shard_that_is_away_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "IDLE_S", 0.0)
    work = Work(Step("some", busy=True), Unavailable("no lease"), Step("more", busy=True))
    duty = Stepping(work)
    task = asyncio.create_task(duty.work())
    await asyncio.wait_for(work.idle.wait(), 5)
    await asyncio.sleep(0)
    assert duty.says == "nothing to do"
    assert not duty.wrong
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_is_tried_again_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "IDLE_S", 60.0)
    duty = Stepping(Work(Unavailable("no lease")))
    task = asyncio.create_task(duty.work())
    async with asyncio.timeout(5):
        while "no lease" not in duty.says:
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
