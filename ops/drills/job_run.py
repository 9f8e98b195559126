"""A job that runs while a drill does, and what it has to come to (O7): outputs, errors and counters as without the fault."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mobula.client import Client as Sdk
from mobula.client.errors import MobulaError
from mobula.client.settings import from_environment
from ops.drills.findings import Finding, Verdict
from ops.environment import variables
from ops.region import Region

TASKS, REDUCERS = 240, 4
WORDS = tuple(f"word-{number:04}" for number in range(400))
# Tasks end one after the other, all through the fault.
MAP = f"sleep $((RANDOM % 40)); msplit -n {REDUCERS}"
REDUCE = "LC_ALL=C sort | uniq -c"
O7 = "O7"


def document() -> bytes:
    """The job: each task spreads the same words over the reducers, each of which counts its part. Pure."""
    return json.dumps({
        "name": "drill", "phases": [{"exec": MAP}, {"type": "reduce", "count": REDUCERS, "exec": REDUCE}]
    }).encode()  # fmt: skip


def not_as_calm(status: Mapping[str, Any], outputs: Sequence[str]) -> list[Finding]:
    """What is otherwise than without a fault. `status`: the job's; `outputs`: the text of each. Pure."""
    stats: Mapping[str, int] = status["stats"]
    wrong = []
    counted: Counter[str] = Counter()
    for line in (line for text in outputs for line in text.splitlines()):
        count, _, word = line.strip().partition(" ")
        counted[word] += int(count) if count.isascii() and count.isdigit() else 0
    wanted = dict.fromkeys(WORDS, TASKS)
    if counted != wanted:
        off = sorted(word for word in {*wanted, *counted} if counted[word] != wanted.get(word, 0))
        wrong.append(
            f"{len(off)} words were counted wrongly, {off[0]!r} {counted[off[0]]} times and not {wanted.get(off[0], 0)}"
        )
    if len(outputs) != REDUCERS:
        wrong.append(f"it has {len(outputs)} outputs and not {REDUCERS}")
    if stats["errors"]:
        wrong.append(f"it had {stats['errors']} errors")
    if stats["tasks"] != TASKS + REDUCERS + stats["retries"] or stats["tasksDone"] != stats["tasks"]:
        wrong.append(
            f"{stats['tasks']} tasks, {stats['tasksDone']} done, {stats['retries']} retries: not {TASKS + REDUCERS} and the retries"
        )
    return [Finding(O7, Verdict.FAIL, f"the job: {what}") for what in wrong]


class JobRun:
    """One of them, in a drill's folder."""

    def __init__(self, region: Region, folder: str) -> None:
        self._region = region
        self._folder = folder
        self._id = ""

    def start(self) -> None:
        """Begin it. Raises MobulaError."""
        with self._sdk() as sdk:
            words = f"{self._folder}/words"
            sdk.put(words, "".join(f"{word}\n" for word in WORDS).encode())
            self._id = sdk.create_job(document())
            sdk.add_inputs(self._id, [words.encode()] * TASKS)
            sdk.end_inputs(self._id)

    def conclude(self, injected_wall_s: float) -> tuple[list[Finding], list[tuple[str, bool]]]:
        """Wait for its end: what is wrong with it, and the proof that it went on when the fault came (seconds since the epoch)."""
        try:
            with self._sdk() as sdk:
                status = _last(sdk.wait_job(self._id))
                names = sdk.live_list(self._id, "out").lines
                outputs = [b"".join(sdk.get(name)).decode(errors="replace") for name in names]
        except MobulaError as error:
            return [Finding(O7, Verdict.UNKNOWN, f"the job could not be followed: {error}")], []
        ended_s = dt.datetime.fromisoformat(status["timeDone"]).timestamp()
        after_s, retries = ended_s - injected_wall_s, status["stats"]["retries"]
        said = f"the job went on for {after_s:.0f} s after the fault; {retries} attempts were made again"
        return not_as_calm(status, outputs), [(said, after_s > 0)]

    def _sdk(self) -> Sdk:
        return Sdk(from_environment(variables(self._region)))


def _last(statuses: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    *_, last = statuses
    return last
