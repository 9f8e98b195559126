"""A bar on the terminal while bytes move. Nothing is drawn where nobody looks: no terminal, or `quiet`."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from mobula.client.commands.output import columns, human_size, printable

PERIOD_S = 0.1
BAR = 30


class Bar:
    """Bytes moved of bytes to move (None: nobody knows), of one transfer or of many at once."""

    def __init__(self, label: str, total_bytes: int | None, *, quiet: bool = False) -> None:
        self.total_bytes = total_bytes
        self._label = label
        self._shown = not quiet and sys.stderr.isatty()
        self._lock = threading.Lock()
        self._moved_bytes = 0
        self._begun_s = self._drawn_s = time.monotonic()

    def add(self, size_bytes: int) -> None:
        """So many bytes more; less than 0: they were lost."""
        with self._lock:
            self._moved_bytes += size_bytes
            now_s = time.monotonic()
            if self._shown and now_s - self._drawn_s >= PERIOD_S:
                self._drawn_s = now_s
                self._draw(now_s)

    def expect(self, size_bytes: int) -> None:
        """So many bytes more are to be moved."""
        with self._lock:
            self.total_bytes = (self.total_bytes or 0) + size_bytes

    def _draw(self, now_s: float) -> None:
        text = line(self._label, self._moved_bytes, self.total_bytes, now_s - self._begun_s)
        sys.stderr.write(f"\r\x1b[K{text[: columns() - 1]}")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._drawn_s != self._begun_s:
            self._draw(time.monotonic())
            sys.stderr.write("\n")


class Part:
    """One transfer's part of a bar; what it says is how far it is."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._so_far_bytes = 0

    def at(self, so_far_bytes: int) -> None:
        self._bar.add(so_far_bytes - self._so_far_bytes)
        self._so_far_bytes = so_far_bytes


def line(label: str, moved_bytes: int, total_bytes: int | None, elapsed_s: float) -> str:
    """The bar as text. Pure."""
    rate = f"{human_size(moved_bytes / elapsed_s)}/s" if elapsed_s > 0 else ""
    if not total_bytes:
        return f"{printable(label)}  {human_size(moved_bytes)}  {rate}"
    part = min(moved_bytes / total_bytes, 1.0)
    filled = "#" * int(BAR * part)
    return f"{printable(label)} [{filled:<{BAR}}] {part:4.0%} {human_size(moved_bytes)} {rate}"
