"""Long work, step by step: one line per step with the elapsed time, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SILENCE_S = 10.0
"""a step that has said nothing for so long says that it is still at work"""


class Progress:
    """Prints ``[ 12.3 s] what happens``; a step that is done says how long it took. Safe to call from threads."""

    def __init__(self, *, quiet: bool = False, silence_s: float = SILENCE_S) -> None:
        self._start = time.monotonic()
        self._quiet = quiet
        self._silence_s = silence_s
        self._last = (self._start, "")

    def __call__(self, text: str) -> None:
        """One line of what is happening now."""
        self._last = (time.monotonic(), text)
        self._print(text)

    def _print(self, text: str) -> None:
        # A terminal that is closed, a pipe that nobody reads: the work goes on, and what it began is undone.
        with suppress(OSError):
            if not self._quiet:
                print(f"[{self.elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step: said when it begins, while it is silent for long and, with its seconds, when it has ended well."""
        self(name)
        began = time.monotonic()
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()
        self(f"{name}: done in {time.monotonic() - began:.1f} s")

    def _watch(self, ended: threading.Event) -> None:
        """Until `ended`: name the last line again, with its age, whenever nothing was said for `silence_s`."""
        said_s = time.monotonic()
        while not ended.wait(self._silence_s / 10):
            since, text = self._last
            now = time.monotonic()
            if now - max(since, said_s) >= self._silence_s:
                said_s = now
                self._print(f"{text.strip()} ... {now - since:.0f} s so far")
