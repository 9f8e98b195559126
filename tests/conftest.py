"""Options of the test suites."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is a benchmark's business: on a busy machine it says nothing about the code.
settings.register_profile("mobula", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=5_000)
settings.load_profile("mobula")


pytest_plugins = ["tests.stock_clients"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="Rewrite the golden files.")
    parser.addoption(
        "--local", action="store_true", help="Hold tests/compat to a webapi of its own: no region is needed."
    )
