"""Section 12 of the HTTP contract: the jobs API, on a webapi whose supervisor is this test."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mobula.core import tokens
from mobula.core.clock import SystemClock
from mobula.core.job import BODY_BYTES_MAX
from mobula.core.tokens import Bearer
from mobula.jobs.archive import Archive
from mobula.jobs.archive_front import ArchiveFront
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import Attempt, Dispatch, Job, JobError, Made, Result, Work
from mobula.webapi.jobs import LIVE_MAX, NAMES_AT_ONCE, Lines
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address
from tests.contract.webapi.local import BOUND_S, TOKEN_KEY, LocalRegion
from tests.region.signed import Answer, Client

JOB = {
    "name": "words",
    "phases": [{"exec": "grep -c x", "memory": 256}, {"type": "reduce", "exec": "sort", "count": 2}],
}
JOB_TYPE = {"Content-Type": "application/json; type=job"}


class Jobs:
    """A region with compute: `ann`, `bob`, and what a supervisor would do."""

    def __init__(self, folder: Path) -> None:
        self.kept = MemoryJobs()
        self.region = LocalRegion(folder, jobs=self.kept)
        self.region.start()
        self.accounts = {
            login: self.region.add_account(login, operator=login == "op") for login in ("ann", "bob", "op")
        }
        self.ann, self.bob, self.op = (self.region.client(login) for login in self.accounts)
        self.epoch = self.do(self.kept.lead())

    def do(self, work: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await work

        return self.region.call(wait())

    def create(self, client: Client | None = None, job: object = JOB, login: str = "ann") -> str:
        """The path of a new job."""
        answer = (client or self.ann).request("POST", f"/{login}/jobs", headers=JOB_TYPE, body=json.dumps(job).encode())
        assert answer.status == 201, answer.body
        return answer.headers["location"]

    def post(self, path: str, body: bytes = b"", client: Client | None = None) -> Answer:
        return (client or self.ann).request("POST", path, headers={"Content-Type": "text/plain"}, body=body)

    def get(self, path: str, client: Client | None = None) -> Answer:
        return (client or self.ann).request("GET", path)

    def status(self, job: str) -> dict[str, Any]:
        answer = self.get(f"{job}/live/status")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        found: dict[str, Any] = answer.json()
        return found

    def names(self, path: str) -> list[str]:
        answer = self.get(path)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
        return answer.body.decode().splitlines()

    def begin(self, job: str, works: int = 0, errors: tuple[JobError, ...] = ()) -> uuid.UUID:
        """It runs, with so many tasks and errors."""
        number = uuid.UUID(job.rpartition("/")[2])
        self.do(self.kept.begin(self.epoch, number))
        tasks = [Work(0, f"/ann/stor/{n}") for n in range(works)]
        self.do(self.kept.dispatch(self.epoch, Dispatch(number, 0, 0, works + len(errors), tasks, (), errors)))
        return number

    def as_job(
        self,
        job: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        archives: bool = False,
    ) -> Answer:
        """As the job itself asks, or who archives it."""
        bearer = Bearer(self.accounts["ann"].uuid, None, uuid.UUID(job.rpartition("/")[2]), archives)
        token = tokens.seal(TOKEN_KEY, bearer, dt.datetime.now(dt.UTC))
        given = {"Authorization": f"Token {token}", **(headers or {})}
        return self.ann.request(method, path, headers=given, body=body, signed=False)


@dataclass
class Term:
    """`archive.Term`."""

    epoch: int
    on_done: Callable[[uuid.UUID], None] = print

    async def led(self) -> int:
        return self.epoch


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path)
    yield made
    made.region.stop()


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def test_a_job_is_created_with_its_directories_and_its_supervisor_hears_of_it(jobs: Jobs) -> None:
    answer = jobs.ann.request("POST", "/ann/jobs", headers=JOB_TYPE, body=json.dumps(JOB).encode())
    assert (answer.status, answer.body, answer.headers["content-length"]) == (201, b"", "0")
    job = answer.headers["location"]
    assert jobs.region.woken == [uuid.UUID(job.removeprefix("/ann/jobs/"))]
    assert [entry["name"] for entry in jobs.get("/ann/jobs").lines()] == [job.rpartition("/")[2]]
    assert [entry["name"] for entry in jobs.get(job).lines()] == ["live", "stor"]
    assert jobs.get(f"{job}/stor").lines() == []
    assert [entry["name"] for entry in jobs.get("/ann").lines()] == ["jobs", "public", "reports", "stor"]


def test_the_status_says_what_was_asked_for_and_how_far_it_is(jobs: Jobs) -> None:
    job = jobs.create()
    found = jobs.status(job)
    assert dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(found.pop("timeCreated")) < dt.timedelta(minutes=1)
    assert found == {
        "id": job.rpartition("/")[2], "name": "words", "state": "queued", "cancelled": False, "inputDone": False, "transient": False,
        "stats": {"errors": 0, "outputs": 0, "retries": 0, "tasks": 0, "tasksDone": 0},
        "phases": [{"exec": "grep -c x", "type": "map", "memory": 256}, {"exec": "sort", "type": "reduce", "count": 2}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{}", 'property "phases": is required'),
        (json.dumps({**JOB, "input": "/a"}).encode(), 'property "input": is not known'),
        (json.dumps({"phases": [{"exec": ""}]}).encode(), 'property "phases[0].exec": must not be empty'),
        (json.dumps({**JOB, "options": {}}).encode(), "for operators only"),
        (
            json.dumps({"phases": [{"exec": "wc", "image": ""}]}).encode(),
            'property "phases[0].image": must not be empty',
        ),
        (
            json.dumps({"phases": [{"exec": "wc", "image": "~2"}]}).encode(),
            'property "phases[0].image": no image is in the range "~2"',
        ),
        (json.dumps({"phases": [{"exec": "wc", "image": "latest"}]}).encode(), "there are: 1.0.0, 1.1.0"),
    ],
)
def test_a_job_that_can_not_be_run_is_refused(jobs: Jobs, body: bytes, said: str) -> None:
    answer = jobs.ann.request("POST", "/ann/jobs", headers=JOB_TYPE, body=body)
    assert code_of(answer) == (400, "InvalidJob")
    assert said in answer.json()["message"]
    assert jobs.get("/ann/jobs").lines() == []


@pytest.mark.parametrize("wanted", ["*", "1", "~1.0.0", ">=0.5 <2", "3 || ^1.1"])
def test_an_image_may_be_any_range_with_one_that_there_is(jobs: Jobs, wanted: str) -> None:
    job = jobs.create(job={"phases": [{"exec": "wc", "image": wanted}]})
    assert jobs.status(job)["phases"] == [{"exec": "wc", "type": "map", "image": wanted}]


def test_a_job_that_is_too_long_is_refused(jobs: Jobs) -> None:
    body = json.dumps({"phases": [{"exec": "x" * BODY_BYTES_MAX}]}).encode()
    assert jobs.ann.request("POST", "/ann/jobs", headers=JOB_TYPE, body=body).status == 413


def test_an_operator_may_have_options(jobs: Jobs) -> None:
    job = jobs.create(jobs.op, {**JOB, "options": {"keepIntermediate": True}}, login="op")
    assert jobs.get(f"{job}/live/status", jobs.op).json()["options"] == {"keepIntermediate": True}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"/a\n/b\n", ["/a", "/b"]),
        (b"/a\r\n/b", ["/a", "/b"]),
        (b"\n\n/a\n\r\n\n", ["/a"]),
        (b"", []),
        ("/ann/stor/ä b€\n".encode(), ["/ann/stor/ä b€"]),
        (b"/a\n/a\n", ["/a", "/a"]),
        (b"//a///b/\n", ["//a///b/"]),
    ],
)
def test_inputs_are_kept_as_they_were_typed(jobs: Jobs, body: bytes, names: list[str]) -> None:
    job = jobs.create()
    assert jobs.post(f"{job}/live/in", body).status == 204
    assert jobs.names(f"{job}/live/in") == names
    assert not jobs.status(job)["inputDone"]
    assert len(jobs.region.woken) >= 2


def test_inputs_may_be_ended_with_the_last_of_them(jobs: Jobs) -> None:
    job = jobs.create()
    assert jobs.post(f"{job}/live/in?end=true", b"/a").status == 204
    assert jobs.status(job)["inputDone"]


def test_many_inputs_come_in_and_the_newest_hundred_are_shown(jobs: Jobs) -> None:
    job = jobs.create()
    names = [f"/ann/stor/{n}" for n in range(3 * NAMES_AT_ONCE + 7)]
    assert jobs.post(f"{job}/live/in", "\n".join(names).encode()).status == 204
    answer = jobs.get(f"{job}/live/in")
    assert answer.body.decode().splitlines() == names[-LIVE_MAX:]
    assert answer.headers["result-set-size"] == str(len(names))


@pytest.mark.parametrize("body", [b"/ok\n/a\0b\n", b"/ok\n" + b"x" * 20_000], ids=["NUL", "long"])
def test_a_line_that_is_no_name_is_refused_and_those_before_it_may_be_there(jobs: Jobs, body: bytes) -> None:
    job = jobs.create()
    assert code_of(jobs.post(f"{job}/live/in", body)) == (400, "BadRequestError")
    assert jobs.names(f"{job}/live/in") in ([], ["/ok"])


def test_ending_twice_is_harmless(jobs: Jobs) -> None:
    job = jobs.create()
    for body in (b"{}", b""):
        assert jobs.post(f"{job}/live/in/end", body).status == 202
    assert jobs.status(job)["inputDone"]


def test_a_cancelled_job_has_its_input_ended(jobs: Jobs) -> None:
    job = jobs.create()
    assert jobs.post(f"{job}/live/cancel").status == 202
    found = jobs.status(job)
    assert (found["cancelled"], found["inputDone"], found["state"]) == (True, True, "queued")


@pytest.mark.parametrize(
    ("before", "then", "state"),
    [
        ("in/end", "in", "inputDone"), ("cancel", "in", "cancelled"), ("cancel", "in/end", "cancelled"), ("cancel", "cancel", "cancelled"),
        ("done", "in", "done"), ("done", "in/end", "done"), ("done", "cancel", "done"),
    ],
)  # fmt: skip
def test_what_its_state_forbids_is_a_conflict(jobs: Jobs, before: str, then: str, state: str) -> None:
    job = jobs.create()
    if before == "done":
        jobs.post(f"{job}/live/cancel")
        jobs.do(jobs.kept.finish(jobs.epoch, uuid.UUID(job.rpartition("/")[2])))
    else:
        jobs.post(f"{job}/live/{before}")
    answer = jobs.post(f"{job}/live/{then}", b"/a")
    assert code_of(answer) == (409, "InvalidJobState")
    assert answer.json()["message"] == f"job {job.rpartition('/')[2]} is in state '{state}'"


def test_outputs_and_errors_are_shown_as_they_come(jobs: Jobs) -> None:
    job = jobs.create(job={"phases": [{"exec": "x"}]})
    jobs.post(f"{job}/live/in?end=true", b"/ann/stor/0\n/ann/stor/1\n/none")
    number = jobs.begin(job, 2, (JobError(0, "ResourceNotFoundError", 'no such object: "/none"', "/none"),))
    jobs.do(jobs.kept.hand_out(jobs.epoch, [Attempt(number, 1), Attempt(number, 2)], "a"))
    failed = JobError(0, "UserTaskError", "user command exited with code 1", "/ann/stor/1", "", "/ann/e", "/ann/c")
    jobs.do(
        jobs.kept.commit(
            jobs.epoch, [Result(Attempt(number, 1), [Made("/ann/o")]), Result(Attempt(number, 2), error=failed)]
        )
    )
    jobs.do(jobs.kept.finish(jobs.epoch, number))
    assert jobs.names(f"{job}/live/out") == ["/ann/o"]
    assert jobs.names(f"{job}/live/fail") == ["/none", "/ann/stor/1"]
    answer = jobs.get(f"{job}/live/err")
    assert answer.headers["content-type"] == "application/x-json-stream; type=job-error"
    assert answer.lines() == [
        {
            "phase": "0", "phaseNum": "0", "what": 'phase 0: input "/none"', "code": "ResourceNotFoundError",
            "message": 'no such object: "/none"', "input": "/none", "p0input": "/none",
        },
        {
            "phase": "0", "phaseNum": "0", "what": 'phase 0: input "/ann/stor/1"', "code": "UserTaskError",
            "message": "user command exited with code 1", "input": "/ann/stor/1", "p0input": "/ann/stor/1",
            "stderr": "/ann/e", "core": "/ann/c",
        },
    ]  # fmt: skip
    found = jobs.status(job)
    assert found["state"] == "done"
    assert found["stats"] == {"errors": 2, "outputs": 1, "retries": 0, "tasks": 2, "tasksDone": 2}
    assert found["timeDone"] >= found["timeCreated"]


def test_an_error_says_where_it_comes_from(jobs: Jobs) -> None:
    job = jobs.create()
    jobs.post(f"{job}/live/in", b"/a\n/b\n/c")
    jobs.begin(job, 0, (JobError(1, "X", "m", "/mid", "/first"), JobError(1, "X", "m", "/mid"), JobError(1, "X", "m")))
    assert [line["what"] for line in jobs.get(f"{job}/live/err").lines()] == [
        'phase 1: input "/mid" (from job input "/first")', 'phase 1: input "/mid"', "phase 1: reduce",
    ]  # fmt: skip


def test_jobs_are_listed_as_directories_or_by_what_they_do(jobs: Jobs) -> None:
    first, second = jobs.create(), jobs.create(job={**JOB, "name": "other"})
    jobs.post(f"{first}/live/cancel")
    jobs.do(jobs.kept.finish(jobs.epoch, uuid.UUID(first.rpartition("/")[2])))
    ids = {path: path.rpartition("/")[2] for path in (first, second)}
    for query, expected in (
        ("?state=", [second, first]), ("?state=running", [second]), ("?status=live", [second]), ("?name=words", [first]),
        ("?name=words&state=running", []), ("?name=nobody", []),
    ):  # fmt: skip
        answer = jobs.get(f"/ann/jobs{query}")
        assert answer.headers["content-type"] == "application/x-json-stream; type=job"
        assert [line["name"] for line in answer.lines()] == [ids[path] for path in expected], query
        assert all(line["type"] == "directory" and line["mtime"].endswith("Z") for line in answer.lines())
    listing = jobs.get("/ann/jobs?limit=1")
    assert listing.headers["content-type"] == "application/x-json-stream; type=directory"
    assert len(listing.lines()) == 1
    for query in ("?state=done", "?status=x", "?name=a%20b", "?name=.."):
        assert code_of(jobs.get(f"/ann/jobs{query}")) == (400, "InvalidParameter")


@pytest.mark.parametrize("what", ["live/status", "live/in", "live/out", "live/fail", "live/err"])
def test_a_job_that_is_not_there_is_not_found(jobs: Jobs, what: str) -> None:
    for job in (f"/ann/jobs/{uuid.uuid4()}", "/ann/jobs/no-id"):
        assert code_of(jobs.get(f"{job}/{what}")) == (404, "ResourceNotFound")
        assert code_of(jobs.post(f"{job}/live/in/end")) == (404, "ResourceNotFound")


def test_what_a_job_has_no_such_thing_of_is_not_found(jobs: Jobs) -> None:
    job = jobs.create()
    assert jobs.get(f"{job}/live/nothing").status == 404
    assert jobs.post(f"{job}/live/status").status == 404


def test_a_job_is_its_accounts_alone(jobs: Jobs) -> None:
    job = jobs.create()
    assert jobs.get(f"{job}/live/status", jobs.bob).status == 403
    assert jobs.post(f"{job}/live/cancel", client=jobs.bob).status == 403
    under_bob = job.replace("/ann/", "/bob/")
    assert code_of(jobs.get(f"{under_bob}/live/status", jobs.bob)) == (404, "ResourceNotFound")
    assert code_of(jobs.post(f"{under_bob}/live/cancel", client=jobs.bob)) == (404, "ResourceNotFound")
    assert jobs.bob.request("POST", "/ann/jobs", headers=JOB_TYPE, body=json.dumps(JOB).encode()).status == 403
    assert jobs.get(f"{job}/live/status", jobs.op).status == 200


def test_nobody_but_the_job_puts_anything_there(jobs: Jobs) -> None:
    job, other = jobs.create(), jobs.create()
    for path in (f"{job}/stor/a", f"{job}/a", "/ann/jobs/a", f"{job}/live"):
        assert code_of(jobs.ann.put(path, b"x")) == (403, "AuthorizationFailed"), path
    assert code_of(jobs.as_job(other, "PUT", f"{job}/stor/a", b"x")) == (403, "AuthorizationFailed")
    assert code_of(jobs.as_job(job, "PUT", f"{job}/in.txt", b"x")) == (403, "AuthorizationFailed")
    folder = {"Content-Type": "application/json; type=directory"}
    assert jobs.as_job(job, "PUT", f"{job}/stor/ann", headers=folder).status == 204
    assert jobs.as_job(job, "PUT", f"{job}/stor/ann/a.0.x", b"out").status == 204
    assert jobs.as_job(job, "PUT", "/ann/stor/b", b"x").status == 204
    assert jobs.get(f"{job}/stor/ann/a.0.x").body == b"out"
    assert jobs.ann.request("DELETE", f"{job}/stor/ann/a.0.x").status == 204


def test_who_archives_a_job_puts_its_lists_and_nothing_else(jobs: Jobs) -> None:
    job, other = jobs.create(), jobs.create()
    for name in ("in.txt", "out.txt", "fail.txt", "err.txt", "job.json"):
        assert jobs.as_job(job, "PUT", f"{job}/{name}", b"list", archives=True).status == 204
        assert jobs.get(f"{job}/{name}").body == b"list"
        assert jobs.ann.put(f"{job}/{name}", b"x").status == 403
    for path in (f"{job}/other", f"{job}/live", f"{job}/in.txt/a", f"{other}/in.txt", "/ann/jobs/in.txt"):
        assert code_of(jobs.as_job(job, "PUT", path, b"x", archives=True)) == (403, "AuthorizationFailed"), path
    assert jobs.as_job(job, "DELETE", f"{job}/live", archives=True).status == 204
    assert jobs.ann.request("DELETE", f"{job}/in.txt").status == 204


def test_a_job_is_archived_through_the_api(jobs: Jobs) -> None:
    job = jobs.create(job={"phases": [{"exec": "x"}]})
    names = [f"/ann/stor/{n}" for n in range(2500)]
    jobs.post(f"{job}/live/in?end=true", "\n".join(names).encode())
    errors = tuple(JobError(0, "ResourceNotFoundError", "no such object", name) for name in names)
    number = jobs.begin(job, 0, errors)
    jobs.do(jobs.kept.finish(jobs.epoch, number))

    def token(row: Job) -> str:
        bearer = Bearer(row.owner.account, row.owner.user, row.id, archives=True)
        return tokens.seal(TOKEN_KEY, bearer, dt.datetime.now(dt.UTC))

    async def archive() -> None:
        client, clock = HttpClient(), SystemClock()
        front = ArchiveFront(client, lambda: Address("127.0.0.1", jobs.region.port), token)
        working = asyncio.create_task(Archive(jobs.kept, front, Term(jobs.epoch), clock).work())
        async with asyncio.timeout(BOUND_S):
            while (await jobs.kept.look(number)).archived is None:
                await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.wait({working})
        await client.close()

    jobs.do(archive())
    for name in ("in.txt", "fail.txt"):
        answer = jobs.get(f"{job}/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
        assert answer.body.decode().splitlines() == names
    answer = jobs.get(f"{job}/err.txt")
    assert answer.headers["content-type"] == "application/x-json-stream; type=job-error"
    assert [line["input"] for line in answer.lines()] == names
    assert jobs.get(f"{job}/out.txt").body == b""
    assert jobs.get(f"{job}/job.json").json() == jobs.status(job)
    assert {"timeArchiveStarted", "timeArchiveDone"} <= jobs.status(job).keys()


@pytest.mark.parametrize("what", ["GET status", "GET in", "GET err", "POST in", "POST in/end", "POST cancel"])
def test_a_job_that_is_closed_is_not_live_any_more(jobs: Jobs, what: str) -> None:
    job = jobs.create()
    number = uuid.UUID(job.rpartition("/")[2])
    jobs.post(f"{job}/live/cancel")
    jobs.do(jobs.kept.finish(jobs.epoch, number))
    jobs.do(jobs.kept.end_archive(jobs.epoch, number, dt.datetime.now(dt.UTC)))
    assert jobs.get(f"{job}/live/status").status == 200
    jobs.do(jobs.kept.close(jobs.epoch, number))
    method, _, verb = what.partition(" ")
    assert code_of(jobs.ann.request(method, f"{job}/live/{verb}")) == (404, "ResourceNotFound")
    assert jobs.get("/ann/jobs?name=words").lines() == []
    assert [entry["name"] for entry in jobs.get("/ann/jobs").lines()] == [str(number)]


def test_a_region_without_compute_says_so(local: LocalRegion, ann: Client, login: str) -> None:
    for method, path in (("POST", f"/{login}/jobs"), ("GET", f"/{login}/jobs")):
        assert code_of(ann.request(method, path)) == (501, "NotImplemented")


def test_lines_are_the_same_however_they_arrive() -> None:
    body = b"/a\r\n\n/b\n" + b"/c" * 900 + b"\n/d"
    for size in (1, 2, 3, 7, 1000, len(body)):
        lines, found = Lines(), []
        for at in range(0, len(body), size):
            found += [name for names in lines.feed(body[at : at + size]) for name in names]
        assert found + lines.end() == ["/a", "/b", "/c" * 900, "/d"]
