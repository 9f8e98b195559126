"""Usage: what a webapi counts, and how the region's own account uses the API for them."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator

import pytest

from mobula.core.clock import SystemClock
from mobula.core.tokens import Bearer, seal
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import State
from mobula.metadata.metering import Counted
from mobula.webapi.usage import RequestCounts
from mobula.wire.http_client import Address, HttpClient
from mobula.workers import report_task
from mobula.workers.system_store import SystemStore
from tests.contract.webapi.local import TOKEN_KEY, LocalRegion
from tests.region.signed import Client

DIRECTORY = {"Content-Type": "application/json; type=directory"}


@pytest.fixture
def usage(local: LocalRegion) -> Iterator[RequestCounts]:
    """What is counted from now on."""
    before, local.store.usage = local.store.usage, RequestCounts(SystemClock())
    yield local.store.usage
    local.store.usage = before


def counted(usage: RequestCounts, account: uuid.UUID) -> Counted:
    (found,) = [count for count in usage.changed() if count.account == account]
    return found


def test_requests_and_the_bytes_of_bodies_are_counted_for_the_account_whose_paths_they_name(
    local: LocalRegion, usage: RequestCounts, ann: Client, bob: Client, login: str
) -> None:
    assert ann.put(f"/{login}/public/o", b"x" * 1000).status == 204
    assert ann.request("GET", f"/{login}/public/o", signed=False).body == b"x" * 1000
    assert bob.get(f"/{login}/stor").status == 403  # nobody pays for it
    local.add_account("usage-op", operator=True)
    assert local.client("usage-op").get(f"/{login}/stor").status == 200
    assert ann.request("DELETE", f"/{login}/public/o").status == 204
    found = counted(usage, local.accounts.by_login[login].uuid)
    assert dict(found.methods) == {"PUT": 1, "DELETE": 1, "GET": 1}
    assert (found.total, found.bytes_in, found.bytes_out) == (3, 1000, 1000)


def test_reports_are_written_by_an_operator_and_read_and_removed_by_their_account(
    ann: Client, bob: Client, operator: Client, login: str
) -> None:
    folder, report = f"/{login}/reports/usage", f"/{login}/reports/usage/o"
    assert operator.mkdir(folder).status == operator.put(report, b"{}").status == 204
    assert ann.get(report).body == b"{}"
    assert bob.get(report).status == 403
    assert [ann.request("DELETE", path).status for path in (report, folder)] == [204, 204]


@pytest.fixture
def region(own_region: Callable[..., LocalRegion]) -> LocalRegion:
    """With jobs, and with the system account."""
    made = own_region(jobs=MemoryJobs())
    made.add_account("poseidon", operator=True)
    return made


def token(region: LocalRegion) -> str:
    return seal(TOKEN_KEY, Bearer(region.accounts.by_login["poseidon"].uuid, None), dt.datetime.now(dt.UTC))


def test_the_system_stores_lists_and_removes_what_it_works_on(region: LocalRegion) -> None:
    async def bearer() -> str:
        return token(region)

    async def work() -> None:
        client = HttpClient()
        store = SystemStore(client, lambda: Address("127.0.0.1", region.port), bearer)
        below = "/poseidon/stor/usage/runs/run"
        try:
            assert [entry async for entry in store.entries(below)] == []
            for _ in range(2):
                await store.make_directory(below)
            for number in range(300):
                await store.put(f"{below}/{number:03}", b"line\n", "text/plain")
            names = [entry.name async for entry in store.entries(below)]
            assert names == [f"{number:03}" for number in range(300)]
            assert [entry.name async for entry in store.entries(below, "298")] == ["298", "299"]
            job = await store.run_job("poseidon", {"phases": [{"exec": "wc"}]}, [f"{below}/{name}" for name in names])
            assert (await store.job_status("poseidon", job)).state == State.QUEUED
            assert region.jobs is not None
            assert (await region.jobs.look(job)).sizes[0] == 300
            for _ in range(2):
                await store.cancel_job("poseidon", job)
            assert (await store.job_status("poseidon", job)).cancelled
            for _ in range(2):
                await store.remove("/poseidon/stor/usage")
            assert [entry async for entry in store.entries("/poseidon/stor")] == []
        finally:
            await client.close()

    region.call(work())


def test_a_task_puts_reports_into_directories_that_it_makes(region: LocalRegion) -> None:
    store = report_task.Store(region.port, {"Authorization": f"Token {token(region)}"})
    line = 'id\t{"login":"ann","storage":{"stor":{"objects":1}},"requests":null,"compute":null}\n'
    with contextlib.closing(store):
        for path, body in [*report_task.reports([line], "2026-11-28T05")] * 2:
            store.put(path, body)
        with pytest.raises(report_task.Refused, match="/nobody/reports"):
            store.put("/nobody/reports/o", b"")
    said = region.client("ann").get("/ann/reports/usage/storage/2026/11/28/05/h05.json")
    assert json.loads(said.body)["storage"] == {"stor": {"objects": 1}}
