"""How often a request asks the metadata tier: each call is a round trip to a shard, a write waits for a replica too.

A small PUT asks once, as the write refuses whatever a look would have found; who waits for 100 Continue is looked up for first.

(`link_object` of the tier in memory puts by `put_object`; PostgreSQL's is three writes, decision 0004.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from mobula.metadata.model import OutcomeUnknown, Unavailable
from tests.contract.webapi.local import LocalRegion

LINK = "application/json; type=link"
CALLS = (
    "lookup", "put_object", "link_object", "put_metadata", "delete_object", "put_directory", "delete_directory", "list_directory",
)  # fmt: skip


def counted(region: LocalRegion) -> list[str]:
    """Calls of the metadata tier from now on."""
    said: list[str] = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        async def wrapper(*args: Any, **given: Any) -> Any:
            said.append(name)
            return await call(*args, **given)

        return wrapper

    for name in CALLS:
        setattr(region.metadata, name, counting(name, getattr(region.metadata, name)))
    return said


@pytest.mark.parametrize("error", [Unavailable, OutcomeUnknown])
def test_what_nobody_can_decide_is_not_looked_up_afterwards(
    own_region: Callable[..., LocalRegion], error: type[Exception]
) -> None:
    """The look would wait for the shard as long again: the client has its 503 within 10 s."""
    region = own_region()

    async def fails(*_args: Any, **_given: Any) -> None:
        raise error("shard 1 is away")

    region.metadata.put_object = fails  # type: ignore[method-assign,assignment]
    said = counted(region)
    assert region.client("ann").put("/ann/stor/o", b"x").status == 503
    assert said == ["put_object"]


@pytest.mark.parametrize("path", ["no/o", "d"])
def test_a_small_put_that_is_refused_leaves_nothing_on_storage(
    own_region: Callable[..., LocalRegion], path: str
) -> None:
    region = own_region()
    client = region.client("ann")
    client.mkdir("/ann/stor/d")
    assert client.put(f"/ann/stor/{path}", b"x").status in {400, 404}
    assert region.files_settled() == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "wanted"),
    [
        ("PUT", "new", {}, ["put_object"]),
        ("PUT", "new", {"Expect": "100-continue"}, ["lookup", "put_object"]),
        ("PUT", "o", {"If-Match": "*"}, ["lookup", "put_object"]),
        ("GET", "o", {}, ["lookup"]),
        ("HEAD", "o", {}, ["lookup"]),
        ("DELETE", "o", {}, ["lookup", "delete_object"]),
        ("GET", "d", {}, ["lookup", "list_directory"]),
        ("PUT", "e", {"Content-Type": "application/json; type=directory"}, ["lookup", "put_directory"]),
        ("PUT", "l", {"Content-Type": LINK, "Location": "/ann/stor/o"}, ["lookup", "lookup", "link_object", "put_object"]),
        ("OPTIONS", "o", {}, ["lookup"]),
        ("PUT", "no/x", {}, ["put_object", "lookup", "lookup"]),
        ("PUT", "no/x", {"Expect": "100-continue"}, ["lookup", "lookup"]),
    ],
)  # fmt: skip
def test_a_request_asks_no_oftener_than_it_must(
    own_region: Callable[..., LocalRegion], method: str, path: str, headers: dict[str, str], wanted: list[str]
) -> None:
    region = own_region()
    client = region.client("ann")
    client.put("/ann/stor/o", b"x")
    client.mkdir("/ann/stor/d")
    said = counted(region)
    client.request(
        method, f"/ann/stor/{path}", b"" if method == "PUT" and headers.get("Content-Type") else None, headers
    )
    assert said == wanted
