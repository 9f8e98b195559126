"""A region from nothing to nothing: these tests make and remove the region called `test` themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.region import REPO, STATE
from tests.lifecycle import traces

REGION = "test"
BOUND_S = 300


def make(*goals: str, timeout_s: float = BOUND_S) -> subprocess.CompletedProcess[str]:
    """`make` as a user types it, on the region called test."""
    return subprocess.run(
        ["make", "--silent", *goals, f"R={REGION}"], cwd=REPO, capture_output=True, text=True, check=False, timeout=timeout_s
    )  # fmt: skip


def kill_up_when(reached: Callable[[str], bool]) -> list[str]:
    """`make up`, and `kill -9` of its whole process group once `reached` says so of a line; answers the lines until then."""
    with subprocess.Popen(
        ["make", "--silent", "up", "PROFILE=small", f"R={REGION}"], cwd=REPO, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line.rstrip())
            if reached(line):
                os.killpg(process.pid, signal.SIGKILL)
                return lines
    raise AssertionError(f"`make up` ended before it was killed: {lines[-5:]}")


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> traces.Traces:
    """The machine as it was before the region; noted for a later run of these tests in MOBULA_TRACES, if that is set."""
    note = Path(os.environ.get("MOBULA_TRACES") or tmp_path_factory.mktemp("traces") / "before.json")
    if not note.exists() or not note.stat().st_size:
        note.write_text(json.dumps(traces.of_machine(REGION, STATE / REGION)))
    found: traces.Traces = json.loads(note.read_text())
    assert not [name for name in found["namespaces"] if name.startswith(f"{REGION}-")], (
        "the region test is up; take it down first"
    )
    return found
