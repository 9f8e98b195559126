"""One webapi for a whole run of these tests; an account of its own for each test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Client

_numbers = itertools.count()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegion]:
    """A region that all tests share: two storage servers, plenty of room."""
    region = LocalRegion(tmp_path_factory.mktemp("local"))
    region.start()
    yield region
    region.stop()


@pytest.fixture
def own_region(tmp_path: Path) -> Iterator[Callable[..., LocalRegion]]:
    """Makes a region of other properties, for this test alone; its account is `ann`."""
    with contextlib.ExitStack() as stack:

        def make(**properties: Any) -> LocalRegion:
            region = LocalRegion(tmp_path, **properties)
            region.start()
            stack.callback(region.stop)
            region.add_account("ann")
            return region

        yield make


@pytest.fixture
def login(local: LocalRegion) -> str:
    """An account's login, new for each test."""
    name = f"ann{next(_numbers)}"
    local.add_account(name)
    return name


@pytest.fixture
def ann(local: LocalRegion, login: str) -> Iterator[Client]:
    """That account's requests."""
    with contextlib.closing(local.client(login)) as client:
        yield client


@pytest.fixture
def bob(local: LocalRegion) -> Iterator[Client]:
    """Another account's requests."""
    name = f"bob{next(_numbers)}"
    local.add_account(name)
    with contextlib.closing(local.client(name)) as client:
        yield client


@pytest.fixture
def operator(local: LocalRegion) -> Iterator[Client]:
    """An operator's requests."""
    name = f"op{next(_numbers)}"
    local.add_account(name, operator=True)
    with contextlib.closing(local.client(name)) as client:
        yield client


@pytest.fixture
def stor(login: str) -> str:
    """The account's private namespace."""
    return f"/{login}/stor"
