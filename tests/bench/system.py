"""What is measured: a system that runs, and how a load speaks to it."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The bench can't go on; one sentence says why."""


@dataclass(frozen=True, slots=True)
class System:
    """A system that runs."""

    name: str
    version: str
    ports: Sequence[int]
    """where it is asked; connections take them in turn"""
    prefix: str
    """of an object's path"""
    heads: Callable[[], list[str]]
    """header blocks of requests that are sent within the next minute"""
    pages: Callable[[http.client.HTTPConnection], int]
    """lists `list_prefix`'s objects, page after page; answers how many there are"""
    list_prefix: str
    roots: Sequence[int]
    """process ids: their trees are the system's servers"""
    clear: Callable[[], None] = lambda: None
    """frees the disk of what was deleted, where the system leaves that to a later time"""

    def request(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", **headers: str
    ) -> bytes:
        """One request outside of a load; the answer's body.

        Raises:
            BenchError: it was refused.
        """
        send = dict(line.split(": ", 1) for line in self.heads()[0].splitlines())
        return ask(connection, method, path, body, {**send, **{k.replace("_", "-"): v for k, v in headers.items()}})


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One request; the answer's body. Raises BenchError, OSError."""
    connection.request(method, path, body=body if body or method in ("PUT", "POST") else None, headers=headers)
    response = connection.getresponse()
    data = response.read()
    if response.status >= 300:
        raise BenchError(f"{method} {path}: {response.status} {data[:200].decode(errors='replace')}")
    return data


@dataclass(slots=True)
class CpuTimes:
    """CPU seconds of trees of processes, their ended children included."""

    proc: Path = Path("/proc")

    def of(self, roots: Sequence[int]) -> float:
        """Used until now by all processes below (and with) these."""
        used, parents = {}, {}
        for entry in self.proc.glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            pid = int(entry.parent.name)
            parents[pid] = int(fields[1])
            used[pid] = sum(map(int, fields[11:15])) / TICKS_S
        wanted = set(roots)
        return sum(seconds for pid, seconds in used.items() if _descends(pid, parents, wanted))

    def of_machine(self) -> float:
        """Used until now by everybody on this machine."""
        fields = list(map(int, (self.proc / "stat").read_text().split("\n", 1)[0].split()[1:]))
        return (sum(fields[:3]) + sum(fields[5:7])) / TICKS_S


def _descends(pid: int, parents: dict[int, int], wanted: set[int]) -> bool:
    while pid:
        if pid in wanted:
            return True
        pid = parents.get(pid, 0)
    return False
