"""mjob against a webapi in this process, whose supervisor is this test: it moves a job on whenever it hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobula.client import jobs as client_jobs
from mobula.client.commands.command import run
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import Attempt, Dispatch, Job, JobError, Made, Result, State, Work
from tests.contract.webapi.local import BOUND_S, LocalRegion, new_key

REPO = Path(__file__).parents[3]
ID = "8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10"


def copied(name: str) -> list[str] | JobError:
    """What a task of the tests does, when nothing else is said: it puts out its input."""
    return [name]


class Supervisor(list[uuid.UUID]):
    """Takes the place of who hears of jobs. A job whose input is ended is done at once, unless `holding`.

    `tasks` says what became of an input: names that were put out, or an error. A reducer puts out what it is fed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept = MemoryJobs()
        self.holding = False
        self.tasks: Callable[[str], list[str] | JobError] = copied
        self._lock = asyncio.Lock()
        self._running = set[asyncio.Task[None]]()

    def append(self, job: uuid.UUID) -> None:
        super().append(job)
        if not self.holding:
            moving = asyncio.get_running_loop().create_task(self.move(job))
            self._running.add(moving)
            moving.add_done_callback(self._running.discard)

    async def move(self, job: uuid.UUID) -> None:
        """Do whatever there is to do of a job."""
        async with self._lock:
            epoch = await self.kept.lead()
            await self.kept.begin(epoch, job)
            row = await self.kept.look(job)
            if row.cancelled:
                await self.kept.abandon(epoch, job)
            elif not row.input_ended:
                return
            elif row.state == State.RUNNING:
                await self._work(epoch, row)
            await self.kept.finish(epoch, job)

    async def _work(self, epoch: int, row: Job) -> None:
        for number, phase in enumerate(row.document.phases):
            items = [item.name for item in self.kept.names(row.id, number)]
            works = [] if phase.reduces else [Work(number, name) for name in items]
            await self.kept.dispatch(epoch, Dispatch(row.id, number, 0, len(items), works))
            mine = [task for task in await self.kept.open_tasks(row.id) if task.work.phase == number]
            await self.kept.hand_out(epoch, [task.attempt for task in mine], "a")
            ends = []
            for task in mine:
                made = items if phase.reduces else self.tasks(task.work.name)
                ends.append(self._result(task.attempt, made))
            await self.kept.commit(epoch, ends)

    def _result(self, attempt: Attempt, made: list[str] | JobError) -> Result:
        if isinstance(made, JobError):
            return Result(attempt, error=made)
        return Result(attempt, [Made(name) for name in made])


def failed(name: str, stderr: str = "", phase: int = 0) -> JobError:
    return JobError(phase, "UserTaskError", "user command exited with code 1", name, "", stderr)


class Mjob:
    """Calls `mjob`; `out` and `err` are what the last one printed."""

    def __init__(self, region: LocalRegion, supervisor: Supervisor, folder: Path, capsys: Any, patch: Any) -> None:
        self.region, self.supervisor = region, supervisor
        self.ann = region.client("ann")
        pem = new_key()[0]
        region.add_key("ann", pem)
        (folder / "key").write_bytes(pem)
        self.environment = {
            "MANTA_URL": f"http://127.0.0.1:{region.port}", "MANTA_USER": "ann", "MANTA_KEY_ID": str(folder / "key"), "HOME": "/none",
        }  # fmt: skip
        self.out = self.err = ""
        self._stdin, self._capsys, self._patch = folder / "stdin", capsys, patch

    def __call__(self, *words: str, code: int = 0, stdin: str = "") -> list[str]:
        """The lines that it prints; its exit code must be `code`."""
        self._stdin.write_text(stdin)
        with self._stdin.open() as file, self._patch.context() as patch:
            patch.setattr("sys.stdin", file)
            try:
                found = run("mjob", words, self.environment)
            except SystemExit as end:  # argparse
                found = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        assert found == code, self.err
        assert "Traceback" not in self.err
        return self.out.splitlines()

    def put(self, name: str, text: str) -> str:
        path = f"/ann/stor/{name}"
        assert self.ann.put(path, text.encode()).status == 204
        return path

    def status(self, job: str) -> dict[str, Any]:
        answer = self.ann.request("GET", f"/ann/jobs/{job}/live/status")
        found: dict[str, Any] = answer.json()
        return found

    def names(self, job: str, stage: int) -> list[str]:
        return [item.name for item in self.supervisor.kept.names(uuid.UUID(job), stage)]

    def move(self, job: str) -> None:
        """Let the supervisor do what it did not while it was holding."""
        self.region.call(self.supervisor.move(uuid.UUID(job)))

    def wait_for(self, found: Callable[[], bool]) -> None:
        """Bounded."""
        deadline_s = time.monotonic() + BOUND_S
        while not found():
            assert time.monotonic() < deadline_s
            time.sleep(0.005)


