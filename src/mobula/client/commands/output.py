"""What commands print: data on standard output, failures on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Mapping

from mobula.client.errors import MobulaError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def say(text: str) -> None:
    """A line on standard output; on a terminal, control characters of names become question marks."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def say_json(value: Mapping[str, object]) -> None:
    """A value as a line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def say_document(value: Mapping[str, object]) -> None:
    """A value as JSON for people, on several lines."""
    for line in json.dumps(value, ensure_ascii=False, indent=4, default=str).split("\n"):
        say(line)


def printable(text: str) -> str:
    """Text that can't move a terminal's cursor, or worse. Pure."""
    return _CONTROL.sub("?", text)


def human_size(size_bytes: float) -> str:
    """A size with a unit: ``1.5M``. Pure."""
    for unit in ("", "K", "M", "G", "T"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f}" if not unit else f"{size_bytes:.1f}{unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f}P"


def columns() -> int:
    """How wide the terminal is (80 where there is none), without the 4 ms that importing shutil takes."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


class Failures:
    """Counts what went wrong and says it at once, a sentence each. For several threads."""

    def __init__(self, name: str, *, verbose: bool = False) -> None:
        self.count = 0
        self._name = name
        self._verbose = verbose
        self._lock = threading.Lock()

    def add(self, error: MobulaError) -> None:
        """A request that failed, and its code."""
        more = f" [{error.status}, request {error.request_id}]" if self._verbose and error.status else ""
        self.say(f"{error.message} ({error.code}){more}")

    def say(self, sentence: str) -> None:
        with self._lock:
            self.count += 1
            self.note(sentence)

    def note(self, sentence: str) -> None:
        """Something to know that is no failure."""
        sys.stderr.write(f"{self._name}: {printable(sentence)}\n")
