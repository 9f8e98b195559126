"""Copies as tasks get them: this host's first, another one's when a server stops in the middle, and never a wrong end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mobula.agent import copies
from mobula.agent.copies import RegionCopies
from mobula.core.ranges import ByteRange
from mobula.jobs.runner import StoreError
from mobula.metadata.jobs import Version
from mobula.wire.http_failures import Address
from mobula.wire.storage_client import StorageUnavailable

BODY = bytes(range(100))
VERSION = Version(uuid.UUID(int=1), uuid.UUID(int=2), len(BODY), b"\x07" * 16, 3, 2)
ADDRESSES = {name: Address(name, 8060) for name in ("near", "far")}


class Copy:
    """What `open_get` answers: so many bytes, then the server is gone."""

    def __init__(self, body: bytes, stops_after: int | None) -> None:
        self._body, self._stops_after = body, stops_after

    async def __aenter__(self) -> Copy:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), 10):
            if self._stops_after is not None and at >= self._stops_after:
                raise StorageUnavailable("it is gone")
            yield self._body[at : at + 10]


class Servers:
    """Storage servers that stop after so many bytes (None: never), and who was asked from where on."""

    def __init__(self, **stops_after: int | None) -> None:
        self._stops_after = stops_after
        self.asked: list[tuple[str, int]] = []

    async def open_get(self, server: Address, *_: object, part: ByteRange | None = None) -> Copy:
        first = part.first if part else 0
        self.asked.append((server.host, first))
        return Copy(BODY[first:], self._stops_after[server.host])


def region(servers: Any, data_dir: Path = Path("/")) -> RegionCopies:
    return RegionCopies(data_dir, "near", servers, lambda: ADDRESSES)


async def read(made: RegionCopies, *hosts: str) -> bytes:
    return b"".join([chunk async for chunk in made.read(VERSION, hosts)])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "PAUSE_S", 0.0)


async def test_this_hosts_copy_comes_first() -> None:
    servers = Servers(near=None, far=None)
    assert await read(region(servers), "far", "near") == BODY
    assert servers.asked == [("near", 0)]


async def test_it_goes_on_where_the_other_server_stopped() -> None:
    servers = Servers(near=30, far=None)
    assert await read(region(servers), "near", "far") == BODY
    assert servers.asked == [("near", 0), ("far", 30)]


async def test_a_host_that_is_not_up_is_passed_over() -> None:
    servers = Servers(near=None, far=None)
    assert await read(region(servers), "gone", "far") == BODY


@pytest.mark.parametrize("hosts", [(), ("gone",), ("near",)])
async def test_it_gives_up_in_the_end(hosts: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match="error fetching inputs"):
        await read(region(Servers(near=0, far=0)), *hosts)


def test_a_file_of_an_earlier_release_is_made_readable(tmp_path: Path) -> None:
    path = tmp_path / str(uuid.UUID(int=1)) / f"{uuid.UUID(int=2)}.100.{'07' * 16}"
    path.parent.mkdir()
    path.write_bytes(BODY)
    path.chmod(0o640)
    assert region(None, tmp_path).path(VERSION) == path
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_copy_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        region(None, tmp_path).path(VERSION)


def test_a_copy_that_is_not_whole_is_given_to_no_task(tmp_path: Path) -> None:
    path = tmp_path / f"{VERSION.account}/{VERSION.object_id}.{len(BODY)}.{VERSION.md5.hex()}"
    path.parent.mkdir()
    path.write_bytes(BODY[:-1])
    with pytest.raises(StoreError, match="99 bytes, wanted are 100"):
        region(Servers(), tmp_path).path(VERSION)
