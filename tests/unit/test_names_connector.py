"""What PowerDNS is answered: to any line at all, and when nothing may be answered."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.names import connector
from mobula.names.connector import HOLD_S, LINE_MAX, Connector, NamesConfig, Registry, answer
from mobula.names.records import Picture

ZONE = "lab.mobula.test"
STALE_S = 600.0
WEBAPI = {"webapi": {"lab-a-api-01": b'{"address":"10.77.1.21","port":8080,"ttl":5}'}}
TWO = {"webapi": {**WEBAPI["webapi"], "lab-b-api-01": b'{"address":"10.77.2.21","port":8080,"ttl":5}'}}


class Clock(SimpleNamespace):
    """Stands in for the module `time`."""

    now_s = 1_000_000.0

    def time(self) -> float:
        return self.now_s

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connector, "time", clock)
    return clock


def config(folder: Path) -> NamesConfig:
    return NamesConfig(
        region="lab", host="lab-a-nameservice-01", az="a", address="10.77.1.11", zone=ZONE, zookeeper=("10.77.1.11:2181",),
        socket=str(folder / "names.sock"), snapshot=str(folder / "snapshot.json"), stale_s=STALE_S, status_port=0,
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Registry:
    return Registry(config(tmp_path))


def connect(registry: Registry, picture: Picture = WEBAPI) -> None:
    registry.on_state(True)
    registry.on_change(picture)


def lookup(name: str, kind: str) -> bytes:
    return json.dumps({"method": "lookup", "parameters": {"qname": name, "qtype": kind, "zone-id": -1}}).encode()


def addresses(registry: Registry) -> list[str] | None:
    """What webapi's A is answered; None for SERVFAIL."""
    found = answer(registry, ZONE, lookup(f"webapi.{ZONE}.", "A"))
    return None if found is None else [record["content"] for record in found["result"]]


def test_a_record_is_answered_in_the_words_of_the_protocol(registry: Registry) -> None:
    connect(registry)
    assert answer(registry, ZONE, lookup(f"WEBAPI.{ZONE}.", "A")) == {
        "result": [
            {"qname": f"webapi.{ZONE}.", "qtype": "A", "content": "10.77.1.21", "ttl": 5, "auth": True, "domain_id": 1}
        ]
    }


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ('{"method":"initialize","parameters":{"path":"x"}}', True),
        ('{"method":"initialize"}', True),
        ('{"method":"lookup","parameters":{"qname":"jobs.lab.mobula.test.","qtype":"ANY"}}', []),
        ('{"method":"lookup","parameters":{"qname":"webapi.lab.mobula.test.","qtype":"AAAA"}}', []),
        ('{"method":"getDomainInfo","parameters":{"name":"other.test."}}', False),
        ('{"method":"getDomainMetadata","parameters":{"name":"lab.mobula.test.","kind":"ALLOW-AXFR-FROM"}}', False),
        ('{"method":"list","parameters":{"zonename":"lab.mobula.test.","domain_id":1}}', False),
        ('{"method":"setNotified","parameters":{"id":1,"serial":2}}', False),
        ('{"method":"addDomainKey","parameters":{}}', False),
    ],
)
def test_a_question_of_the_protocol_has_its_result(registry: Registry, line: str, result: object) -> None:
    connect(registry)
    assert answer(registry, ZONE, line.encode()) == {"result": result}


@pytest.mark.parametrize("name", ["lab.mobula.test.", "lab.mobula.test", "LAB.Mobula.TEST."])
def test_the_zone_is_ours_however_it_is_spelled(registry: Registry, name: str) -> None:
    line = json.dumps({"method": "getDomainInfo", "parameters": {"name": name}}).encode()
    assert answer(registry, ZONE, line) == {"result": {"id": 1, "zone": f"{ZONE}.", "kind": "native", "serial": 1}}


def test_the_only_domain_is_the_zone(registry: Registry) -> None:
    found = answer(registry, ZONE, b'{"method":"getAllDomains","parameters":{"include_disabled":true}}')
    assert found is not None
    assert [domain["zone"] for domain in found["result"]] == [f"{ZONE}."]


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"{", b"null", b"7", b"[]", b'"method"', b"{}", b"\xff\xff", b"\x00", b"[" * 60_000, b'{"a":' * 9_000, b"1" * 9_000,
        b'{"method":null}', b'{"method":["lookup"]}', b'{"method":"lookup"}', b'{"method":"lookup","parameters":[]}',
        b'{"method":"lookup","parameters":"qname"}', b'{"method":"lookup","parameters":{"qname":"x"}}',
        b'{"method":"getDomainInfo","parameters":[1]}', b'{"method":"getDomainInfo","parameters":{"name":null}}',
    ],
    ids=lambda line: repr(line[:40]),
)  # fmt: skip
def test_a_line_that_makes_no_sense_is_answered_with_no(registry: Registry, line: bytes) -> None:
    connect(registry)
    assert answer(registry, ZONE, line) == {"result": False}


@functools.cache
def _connected() -> Registry:
    registry = Registry(config(Path(os.devnull)))
    connect(registry)
    return registry


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)  # fmt: skip
METHODS = st.sampled_from(["initialize", "lookup", "getAllDomains", "getDomainInfo"]) | VALUES
NAMES = st.dictionaries(st.sampled_from(["qname", "qtype", "name"]), VALUES) | VALUES


@given(st.binary() | st.builds(lambda m, p: json.dumps({"method": m, "parameters": p}).encode(), METHODS, NAMES))
def test_every_line_has_an_answer_that_is_one_line(line: bytes) -> None:
    assert "result" in json.loads(json.dumps(answer(_connected(), ZONE, line)))


