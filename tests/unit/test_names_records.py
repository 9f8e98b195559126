"""Registrations become records: what is understood, what a name answers, and that it never depends on what else lies there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.names.records import Record, Registered, build, read, select

ZONE = "lab.mobula.test"
SERVICES = {
    "@": {"lab-a-loadbalancer-01": Registered("10.77.1.81", 443), "lab-b-loadbalancer-01": Registered("10.77.2.81", 443)},
    "ns": {"lab-a-nameservice-01": Registered("10.77.1.11", 53)},
    "webapi": {"lab-a-api-01": Registered("10.77.1.21", 8080, ttl=60)},
    "storage": {},
}  # fmt: skip


def contents(name: str, kind: str) -> list[str]:
    return [record.content for record in select(build(ZONE, SERVICES), name, kind)]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (ZONE, "A", ["10.77.1.81", "10.77.2.81"]),
        (ZONE, "NS", ["lab-a-nameservice-01.ns.lab.mobula.test."]),
        ("lab-a-nameservice-01.ns." + ZONE, "A", ["10.77.1.11"]),
        ("webapi." + ZONE, "A", ["10.77.1.21"]),
        ("WebAPI.Lab.Mobula.Test.", "A", ["10.77.1.21"]),
        ("_http._tcp.webapi." + ZONE, "SRV", ["0 10 8080 lab-a-api-01.webapi.lab.mobula.test."]),
        ("lab-a-api-01.webapi." + ZONE, "A", ["10.77.1.21"]),
        ("webapi." + ZONE, "AAAA", []),
        ("webapi.other.test", "A", []),
        ("", "ANY", []),
    ],
)
def test_a_name_answers_what_is_registered_under_it(name: str, kind: str, expected: list[str]) -> None:
    assert contents(name, kind) == expected


@pytest.mark.parametrize("name", ["storage", "_http._tcp.storage", "_tcp.storage"])
def test_a_service_without_instances_has_no_address_but_a_name(name: str) -> None:
    """ANY decides between NODATA and NXDOMAIN; a name above one that exists is never NXDOMAIN (RFC 8020)."""
    assert contents(f"{name}.{ZONE}", "A") == contents(f"{name}.{ZONE}", "SRV") == []
    assert contents(f"{name}.{ZONE}", "ANY")


def test_a_service_that_nobody_ever_had_is_nxdomain() -> None:
    assert contents(f"jobs.{ZONE}", "ANY") == []


def test_the_zone_has_its_soa_and_apex_without_any_registration() -> None:
    assert [record.type for record in select(build(ZONE, {}), ZONE, "ANY")] == ["SOA"]


def test_nothing_that_may_change_is_cached_for_more_than_five_seconds() -> None:
    records = [record for found in build(ZONE, SERVICES).values() for record in found]
    assert {record.ttl_s for record in records if record.type != "NS"} == {5}


@pytest.mark.parametrize(("said", "kept"), [(60, 5), (5, 5), (1, 1), (0, 0), (-3, 0)])
def test_an_instance_may_shorten_its_ttl_only(said: int, kept: int) -> None:
    records = build(ZONE, {"webapi": {"h": Registered("10.0.0.1", 1, ttl=said)}})
    assert select(records, f"webapi.{ZONE}", "A") == [Record(f"webapi.{ZONE}.", "A", "10.0.0.1", kept)]


GOOD = {"address": "10.77.1.21", "port": 8080, "ttl": 5}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"address":"\xff","port":1}', b'{"address":"10.77.1.21"}', b"[" * 9000,
        b'{"address":"10.77.1.21","port":1,"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        json.dumps({**GOOD, "address": "localhost"}).encode(), json.dumps({**GOOD, "address": "10.77.1"}).encode(),
        json.dumps({**GOOD, "address": "::1"}).encode(), json.dumps({**GOOD, "address": "10.77.1.21\n"}).encode(),
        json.dumps({**GOOD, "port": "8080"}).encode(), json.dumps({**GOOD, "port": -1}).encode(),
        json.dumps({**GOOD, "port": 65536}).encode(), json.dumps({**GOOD, "ttl": None}).encode(),
    ],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_a_registration_that_makes_no_sense_is_left_out_and_the_others_stay(data: bytes) -> None:
    found = read({"webapi": {"odd": data, "good": json.dumps(GOOD).encode()}})
    assert found == {"webapi": {"good": Registered("10.77.1.21", 8080, 5)}}


@given(st.binary(max_size=200))
def test_no_registration_is_too_odd_to_be_read(data: bytes) -> None:
    assert set(read({"webapi": {"odd": data}})) == {"webapi"}


HOSTS = st.dictionaries(
    st.sampled_from(["a-1", "B-2", "c-3"]),
    st.builds(Registered, st.ip_addresses(v=4).map(str), st.integers(1, 65535), st.integers()),
)


@given(st.dictionaries(st.sampled_from(["@", "ns", "webapi", "Storage"]), HOSTS))
def test_every_srv_target_and_nameserver_has_exactly_its_own_address(
    services: dict[str, dict[str, Registered]],
) -> None:
    records = build(ZONE, services)
    for record in [record for found in records.values() for record in found if record.type in {"SRV", "NS"}]:
        target = record.content.split()[-1]
        instance, service = target.split(".")[:2]
        assert [a.content for a in select(records, target, "A")] == [services[service][instance].address]


@given(st.dictionaries(st.sampled_from(["@", "ns", "webapi"]), HOSTS))
def test_owner_names_are_in_the_zone_in_lower_case_with_a_final_dot(services: dict[str, dict[str, Registered]]) -> None:
    for name, found in build(ZONE, services).items():
        assert name == name.lower()
        assert name.endswith(f"{ZONE}.")
        assert {record.name for record in found} == {name}
