"""Several transfers at the same time, in threads, with a bound on what waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

from mobula.client.commands.output import Failures
from mobula.client.errors import MobulaError

Job = Callable[[], None]
POLL_S = 0.2
"""how soon an interrupt is heard while all threads are at work"""


def run_all(jobs: Iterable[Job], parallel: int, failures: Failures) -> None:
    """Run the jobs, so many at a time; one that fails is noted, the others go on. Jobs are taken from `jobs` as threads get free.

    Raises:
        Exception: what a job raised that is neither a MobulaError nor an OSError, and what `jobs` raises; work that runs ends by itself.
    """
    waiting: queue.Queue[Job | None] = queue.Queue(parallel)
    broken: list[BaseException] = []

    def work() -> None:
        while (job := waiting.get()) is not None:
            try:
                if not broken:
                    job()
            except MobulaError as error:
                failures.add(error)
            except OSError as error:
                failures.say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            except BaseException as error:  # noqa: BLE001 (raised again below)
                broken.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for job in jobs:
        _put(waiting, job)
        if broken:
            break
    for _ in threads:
        _put(waiting, None)
    for thread in threads:
        while thread.is_alive():
            thread.join(POLL_S)
    if broken:
        raise broken[0]


def _put(waiting: queue.Queue[Job | None], job: Job | None) -> None:
    while True:
        try:
            waiting.put(job, timeout=POLL_S)
        except queue.Full:
            continue
        return