class TestWhatMayBeAnswered:
    """SERVFAIL (no answer at all) is for what nobody can know; a name that is known not to be there is NXDOMAIN."""

    def test_while_connected(self, registry: Registry) -> None:
        connect(registry)
        assert addresses(registry) == ["10.77.1.21"]
        assert registry.status() == {"healthy": True, "why": "", "connected": True, "services": {"webapi": 1}}

    def test_not_before_anything_has_been_read(self, registry: Registry) -> None:
        assert addresses(registry) is None
        registry.on_state(True)
        assert addresses(registry) is None
        assert registry.status()["why"] == "the registrations have never been read from ZooKeeper"

    @pytest.mark.parametrize(("away_s", "known"), [(0, True), (STALE_S, True), (STALE_S + 1, False)])
    def test_the_last_known_set_while_it_is_young(
        self, registry: Registry, clock: Clock, away_s: float, known: bool
    ) -> None:
        connect(registry)
        registry.on_state(False)
        clock.now_s += away_s
        assert addresses(registry) == (["10.77.1.21"] if known else None)

    def test_nothing_when_nobody_else_can_be_reached(self, registry: Registry) -> None:
        connect(registry)
        registry.on_state(False)
        registry.alone = True
        assert addresses(registry) is None
        assert registry.status()["why"] == "neither ZooKeeper nor any other AZ can be reached"
        registry.on_state(True)
        assert addresses(registry) == ["10.77.1.21"]

    @pytest.mark.parametrize(("away_s", "known"), [(STALE_S, True), (STALE_S + 1, False)])
    @pytest.mark.parametrize("connected", [True, False])
    def test_the_snapshot_of_an_earlier_process_while_it_is_young(
        self, clock: Clock, tmp_path: Path, away_s: float, known: bool, connected: bool
    ) -> None:
        connect(Registry(config(tmp_path)))
        clock.now_s += away_s
        restarted = Registry(config(tmp_path))
        restarted.on_state(connected)
        assert addresses(restarted) == (["10.77.1.21"] if known else None)

    def test_the_zone_is_named_even_when_its_names_are_not(self, registry: Registry) -> None:
        """PowerDNS asks at its start, and must not conclude that it serves nothing."""
        assert answer(registry, ZONE, b'{"method":"getDomainInfo","parameters":{"name":"lab.mobula.test."}}')


class TestTheHoldAfterAnOutage:
    def test_what_was_known_stays_beside_what_came_back(self, registry: Registry, clock: Clock) -> None:
        connect(registry, TWO)
        clock.now_s += HOLD_S
        assert registry.settle()
        registry.on_state(False)
        registry.on_state(True)
        registry.on_change(WEBAPI)
        assert addresses(registry) == ["10.77.1.21", "10.77.2.21"]
        assert registry.holding
        clock.now_s += HOLD_S
        assert registry.settle()
        assert not registry.settle()
        registry.on_change(WEBAPI)
        assert addresses(registry) == ["10.77.1.21"]

    def test_what_came_back_with_another_address_has_the_new_one(self, registry: Registry) -> None:
        connect(registry)
        moved = {"webapi": {"lab-a-api-01": b'{"address":"10.77.1.22","port":8080,"ttl":5}'}}
        registry.on_change(moved)
        assert addresses(registry) == ["10.77.1.22"]

    def test_without_an_outage_what_is_gone_is_gone_at_once(self, registry: Registry, clock: Clock) -> None:
        connect(registry, TWO)
        clock.now_s += HOLD_S
        registry.on_change(WEBAPI)
        assert addresses(registry) == ["10.77.1.21"]

    def test_a_set_too_old_to_be_answered_is_not_held_either(
        self, registry: Registry, clock: Clock, tmp_path: Path
    ) -> None:
        connect(registry, TWO)
        clock.now_s += STALE_S + 1
        restarted = Registry(config(tmp_path))
        connect(restarted, WEBAPI)
        assert addresses(restarted) == ["10.77.1.21"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00" * 99, b"[]", b'{"services":{},"seen_s":"now"}', b'{"services":{"a":{"b":{"address":"\xff"}}}}',
        b'{"services":{},"seen_s":1,"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    ],
    ids=lambda content: repr(content[:40]),
)  # fmt: skip
def test_a_damaged_snapshot_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "snapshot.json").write_bytes(content)
    assert addresses(Registry(config(tmp_path))) is None


def test_a_snapshot_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    registry = Registry(config(tmp_path / "missing"))
    connect(registry)
    assert addresses(registry) == ["10.77.1.21"]


Ask = Callable[[bytes], Any]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Ask]:
    """Sends bytes to a connector on its socket, and answers what comes back until it hangs up or has answered."""
    service = Connector(config(tmp_path))
    connect(service._registry)
    server = await asyncio.start_unix_server(service._serve, str(tmp_path / "names.sock"), limit=LINE_MAX)

    async def ask(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "names.sock"))
        with contextlib.suppress(OSError):
            writer.write(sent)
            writer.write_eof()
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                said = await reader.read()
        writer.close()
        return said

    async with server:
        yield ask
    service._registry.on_state(False)


async def test_lines_are_answered_one_by_one_whatever_stands_between(ask: Ask) -> None:
    said = await ask(b'{"method":"initialize"}\n[\n' + b"[" * 60_000 + b'\n{"method":"initialize"}\n')
    assert [json.loads(line)["result"] for line in said.splitlines()] == [True, False, False, True]


async def test_a_line_without_end_ends_the_connection(ask: Ask) -> None:
    assert await ask(b'{"method":"initialize"}\n' + b"x" * (2 * LINE_MAX)) == b'{"result":true}\n'


async def test_servfail_is_a_connection_that_ends_without_an_answer(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "refusal", "too old")
    assert await ask(lookup(f"webapi.{ZONE}.", "A") + b'\n{"method":"initialize"}\n') == b""
