"""A terminal, and a command that somebody has called at it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

BOUND_S = 10.0


class Seat:
    """`text` is all that the command has shown. It has a controlling terminal, as it would have from a shell."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, lines: int = 24
    ) -> None:
        self.text = ""
        self._fd, self._other = os.openpty()
        self._set_size(columns, lines)
        self.modes = termios.tcgetattr(self._other)
        """as they were before"""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv], stdin=self._other, stdout=self._other, stderr=self._other,
            env={"TERM": "vt100", **environment},
        )  # fmt: skip

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """As a window does that is made larger; the kernel tells the command."""
        self._set_size(columns, lines)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Until what was shown since the last call has this."""
        end_s = time.monotonic() + BOUND_S
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < end_s, f"nothing like {pattern!r} in {self.text!r}"
            assert self._read() or self.process.poll() is None, (
                f"it ended, and nothing like {pattern!r} in {self.text!r}"
            )
        self.text = self.text[found.end() :]
        return found

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.1)[0]:
            return False
        self.text += os.read(self._fd, 65_536).decode(errors="replace")
        return True

    def exit_code(self) -> int:
        """Once it has ended; what it has shown until then is in `text`."""
        end_s = time.monotonic() + BOUND_S
        while self.process.poll() is None:
            assert time.monotonic() < end_s, f"it does not end: {self.text!r}"
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def are_modes_restored(self) -> bool:
        return termios.tcgetattr(self._other) == self.modes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.exit_code()
        os.close(self._fd)
        os.close(self._other)
