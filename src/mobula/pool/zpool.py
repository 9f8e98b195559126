"""Runs zpool and zfs, and waits for none of them for ever: a pool that hangs must not take its agent with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

_REAP_S = 1.0


class ZpoolFailed(Exception):
    """A command that said no."""


class NoAnswer(ZpoolFailed):
    """A command that said nothing in time."""


class Zpool:
    """One command at a time. Found on PATH."""

    def __init__(self) -> None:
        self._stuck: asyncio.subprocess.Process | None = None
        self._stuck_text = ""

    async def run(self, argv: Sequence[str], timeout_s: float) -> str:
        """What it prints.

        Raises:
            ZpoolFailed: it ended with an error; the sentence has its words.
            NoAnswer: it took too long, or an earlier one still does.
        """
        text = " ".join(argv)
        if self._stuck is not None and self._stuck.returncode is None:
            raise NoAnswer(f"{text}: not tried, as '{self._stuck_text}' (process {self._stuck.pid}) still hangs")
        self._stuck = None
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        except OSError as error:
            raise ZpoolFailed(f"{text}: {error.strerror}") from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_s)
        except TimeoutError as error:
            await self._give_up(process, text)
            raise NoAnswer(f"{text}: no answer within {timeout_s:g} s") from error
        if process.returncode:
            said = " ".join((err or out).decode(errors="replace").split())
            raise ZpoolFailed(f"{text}: {said or f'exit code {process.returncode}'}")
        return out.decode(errors="replace")

    async def _give_up(self, process: asyncio.subprocess.Process, text: str) -> None:
        """The command alone is ended, never the file system: what that has begun, it goes on with."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        try:
            await asyncio.wait_for(process.wait(), _REAP_S)
        except TimeoutError:  # it waits for the kernel and can't even be killed
            self._stuck, self._stuck_text = process, text
