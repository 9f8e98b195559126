"""What somebody types at a terminal that is elsewhere: what goes there, and what is meant for us, as with ssh. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

ESCAPE = "~"
NONE = "none"
NEWLINES = b"\r\n"


class Act(Enum):
    """What an escape asks for, by the character that follows it."""

    END = "."
    INFO = "i"
    HELP = "?"


_ACTS = {ord(act.value): act for act in Act}


class Escapes:
    """`char` is at the beginning of a line what an escape begins with; "" if there is none."""

    def __init__(self, char: str = ESCAPE) -> None:
        self._char = ord(char) if char else -1
        self._at_start = True
        self._held = False
        """the escape's first character was typed, and is not sent before what follows is known"""

    def feed(self, typed: bytes) -> Iterator[bytes | Act]:
        """What is to be sent, and what is to be done, in the order in which it was typed."""
        passed = bytearray()
        for code in typed:
            if self._held:
                self._held = False
                if act := _ACTS.get(code):
                    if passed:
                        yield bytes(passed)
                        passed.clear()
                    yield act
                    self._at_start = True
                    continue
                passed.append(self._char)
                if code == self._char:  # typed twice it is itself
                    self._at_start = False
                    continue
            elif self._at_start and code == self._char:
                self._held = True
                continue
            passed.append(code)
            self._at_start = code in NEWLINES
        if passed:
            yield bytes(passed)


def help_text(char: str) -> str:
    """The escapes that there are."""
    return (
        "escapes, at the beginning of a line:\n"
        f"  {char}.  end the session, and cancel its job\n"
        f"  {char}i  say which job it is\n"
        f"  {char}?  show this\n"
        f"  {char}{char}  send {char}\n"
    )
