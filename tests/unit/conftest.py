"""What no unit test may do."""

from __future__ import annotations

import pytest

from mobula.lab import host


@pytest.fixture(autouse=True)
def nothing_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that stands on this machine is found by its name: a test that means another one would take it down."""

    def refuse(*_: object) -> None:
        raise AssertionError("a unit test takes a region down")

    monkeypatch.setattr(host, "teardown", refuse)
