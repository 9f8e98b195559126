"""Bulk transfers: bytes arrive on each way as long as they are wanted, and nothing is left of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobula.lab.network import wait_until
from ops.drills import bulk as bulks
from ops.drills.bulk import bulk
from ops.errors import OperatorError
from ops.region import Region
from tests.drills import region_in

WAYS = ((1, 2), (2, 1), (1, 3))
BOUND_S = 20.0


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Region:
    """With its client hosts on loopback."""
    monkeypatch.setattr(bulks, "inside", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(bulks, "client_address", lambda _cidr, _zone: "127.0.0.1")
    monkeypatch.setattr(bulks, "PIECE", bytes(512))  # loopback is no narrow link
    return region_in(tmp_path)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_bytes_arrive_on_every_way_until_the_end(region: Region) -> None:
    with bulk(region, WAYS) as transfers:
        assert len(transfers) == len(WAYS)
        for transfer in transfers:
            wait_until(lambda: transfer.moved_bytes > 100_000, BOUND_S, "see bytes arrive")  # noqa: B023
    moved = [transfer.moved_bytes for transfer in transfers]
    assert [transfer.moved_bytes for transfer in transfers] == moved


def test_no_way_is_no_transfer(region: Region) -> None:
    with bulk(region, ()) as transfers:
        assert transfers == []


def test_a_transfer_that_never_comes_about_has_moved_nothing_and_ends(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_self: socket.socket, _to: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", refused)
    with bulk(region, WAYS[:1]) as transfers:
        pass
    assert [transfer.moved_bytes for transfer in transfers] == [0]


def test_what_ends_the_hold_ends_the_transfers(region: Region) -> None:
    def held() -> None:
        with bulk(region, WAYS) as transfers:
            wait_until(lambda: transfers[0].moved_bytes > 0, BOUND_S, "see bytes arrive")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        held()


def test_one_that_cannot_begin_is_a_sentence_and_the_others_end(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulks, "client_address", lambda _cidr, zone: "127.0.0.1" if zone == 2 else "192.0.2.1")
    with pytest.raises(OperatorError, match=r"begin a bulk transfer from AZ 2 to AZ 1: .*assign"), bulk(region, WAYS):
        pass