@pytest.fixture
def mjob(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mjob]:
    supervisor = Supervisor()
    region = LocalRegion(tmp_path, jobs=supervisor.kept, woken=supervisor)
    region.start()
    region.add_account("ann")
    capsys.readouterr()  # what the storage servers said
    yield Mjob(region, supervisor, tmp_path, capsys, monkeypatch)
    region.stop()


# create


def test_a_job_is_started_on_the_names_that_standard_input_has(mjob: Mjob) -> None:
    (job,) = mjob(
        "create", "-w", "-n", "x", "-m", "a 'b'", "--count", "2", "-r", "c", stdin="/ann/stor/a\n~~/stor/b\r\n"
    )
    assert mjob.err == f"mjob create: added 2 inputs to {job}\n"
    found = mjob.status(job)
    assert (found["name"], found["state"], found["inputDone"]) == ("x", "done", True)
    assert found["phases"] == [{"exec": "a 'b'", "type": "map"}, {"exec": "c", "type": "reduce", "count": 2}]
    assert mjob.names(job, 0) == ["/ann/stor/a", "/ann/stor/b"]


def test_without_waiting_it_prints_the_id_and_ends_the_input(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    (job,) = mjob("create", "wc", "-q", stdin="/a")
    assert mjob.err == ""
    assert mjob.status(job)["inputDone"]
    (job,) = mjob("create", "wc", "--open", stdin="/a\n")
    assert not mjob.status(job)["inputDone"]
    assert mjob.err == f"mjob create: added 1 input to {job}\n"


def test_an_empty_input_runs_the_reducers(mjob: Mjob) -> None:
    begun_s = time.monotonic()
    mjob("create", "-o", "-r", "echo hello")
    assert time.monotonic() - begun_s < 5
    assert mjob.out == ""
    assert mjob.supervisor.kept.names(mjob.supervisor[0], 1) == []
    assert sum(target.endswith("/live/status") for target in mjob.region.asked) <= 10


def test_many_names_are_posted_in_batches(mjob: Mjob) -> None:
    names = [f"/ann/stor/{n}" for n in range(2503)]
    mjob.supervisor.holding = True
    (job,) = mjob("create", "-b", "100", "-p", "3", "-m", "x", stdin="\n".join(names))
    assert sorted(mjob.names(job, 0)) == sorted(names)
    assert sum(target.endswith("/live/in") for target in mjob.region.asked) == 26
    assert mjob.status(job)["inputDone"]


def test_outputs_are_printed_before_the_errors_and_the_tasks_own_words(mjob: Mjob) -> None:
    names = [mjob.put(name, f"poochy {name}\n") for name in "abcd"]
    words = mjob.put("words", "grep: no poochy")
    mjob.supervisor.tasks = lambda name: failed(name, words) if name in names[1:3] else [name]
    mjob("create", "-qom", "grep poochy", stdin="\n".join(names), code=1)
    job = str(mjob.supervisor[0])
    assert mjob.out == "poochy a\npoochy d\n"
    said = [
        f'mjob create: phase 0: input "{name}": user command exited with code 1 (UserTaskError)' for name in names[1:3]
    ]
    assert mjob.err.splitlines() == [
        said[0], "grep: no poochy", said[1], "grep: no poochy", f"mjob create: error: job {job} had 2 errors",
    ]  # fmt: skip


def test_one_error_is_one(mjob: Mjob) -> None:
    mjob.supervisor.tasks = failed
    (job,) = mjob("create", "-q", "-w", "-m", "x", stdin="/a", code=1)
    assert mjob.err == f"mjob create: error: job {job} had 1 error; mjob errors {job} shows it\n"


def test_an_output_that_is_gone_does_not_hide_the_others(mjob: Mjob) -> None:
    path = mjob.put("there", "text")
    mjob("create", "-qo", "-m", "x", stdin=f"/ann/stor/gone\n{path}\n", code=1)
    assert mjob.out == "text"
    assert mjob.err.startswith("mjob create: /ann/stor/gone was not found")


@pytest.mark.parametrize("what", ["outputs", "errors"])
def test_a_list_that_is_not_whole_is_said(mjob: Mjob, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_jobs, "ARCHIVE_S_MAX", 0.05)
    path = mjob.put("a", "x")
    if what == "errors":
        mjob.supervisor.tasks = failed
    mjob("create", "-qo", "-m", "x", stdin=f"{path}\n" * 103, code=1)
    assert mjob.out == "x" * (100 if what == "outputs" else 0)
    assert f"has 103 {what}, of which the newest 100 are shown: all of them can be had once it is archived" in mjob.err


def test_the_job_may_come_from_a_file(mjob: Mjob, tmp_path: Path) -> None:
    mjob.supervisor.holding = True
    document = {"phases": [{"exec": "é", "type": "reduce", "uarg": {"a": 1}}], "name": "n"}
    (job,) = mjob("create", "-q", "-f", "/dev/stdin", "--open", stdin=json.dumps(document))
    found = mjob.status(job)
    assert (found["name"], found["phases"], found["inputDone"]) == ("n", document["phases"], False)
    assert mjob.names(job, 0) == []
    (tmp_path / "job.json").write_text(json.dumps(document))
    (job,) = mjob("create", "-q", "-f", str(tmp_path / "job.json"), "-n", "other", stdin="/a")
    assert (mjob.status(job)["name"], mjob.names(job, 0)) == ("other", ["/a"])
    mjob("create", "-f", str(tmp_path / "job.json"), "-m", "x", code=2)
    mjob("create", "-f", str(tmp_path / "none"), code=1)
    assert mjob.err == f"mjob create: {tmp_path / 'none'}: No such file or directory\n"


def test_a_dry_run_prints_the_job_and_starts_none(mjob: Mjob) -> None:
    mjob("create", "--dry-run", "-s", "~~/stor/a", "-m", "é  $MANTA_INPUT_FILE", "-n", "x", stdin="/a")
    phase = {"assets": ["/ann/stor/a"], "type": "map", "exec": "é  $MANTA_INPUT_FILE"}
    assert json.loads(mjob.out) == {"name": "x", "phases": [phase]}
    assert mjob.region.asked == []
    mjob("create", "--dry-run", "-s", "a", "-m", "x", code=1)
    assert "must begin with a slash" in mjob.err


def test_what_is_refused_is_one_sentence(mjob: Mjob) -> None:
    mjob("create", "--memory", "3", "-m", "x", code=1)
    assert mjob.err == (
        'mjob create: property "phases[0].memory": is 3 MB; may be 128, 256, 512, 1024, 2048, 4096, 8192 (InvalidJob)\n'
    )
    mjob("create", code=2)
    assert mjob.err.endswith("mjob create: error: At least one map or reduce task must be specified\n")
    for words in (["get", ID], ["close", ID], ["outputs", ID], ["watch", ID], ["share", ID], ["retry", ID]):
        mjob(*words, code=1)
        assert mjob.err == f"mjob {words[0]}: /ann/jobs/{ID} was not found (ResourceNotFound)\n"
    mjob("get", "nonsense", code=1)
    assert mjob.err.count("\n") == 1


def test_inputs_that_can_not_be_added_leave_the_input_open(mjob: Mjob) -> None:
    (job,) = mjob("create", "-w", "-m", "x", stdin="/ok\n" + "x" * 20_000, code=1)
    assert (
        mjob.err.splitlines()[1]
        == f"mjob create: the input of job {job} is left open; add what is missing, or cancel it"
    )
    assert not mjob.status(job)["inputDone"]


def test_a_cancelled_job_is_no_success(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    waiting = threading.Thread(target=mjob, args=("create", "-q", "-w", "-m", "x"), kwargs={"code": 1}, daemon=True)
    waiting.start()
    mjob.wait_for(lambda: any(target.endswith("/live/status") for target in mjob.region.asked))
    number = mjob.supervisor[0]
    mjob.region.call(mjob.supervisor.kept.cancel(number))
    mjob.move(str(number))
    waiting.join(BOUND_S)
    assert mjob.err == f"mjob create: error: job {number} was cancelled\n"


@contextlib.contextmanager
def on_a_terminal(mjob: Mjob, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process whose standard input and error are a terminal, and the terminal's other side."""
    ours, theirs = pty.openpty()
    environment = {
        **mjob.environment,
        "PATH": "/usr/bin:/bin",
        "MOBULA_PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    argv = [REPO / "bin" / "mjob", *words]
    with subprocess.Popen(argv, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, said: str) -> str:
    text = ""
    while said not in text:
        text += os.read(terminal, 4096).decode()
    return text


def test_a_terminal_has_no_names_and_is_told_how_far_it_is(mjob: Mjob) -> None:
    with on_a_terminal(mjob, "create", "-w", "-m", "x") as (process, terminal):
        assert process.stdout is not None
        job = process.stdout.readline().decode().strip()
        assert "the input is left open, for standard input is a terminal" in read_until(terminal, "input is open")
        mjob("addinputs", job, stdin="/a\n")
        read_until(terminal, "1/1 tasks done, 0 errors")
        assert process.wait(BOUND_S) == 0
    with on_a_terminal(mjob, "create", "--close", "-or", "echo hello") as (process, terminal):
        assert process.wait(BOUND_S) == 0
        assert "left open" not in read_until(terminal, "added 0 inputs")


# the others


def test_inputs_are_added_and_ended(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    first, second = (mjob("create", "--open", "-m", "x")[0] for _ in range(2))
    assert mjob("addinputs", "-o", first, f"/ann/jobs/{second}", stdin="/a\n/b\n") == []
    assert [mjob.names(job, 0) for job in (first, second)] == [["/a", "/b"]] * 2
    assert not mjob.status(first)["inputDone"]
    mjob("addinputs", first, stdin="/c")
    assert mjob.names(first, 0) == ["/a", "/b", "/c"]
    assert mjob.status(first)["inputDone"]
    mjob("addinputs", first, stdin="/c", code=1)
    assert mjob.err == f"mjob addinputs: job {first} is in state 'inputDone' (InvalidJobState)\n"
    mjob("close", f"{second}/")
    assert mjob.status(second)["inputDone"]


def test_jobs_are_cancelled_and_those_that_can_not_be_are_said(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    jobs = [mjob("create", "-m", "x")[0] for _ in range(3)]
    mjob("cancel", jobs[1])
    assert (mjob.out, mjob.err) == ("", "")
    mjob("cancel", *jobs, code=1)
    assert mjob.err == f"mjob cancel: job {jobs[1]} is in state 'cancelled' (InvalidJobState)\n"
    assert all(mjob.status(job)["cancelled"] for job in jobs)


def test_the_status_of_jobs(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    jobs = [mjob("create", "-m", "x", "-n", name)[0] for name in ("ä", "b")]
    mjob("get", *jobs, "--json")
    assert [json.loads(line) for line in mjob.out.splitlines()] == [mjob.status(job) for job in jobs]
    mjob("get", jobs[0])
    assert json.loads(mjob.out) == mjob.status(jobs[0])
    assert '\n    "name": "ä",\n' in mjob.out


def test_watching_shows_the_status_when_it_is_done(mjob: Mjob) -> None:
    mjob.supervisor.tasks = failed
    jobs = [mjob("create", "-m", "x", stdin="/a")[0] for _ in range(2)]
    mjob("watch", "-j", *jobs)
    assert [(found["id"], found["state"]) for found in map(json.loads, mjob.out.splitlines())] == [
        (job, "done") for job in jobs
    ]
    mjob("wait", jobs[0])
    assert json.loads(mjob.out)["stats"]["errors"] == 1


def test_jobs_are_listed(mjob: Mjob) -> None:
    assert mjob("list") == []
    first = mjob("create", "-w", "-m", "x", "-n", "words")[0]
    mjob.supervisor.holding = True
    second = mjob("create", "-m", "x", "-n", "other")[0]
    assert sorted(mjob("list")) == sorted([f"{first}/", f"{second}/"])
    assert mjob("list", "-s", "running") == [f"{second}/"]
    assert mjob("list", "-n", "words") == [f"{first}/"]
    assert re.fullmatch(rf"drwxr-xr-x 1 ann +0 \w{{3}} \d\d \d\d:\d\d {first}", mjob("list", "-l", "-n", "words")[0])
    assert [json.loads(line)["name"] for line in mjob("list", "--json", "-s", "running")] == [second]
    mjob("list", "-s", "done", code=1)
    assert mjob.err == "mjob list: state is invalid: done (InvalidParameter)\n"
    mjob("cancel", *mjob("list", "-s", "running"))
    assert mjob.status(second)["cancelled"]


def test_the_lists_of_jobs(mjob: Mjob) -> None:
    mjob.supervisor.tasks = lambda name: failed(name) if name == "/b" else [f"{name}.out"]
    jobs = [mjob("create", "-m", "x", "-r", "y", stdin=text)[0] for text in ("/a\n/b", "/c")]
    mjob("watch", *jobs)
    assert mjob("inputs", *jobs) == ["/a", "/b", "/c"]
    assert mjob("outputs", *jobs) == ["/a.out", "/c.out"]
    assert mjob("failures", *jobs) == ["/b"]
    assert [json.loads(line)["input"] for line in mjob("errors", *jobs)] == ["/b"]
    assert [json.loads(line) for line in mjob("outputs", "-j", jobs[1])] == [{"job": jobs[1], "name": "/c.out"}]
    assert mjob("inputs", ID, jobs[1], code=1) == ["/c"]


def test_a_reducer_that_failed_has_no_input(mjob: Mjob) -> None:
    mjob.supervisor.holding = True
    (job,) = mjob("create", "-r", "x")
    number = uuid.UUID(job)

    async def fail() -> None:
        kept = mjob.supervisor.kept
        epoch = await kept.lead()
        await kept.begin(epoch, number)
        await kept.hand_out(epoch, [Attempt(number, 1)], "a")
        await kept.commit(epoch, [Result(Attempt(number, 1), error=failed(""))])
        await kept.finish(epoch, number)

    mjob.region.call(fail())
    assert mjob("failures", job) == []
    mjob("retry", job, code=1)
    assert (
        mjob.err
        == f"mjob retry: retry job {job}: there are no failed inputs: it had 1 error of no input, as a reducer's are\n"
    )


def test_failed_inputs_are_tried_again_by_a_new_job(mjob: Mjob) -> None:
    names = [mjob.put(name, name) for name in "abc"]
    mjob.supervisor.tasks = lambda name: failed(name) if name != names[1] else [name]
    (old,) = mjob("create", "-n", "x", "-s", "/ann/stor/a", "-m", "y", stdin="\n".join([*names, names[0]]))
    mjob("watch", old)
    mjob.supervisor.tasks = copied
    (new,) = mjob("retry", "-w", old)
    assert mjob.err == f"mjob retry: added 2 inputs to {new}\n"
    assert mjob.names(new, 0) == [names[0], names[2]]
    same = ("name", "phases", "transient")
    assert [mjob.status(new)[key] for key in same] == [mjob.status(old)[key] for key in same]
    mjob("retry", new, code=1)
    assert mjob.err == f"mjob retry: retry job {new}: there are no failed inputs: it had no errors\n"
    mjob.supervisor.holding = True
    (running,) = mjob("create", "-m", "y")
    mjob("retry", running, code=1)
    assert "it is queued; wait for it, or cancel it first" in mjob.err


def test_a_page_about_a_job_is_shared(mjob: Mjob, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# what it is for")
    path = mjob.put("a b", "x")
    (job,) = mjob("create", "-w", "-m", "x < y", stdin=path)
    (address,) = mjob("share", "-r", str(tmp_path / "README.md"), job)
    assert address == f"{mjob.environment['MANTA_URL']}/ann/public/jobshares/{job}/index.html"
    answer = mjob.ann.request("GET", f"/ann/public/jobshares/{job}/index.html", signed=False)
    text = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for said in ("# what it is for", "x &lt; y", f'<a href="{mjob.environment["MANTA_URL"]}/ann/stor/a%20b">'):
        assert said in text
    mjob("share", "-s", job)
    assert mjob.out == text.replace("<pre># what it is for</pre>\n", "")
