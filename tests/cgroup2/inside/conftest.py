"""In the virtual machine only: one line a test, with its seconds and what it measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

IMAGE = Path("/srv/image")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not IMAGE.is_mount():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="these tests run in a virtual machine: make test-cgroup2"))


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Neither dots nor letters: the lines below say it."""
    return (report.outcome if report.when == "call" or report.failed else "", "", "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.failed:
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        measured = "; ".join(f"{key} {value}" for key, value in report.user_properties)
        sys.stdout.write(f"{report.outcome} in {report.duration:5.1f} s: {name}{measured and f' ({measured})'}\n")
        sys.stdout.flush()
