"""How far a job is, as a line on the terminal while somebody waits. Nothing is drawn where nobody looks: no terminal, or `quiet`."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from mobula.client.commands.output import columns
from mobula.client.jobs import Status

PERIOD_S = 0.1
"""a job that takes no longer needs no line"""


class Tasks:
    """The line of one job."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._begun_s = time.monotonic()
        self._done_before: int | None = None
        self._drawn = False

    def show(self, status: Status) -> None:
        """What is known by now."""
        elapsed_s = time.monotonic() - self._begun_s
        if self._done_before is None:
            self._done_before = int(status["stats"]["tasksDone"])
        if self._shown and elapsed_s >= PERIOD_S:
            self._drawn = True
            sys.stderr.write(f"\r\x1b[K{line(status, elapsed_s, self._done_before)[: columns() - 1]}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            sys.stderr.write("\n")


def line(status: Status, elapsed_s: float, done_before: int) -> str:
    """The line as text; `done_before`: tasks that were done when watching began, `elapsed_s` ago. Pure."""
    stats = status["stats"]
    total, done, errors = (int(stats[name]) for name in ("tasks", "tasksDone", "errors"))
    text = f"{done}/{total} tasks done, {errors} error{'' if errors == 1 else 's'}"
    if status["state"] == "done":
        return text
    if not status["inputDone"]:
        return f"{text}, input is open"
    lately = done - done_before
    return f"{text}, ETA {duration((total - done) * elapsed_s / lately)}" if lately > 0 and total > done else text


def duration(seconds: float) -> str:
    """A time as people say it: ``42s``, ``3m05s``, ``2h10m``. Pure."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
