from __future__ import annotations

import pytest

from mobula.jobs.verdict import OUT_OF_MEMORY, UNUSUAL_PLACE, failure

CORE = "user command or child process dumped core"


@pytest.mark.parametrize(
    ("status", "cores", "said"),
    [
        (0, (), ""),
        (0, ("sort",), CORE),
        (1 << 8, (), "user command exited with code 1"),
        (255 << 8, (), "user command exited with code 255"),
        (127 << 8, ("perl",), CORE),
        (139 << 8, (), "user command exited with code 139"),
        (9, (), "user command terminated by SIGKILL"),
        (15, (), "user command terminated by SIGTERM"),
        (11 | 0x80, ("bash",), CORE),
        (11 | 0x80, (), CORE),
        (40, (), "user command terminated by signal 40"),
    ],
)
def test_what_is_said_of_a_task_that_ended(status: int, cores: tuple[str, ...], said: str) -> None:
    assert failure(status, cores, out_of_memory=False) == said


def test_what_else_was_seen_is_added() -> None:
    assert failure(9, (), out_of_memory=True).endswith(f"SIGKILL{OUT_OF_MEMORY}")
    assert failure(1 << 8, (), out_of_memory=True, unusual_place=True).endswith(f"1{OUT_OF_MEMORY}{UNUSUAL_PLACE}")


def test_a_task_that_did_what_it_should_has_no_failure_whatever_else_was_seen() -> None:
    assert failure(0, (), out_of_memory=True, unusual_place=True) == ""
