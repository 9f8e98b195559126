"""What clients see of copies: one that is gone or wrong does not show, bytes that are gone for good do."""

from __future__ import annotations

import http.client
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobula.metadata.model import Entry
from tests.contract.webapi.local import BOUND_S, LocalRegion
from tests.region.signed import Answer, Client

LINK = "application/json; type=link"


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def root_of(local: LocalRegion, login: str) -> str:
    return f"/{local.accounts.by_login[login].uuid}/stor"


def entry_of(local: LocalRegion, login: str, name: str) -> Entry:
    entry = local.call(local.metadata.lookup(root_of(local, login), name)).entry
    assert entry is not None
    return entry


def files_of(local: LocalRegion, entry: Entry) -> list[Path]:
    return [path for s in local.storages for path in s.files.glob(f"*-*/{entry.object_id}.*")]


def wait_for_upload(local: LocalRegion) -> None:
    """Until storage servers are taking an object."""
    deadline_s = time.monotonic() + BOUND_S
    while not any(any((s.files / "tmp").iterdir()) for s in local.storages):
        assert time.monotonic() < deadline_s, "no upload has begun"
        time.sleep(0.01)


def lose(local: LocalRegion, login: str, name: str) -> None:
    local.metadata.lose(root_of(local, login), name)


def test_s15_a_lost_object_is_gone_and_says_so(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    etag = ann.put(f"{stor}/o", b"hello").headers["etag"]
    lose(local, login, "o")
    assert code_of(ann.get(f"{stor}/o")) == (410, "ObjectLost")
    assert f"{stor}/o" in ann.get(f"{stor}/o").json()["message"]
    assert ann.request("HEAD", f"{stor}/o").status == 410
    assert code_of(ann.get(f"{stor}/o", Range="bytes=0-0")) == (410, "ObjectLost")
    assert code_of(ann.get(f"{stor}/o", If_None_Match=etag)) == (410, "ObjectLost")
    link = ann.request("PUT", f"{stor}/l", headers={"Content-Type": LINK, "Location": f"{stor}/o"})
    assert code_of(link) == (410, "ObjectLost")
    assert [e["name"] for e in ann.list_all(stor)] == ["o"]


def test_s15_a_lost_object_can_be_deleted(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    ann.put(f"{stor}/o", b"hello")
    lose(local, login, "o")
    assert ann.request("DELETE", f"{stor}/o").status == 204
    assert code_of(ann.get(f"{stor}/o")) == (404, "ResourceNotFound")


def test_s15_a_lost_object_can_be_written_again(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    etag = ann.put(f"{stor}/o", b"hello").headers["etag"]
    lose(local, login, "o")
    assert ann.request("PUT", f"{stor}/o", b"again", {"If-Match": etag}).status == 204
    assert ann.get(f"{stor}/o").body == b"again"


@pytest.mark.parametrize("case", list(itertools.product([10, 100_000, 3_000_000], ["gone", "rewritten", "shorter"])))
def test_s15_one_good_copy_is_enough(
    local: LocalRegion, ann: Client, login: str, stor: str, case: tuple[int, str]
) -> None:
    """Whichever of the two is asked first."""
    size, how = case
    for which in (0, 1):
        data = os.urandom(size)
        ann.put(f"{stor}/o{which}", data)
        bad = files_of(local, entry_of(local, login, f"o{which}"))[which]
        if how == "gone":
            bad.unlink()
        elif how == "rewritten":
            bad.write_bytes(bytes(byte ^ 1 for byte in data))
        else:
            os.truncate(bad, size - 1)
        for part in (None, "bytes=1-5"):
            answer = ann.get(f"{stor}/o{which}", **({"Range": part} if part else {}))
            assert answer.body == (data if part is None else data[1:6])
        if which == 0:  # the own AZ's, so the one that was asked first
            assert len(files_of(local, entry_of(local, login, f"o{which}"))) == 1


def test_s15_a_large_copy_that_turns_out_wrong_at_its_end_is_not_sent_whole(
    local: LocalRegion, ann: Client, login: str, stor: str
) -> None:
    data = os.urandom(80_000_000)
    ann.put(f"{stor}/large", data)
    for path in files_of(local, entry_of(local, login, "large")):
        with path.open("r+b") as out:
            out.write(b"wrong")
    for _ in range(2):  # one copy each
        with ann.open_get(f"{stor}/large") as answer, pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert code_of(ann.get(f"{stor}/large"))[0] == 503


def test_s15_a_missing_copy_is_noted_once(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    ann.put(f"{stor}/o", b"hello")
    entry = entry_of(local, login, "o")
    for path in files_of(local, entry):
        path.unlink()
    local.notes.take()
    for _ in range(3):
        assert ann.get(f"{stor}/o").status == 503
    noted = local.notes.take()
    assert sorted(mend.server for mend in noted) == ["storage-0", "storage-1"]
    assert {(mend.copy.object_id, mend.group) for mend in noted} == {(str(entry.object_id), entry.group)}


@pytest.mark.parametrize("chunks", [4, 20])
def test_s15_a_group_that_changes_elsewhere_does_not_stop_a_put(
    local: LocalRegion, ann: Client, login: str, stor: str, chunks: int
) -> None:
    """Its copies lie on servers that the group has kept."""
    piece = os.urandom(100_000)

    def body() -> Iterator[bytes]:
        for number in range(chunks):
            if number == chunks // 2:
                wait_for_upload(local)
                for group in local.call(local.metadata.groups()):
                    local.metadata.move_group(group.id)
            yield piece

    assert ann.request("PUT", f"{stor}/o", body()).status == 204
    assert ann.get(f"{stor}/o").body == piece * chunks


def test_s15_a_put_whose_copies_lie_on_a_replaced_pool_is_refused(own_region: Callable[..., LocalRegion]) -> None:
    local = own_region()
    ann = local.client("ann")

    def body() -> Iterator[bytes]:
        yield b"x" * 100_000
        wait_for_upload(local)
        local.metadata.replace_pools()
        yield b"x" * 100_000

    assert code_of(ann.request("PUT", "/ann/stor/o", body())) == (503, "ServiceUnavailable")
    assert ann.request("PUT", "/ann/stor/o", b"x" * 100_000).status == 204
    assert len(local.files_settled()) == 2
