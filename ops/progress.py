"""Long work, step by step: one line per step with the elapsed time, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Prints ``[ 12.3 s] what happens``; a step that is done says how long it took."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._quiet = quiet

    def __call__(self, text: str) -> None:
        """One line of what is happening now."""
        if not self._quiet:
            print(f"[{self.elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step: said when it begins and, with its seconds, when it has ended well."""
        self(name)
        began = time.monotonic()
        yield
        self(f"{name}: done in {time.monotonic() - began:.1f} s")
