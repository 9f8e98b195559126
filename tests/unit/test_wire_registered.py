"""What stands in ZooKeeper as somebody else may have written it."""

from __future__ import annotations

import pytest

from mobula.wire.http_failures import Address
from mobula.wire.registered import NOWHERE, Webapis, addresses_of


def test_addresses_by_host() -> None:
    picture = {"storage": {"s1": b'{"address":"10.0.0.1","port":8060,"ttl":5}'}, "webapi": {"w": b"{}"}}
    assert addresses_of(picture, "storage") == {"s1": Address("10.0.0.1", 8060)}
    assert addresses_of(picture, "nothing") == {}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"address":"a","port":"x"}', b'{"address":"a","port":null}', b"\xff"]
)
def test_what_is_not_understood_is_passed_over(data: bytes) -> None:
    assert addresses_of({"storage": {"s1": data}}, "storage") == {}


def test_an_address_reads_as_it_is_written() -> None:
    for address in (Address("10.0.0.1", 80), Address("::1", 80), Address("host", 1)):
        assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:٣"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|invalid literal"):
        Address.parse(text)


def test_a_webapi_of_this_az_is_asked_before_others() -> None:
    found = Webapis(["10.0.0.1:80"])
    assert found.pick() == NOWHERE
    names = {host: f'{{"address":"10.0.0.{host[1]}","port":80}}'.encode() for host in ("w1", "w2", "w3")}
    found.on_names({"webapi": names})
    assert {found.pick() for _ in range(20)} == {Address("10.0.0.1", 80)}
    found.on_names({"webapi": {"w2": names["w2"], "w3": names["w3"]}})
    assert {found.pick() for _ in range(50)} == {Address("10.0.0.2", 80), Address("10.0.0.3", 80)}
    found.on_names({})
    assert found.pick() == NOWHERE
