"""Section 14 of the HTTP contract: limits in one place. Those that take a while to reach are compared by their value."""

from __future__ import annotations

import email.utils
import time

import pytest

from mobula.core import media, signature, tokens
from mobula.metadata import memory, store
from mobula.webapi import directories, objects, placement, token, upload
from mobula.wire.http_server import Limits
from tests.region.signed import Client


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (store.ENTRIES_MAX, 1_000_000), (memory.ENTRIES_MAX, 1_000_000), (directories.LIMIT_DEFAULT, 256), (directories.LIMIT_MAX, 1024),
        (objects.COPIES_DEFAULT, 2), (objects.COPIES_MAX, 6), (media.CUSTOM_BYTES_MAX, 4096), (objects.STREAMED_BYTES_MAX, 51_200 << 20),
        (token.BODY_MAX, 100_000), (signature.SKEW_S, 300), (upload.UPLOAD_IDLE_S, 45), (Limits().body_idle_s, 45), (Limits().idle_s, 120),
        (placement.FILL_MAX, 0.90), (tokens.LIFE_S, 7 * 86_400),
    ],
)  # fmt: skip
def test_s14_limits_have_the_contracts_values(found: float, wanted: float) -> None:
    assert found == wanted


@pytest.mark.parametrize(("names", "query"), [(256, ""), (300, "?limit=1024"), (257, "?limit=257")])
def test_s14_a_page_has_256_entries_unless_more_are_asked_for(ann: Client, stor: str, names: int, query: str) -> None:
    for number in range(300):
        assert ann.put(f"{stor}/{number:03}", b"").status == 204
    assert len(ann.request("GET", f"{stor}{query}").lines()) == names


@pytest.mark.parametrize(("offset_s", "status"), [(-290, 200), (290, 200), (-310, 400), (310, 400)])
def test_s14_clocks_may_differ_by_300_s(ann: Client, stor: str, offset_s: int, status: int) -> None:
    date = email.utils.formatdate(time.time() + offset_s, usegmt=True)
    algorithm, signed = ann.sign_text(f"date: {date}".encode())
    value = f'Signature keyId="{ann.key_id}",algorithm="{algorithm}",signature="{signed}"'
    assert ann.request("GET", stor, headers={"Date": date, "Authorization": value}, signed=False).status == status
