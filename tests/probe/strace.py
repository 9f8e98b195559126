"""System calls of real processes, by strace."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.probe.machine import BOUND_S, until
from tests.syscalls import TRACED


def argv(out: Path, *more: str) -> tuple[str, ...]:
    """The command line that traces into `out`; skips the test without strace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed on this machine; `ops/setup test` installs it")
    calls = f"trace={','.join(TRACED)}"
    return ("strace", "-f", "-yy", "-s", "32768", "-e", "signal=none", "-e", calls, "-o", str(out), *more)


def around(out: Path, program: Sequence[str]) -> tuple[str, ...]:
    """The command line of a program that is traced from its first call on; its process is the program's own, not strace's."""
    return argv(out, "-D", "-q", "--seccomp-bpf", *program)


def ended(out: Path, pid: int) -> str:
    """The whole trace of a program that has ended."""
    end = re.compile(rf"^{pid} +\+\+\+ ", re.MULTILINE)
    until("the end of the trace", lambda: end.search(out.read_text("latin-1")))
    return out.read_text("latin-1")


@contextmanager
def attached(out: Path, processes: Sequence[int]) -> Iterator[None]:
    """Running processes, and those that they start, are traced while the block runs."""
    pids = [word for pid in processes for word in ("-p", str(pid))]
    said = out.with_suffix(".said")
    with said.open("wb") as errors:
        tracer = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *argv(out, *pids)], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
    try:
        until("strace to attach", lambda: said.read_text().count(" attached") >= len(processes))
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(BOUND_S)
        finally:
            tracer.kill()
