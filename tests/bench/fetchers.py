"""The same work without compute: so many clients download an object each, grep it, and upload the result. A process of its own.

    python -m tests.bench.fetchers        an Errand (JSON) on standard input; on standard output the seconds it took

Each client keeps its connection and runs the same grep as a job's task does, without a shell: better than a script of curl and grep.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench.system import BenchError, ask

WORD = "poochy"
LINE_BYTES = 64
EVERY = 16
"""of so many lines one has the word"""
GREP = ("grep", WORD)
BOUND_S = 600.0


@dataclass(frozen=True, slots=True)
class Errand:
    """`fills`: put the objects first, which is not timed as work; else do the work on them, results called `<prefix>out-<turn>-...`."""

    ports: Sequence[int]
    prefix: str
    head: str
    count: int
    size_bytes: int
    clients: int
    fills: bool
    turn: int = 0

    def name(self, number: int) -> str:
        """Of an object that is worked on."""
        return f"{self.prefix}text-{self.size_bytes}-{number:05}"


def text(size_bytes: int) -> bytes:
    """Lines, of which some have the word."""
    lines = (f"{number:08} {WORD if number % EVERY == 0 else 'nothing'}" for number in range(size_bytes // LINE_BYTES))
    return b"".join(line.ljust(LINE_BYTES - 1, ".").encode() + b"\n" for line in lines)


def run(errand: Errand) -> float:
    """Seconds. Raises BenchError, OSError."""
    numbers = iter(range(errand.count))
    with ThreadPoolExecutor(errand.clients) as pool:
        began_s = time.monotonic()
        for done in [pool.submit(_client, errand, numbers, which) for which in range(errand.clients)]:
            done.result()
        return time.monotonic() - began_s


def _client(errand: Errand, numbers: Iterator[int], which: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", errand.ports[which % len(errand.ports)], timeout=60)
    head = dict(line.split(": ", 1) for line in errand.head.splitlines())
    body = text(errand.size_bytes) if errand.fills else b""
    for number in numbers:
        name = errand.name(number)
        if errand.fills:
            ask(connection, "PUT", name, body, head)
            continue
        found = subprocess.run(GREP, input=ask(connection, "GET", name, b"", head), capture_output=True, check=True)
        ask(connection, "PUT", f"{errand.prefix}out-{errand.turn}-{errand.size_bytes}-{number:05}", found.stdout, head)
    connection.close()


def send(errand: Errand) -> float:
    """Run an errand in a process of its own; its seconds. Raises BenchError."""
    argv = [sys.executable, "-m", "tests.bench.fetchers"]
    message = json.dumps(dataclasses.asdict(errand))
    done = subprocess.run(argv, input=message, capture_output=True, text=True, check=False, timeout=BOUND_S)
    if done.returncode:
        raise BenchError(f"download, grep, upload {errand.prefix}: {done.stderr.strip()[-300:]}")
    return float(done.stdout)


if __name__ == "__main__":
    sys.stdout.write(str(run(Errand(**json.load(sys.stdin)))))
