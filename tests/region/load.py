"""A steady reader and writer beside a fault: what each request came to, and how long it took."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ops.region import Region
from tests.region.signed import Client

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """`status` 0: the connection broke."""

    method: str
    began_s: float
    took_s: float
    status: int

    @property
    def well(self) -> bool:
        return self.status in {200, 204}


@dataclass
class Load:
    """Two loops, of reads and of writes of one object, one request after the other."""

    region: Region
    path: str
    requests: list[Request] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0

    def slowest_s(self) -> float:
        """The longest that anybody had to wait for an answer, whatever it was."""
        return max(r.took_s for r in self.requests)

    def pause_s(self, method: str) -> float:
        """The longest time without a request of `method` that went well, from the beginning to the end."""
        ends = [r.began_s + r.took_s for r in self.requests if r.method == method and r.well]
        return max(b - a for a, b in itertools.pairwise([self.began_s, *sorted(ends), self.ended_s]))

    def _loop(self, method: str, stop: threading.Event) -> None:
        key = (self.region.secrets / "demo.pem").read_bytes()
        with contextlib.closing(Client(self.region.relay_port, "demo", key)) as client:
            while not stop.wait(PERIOD_S):
                began_s = time.monotonic()
                try:
                    answer = client.get(self.path) if method == "GET" else client.put(self.path, b"load")
                    status = answer.status
                except (OSError, http.client.HTTPException):
                    status = 0
                    client.close()
                self.requests.append(Request(method, began_s, time.monotonic() - began_s, status))

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Put the object, then load until the block ends."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._loop, args=(method, stop)) for method in ("GET", "PUT")]
        self.began_s = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.ended_s = time.monotonic()
            stop.set()
            for thread in threads:
                thread.join()
