"""What the API says of a task that has ended. Pure. Source: the compute contract, sections "Task life", "Errors"."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

USER_TASK, TASK_INIT, INVALID_ARGUMENT = "UserTaskError", "TaskInitError", "InvalidArgumentError"
NO_IMAGE = "failed to dispatch task: requested image is not available"
INIT_ABORTED = "task aborted because a previous task failed to initialize (see other errors for details)"
OUT_OF_MEMORY = " (WARNING: ran out of memory during execution)"
UNUSUAL_PLACE = " (WARNING: input file was mapped at an unusual location because the object name was too long)"


def failure(status: int, cores: Sequence[str], *, out_of_memory: bool, unusual_place: bool = False) -> str:
    """Why a command failed, by its status (as wait(2) has it) and what else was seen of it; "" if it did not."""
    code = os.waitstatus_to_exitcode(status & ~0x80)
    if cores or status & 0x80:
        said = "user command or child process dumped core"
    elif code > 0:
        said = f"user command exited with code {code}"
    elif code < 0:
        said = f"user command terminated by {_name(-code)}"
    else:
        return ""
    return said + (OUT_OF_MEMORY if out_of_memory else "") + (UNUSUAL_PLACE if unusual_place else "")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
