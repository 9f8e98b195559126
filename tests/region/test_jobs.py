"""Jobs on a region: the commands of the manuals and the posts, with the stock client and with ours; what tasks see, and what they can't.

The names are those of `mjob-cli.md`, section 5, with the demo account's directories.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from ops.region import REPO
from tests.probe.machine import until
from tests.region.conftest import Machines
from tests.region.signed import Client, encode
from tests.stock_clients import Output, Shell

pytestmark = pytest.mark.region
POEMS = {
    "a.txt": "one poochy\ntwo\n", "b.txt": "three\npoochy four\n", "c.txt": "no such word\n", "with space.txt": "last poochy\n",
}  # fmt: skip


@pytest.fixture(params=["stock", "ours"])
def client(request: pytest.FixtureRequest, manta: Shell) -> Shell:
    """A shell in which the commands are npm's, or our own."""
    if request.param == "stock":
        return manta
    return Shell({**manta.environment, "PATH": f"{REPO / 'bin'}:{os.environ['PATH']}"})


@pytest.fixture
def poems(demo: Client, folder: str) -> str:
    """A directory with four objects."""
    for name, text in POEMS.items():
        assert demo.request("PUT", encode(f"{folder}/{name}"), text.encode()).status == 204
    return folder


def sh(client: Shell, script: str, stdin: bytes = b"") -> Output:
    """Run a line of shell."""
    return client("bash", "-c", f"set -o pipefail; {script}", stdin=stdin)


def printed(client: Shell, script: str, stdin: bytes = b"") -> list[str]:
    """What a line of shell printed that must succeed."""
    said = sh(client, script, stdin)
    assert said.returncode == 0, said
    return said.stdout.splitlines()


def test_a_remote_command_without_inputs(client: Shell) -> None:
    assert printed(client, "mjob create --close -or 'echo hello' </dev/null")[-1] == "hello"


def test_words_are_counted_where_the_objects_lie(client: Shell, poems: str) -> None:
    lines = printed(client, f"mfind -t o {poems} | mjob create -qom 'wc -w'")
    assert sorted(int(line.split()[0]) for line in lines) == [2, 3, 3, 3]


def test_grep_prints_what_matches_and_says_where_nothing_did(client: Shell, poems: str) -> None:
    said = sh(client, f"mfind -t o {poems} | mjob create -qom 'grep poochy'")
    assert said.returncode == 1
    assert "had 1 error" in said.stderr
    if "stock" not in os.environ.get("PYTEST_CURRENT_TEST", ""):  # npm's prints nothing when there was an error
        assert sorted(said.stdout.splitlines()) == ["last poochy", "one poochy", "poochy four"]


def test_a_map_and_a_reduce(client: Shell, poems: str) -> None:
    line = f"mfind -t o {poems} | mjob create -q -o -m \"tr -s ' ' '\\n'\" -r 'sort | uniq -c | sort -rn | head -1'"
    assert printed(client, line)[0].split() == ["3", "poochy"]


def test_every_reducer_gets_its_part(client: Shell, poems: str) -> None:
    lines = printed(client, f"mfind -t o {poems} | mjob create -q -o -m wc --count 4 -r cat -r 'wc -l'")
    assert lines[0].split() == ["4"]


def test_an_asset_and_an_init(client: Shell, demo: Client, poems: str) -> None:
    script = b"#!/bin/bash\ncat /var/tmp/word; wc -l\n"
    assert demo.request("PUT", f"{poems}/script.sh", script).status == 204
    line = f"echo {poems}/a.txt | mjob create -qo -s {poems}/script.sh --init 'echo init >/var/tmp/word' -m /assets{poems}/script.sh"
    assert [line.strip() for line in printed(client, line)] == ["init", "2"]


def test_get_says_what_the_job_did(client: Shell, demo: Client, poems: str) -> None:
    (job,) = printed(client, f"mfind -t o {poems} | mjob create -q -w -n poems -m 'grep -c .'")
    status = json.loads("\n".join(printed(client, f"mjob get {job}")))
    assert (status["name"], status["state"], status["inputDone"]) == ("poems", "done", True)
    assert {k: status["stats"][k] for k in ("tasks", "tasksDone", "errors", "outputs")} == {
        "tasks": 4, "tasksDone": 4, "errors": 0, "outputs": 4,
    }  # fmt: skip
    assert sorted(printed(client, f"mjob inputs {job}")) == sorted(f"{poems}/{name}" for name in POEMS)
    assert len(printed(client, f"mjob outputs {job}")) == 4
    assert printed(client, f"mjob errors {job}") == []
    until("the lists to be archived", lambda: demo.request("GET", f"/demo/jobs/{job}/job.json").status == 200)
    lists = {
        name: demo.request("GET", f"/demo/jobs/{job}/{name}.txt").body.decode() for name in ("in", "out", "fail", "err")
    }
    assert sorted(lists["in"].splitlines()) == sorted(f"{poems}/{name}" for name in POEMS)
    assert (len(lists["out"].splitlines()), lists["fail"], lists["err"]) == (4, "", "")


class Jobs:
    """The API itself, in the name of an account."""

    def __init__(self, client: Client, login: str = "demo") -> None:
        self._client = client
        self._login = login

    def create(self, *phases: dict[str, Any], inputs: Sequence[str] = (), end: bool = True) -> str:
        body = json.dumps({"phases": phases}).encode()
        made = self._client.request(
            "POST", f"/{self._login}/jobs", body, {"content-type": "application/json; type=job"}
        )
        assert made.status == 201, made
        base = made.headers["location"]
        query = "?end=true" if end else ""
        said = self._client.request(
            "POST", f"{base}/live/in{query}", "\n".join(inputs).encode(), {"content-type": "text/plain"}
        )
        assert said.status == 204, said
        return str(base)

    def status(self, base: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._client.request("GET", f"{base}/live/status").body)
        return said

    def cancel(self, base: str) -> None:
        assert self._client.request("POST", f"{base}/live/cancel").status == 202

    def done(self, base: str, bound_s: float = 60.0) -> dict[str, Any]:
        """Its status once it is done; the longer that takes the less often it is asked."""
        began_s = time.monotonic()
        while (status := self.status(base))["state"] != "done":
            took_s = time.monotonic() - began_s
            assert took_s < bound_s, status
            time.sleep(0.02 + took_s / 100)
        return status

    def outputs(self, base: str) -> list[str]:
        """The bytes of each."""
        names = self._client.request("GET", f"{base}/live/out").body.decode().split("\n")[:-1]
        return [self._client.request("GET", encode(name)).body.decode() for name in names]

    def output(self, base: str) -> str:
        """Of a job with one output."""
        (body,) = self.outputs(base)
        return body

    def errors(self, base: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._client.request("GET", f"{base}/live/err").body.splitlines()]

    def run(self, script: str, **more: object) -> str:
        """What a reducer without inputs says."""
        base = self.create({"type": "reduce", "exec": script, **more})
        status = self.done(base)
        assert status["stats"]["errors"] == 0, self.errors(base)
        return self.output(base)


@pytest.fixture
def jobs(demo: Client) -> Jobs:
    return Jobs(demo)


def test_a_task_sees_nothing_of_the_region_but_the_storage_api(jobs: Jobs, machines: Machines) -> None:
    (peer, *_) = (host.address for host in machines.region.pool("metadata"))
    said = jobs.run(
        f"ip -o link 2>/dev/null | wc -l; (exec 3<>/dev/tcp/{peer}/5432) 2>/dev/null && echo reached; ls /tank /etc/mobula 2>&1 | wc -l; "
        "curl -s -o /dev/null -w '%{http_code}' http://localhost/$MANTA_USER/stor"
    )
    assert "reached" not in said
    assert said.splitlines()[-1] == "200"


def test_what_a_task_may_store_and_what_not(jobs: Jobs, folder: str) -> None:
    said = jobs.run(
        f"curl -s -o /dev/null -w '%{{http_code}} ' -T /etc/hostname http://localhost{folder}/made;"
        f"curl -s -o /dev/null -w '%{{http_code}}' -T /etc/hostname http://localhost/other/stor/made"
    )
    assert said.split()[0] == "204"
    assert said.split()[1] in {"403", "404"}


def test_a_bound_of_disk(jobs: Jobs) -> None:
    said = jobs.run(
        "dd if=/dev/zero of=/var/tmp/f bs=1M count=3000 2>&1 | tail -1; rm -f /var/tmp/f; echo well", disk=2
    )
    assert "well" in said


def test_a_bound_of_memory_is_the_tasks_own_fault(jobs: Jobs) -> None:
    script = "perl -e 'my $x = \"a\" x (600 << 20); print length $x'"
    base = jobs.create({"type": "reduce", "exec": script, "memory": 256})
    assert jobs.done(base)["stats"]["errors"] == 1
    (error,) = jobs.errors(base)
    assert error["code"] == "UserTaskError"
    assert "ran out of memory" in error["message"]


def test_many_small_tasks(jobs: Jobs, poems: str) -> None:
    base = jobs.create({"exec": "wc"}, {"exec": "wc -l", "type": "reduce"}, inputs=[f"{poems}/a.txt"] * 300)
    stats = jobs.done(base, 120)["stats"]
    assert (stats["errors"], stats["tasks"], stats["tasksDone"]) == (0, 301, 301)
    assert jobs.output(base).split() == ["300"]


def test_a_small_job_does_not_wait_for_a_large_one(jobs: Jobs, poems: str) -> None:
    large = jobs.create({"exec": "sleep 1"}, inputs=[f"{poems}/a.txt"] * 400)
    began_s = time.monotonic()
    assert jobs.run("echo small") == "small\n"
    assert time.monotonic() - began_s < 10
    assert jobs.status(large)["state"] == "running"
    jobs.cancel(large)
    assert jobs.done(large)["cancelled"] is True


def test_several_jobs_at_once(jobs: Jobs) -> None:
    words = [uuid.uuid4().hex for _ in range(8)]
    bases = [jobs.create({"type": "reduce", "exec": f"echo {word}"}) for word in words]
    for base in bases:
        jobs.done(base)
    assert [jobs.output(base).strip() for base in bases] == words


def test_what_is_handed_on_is_gone_in_the_end(jobs: Jobs, demo: Client, poems: str) -> None:
    base = jobs.create(
        {"exec": "wc -l"}, {"exec": "sort -n", "type": "reduce"}, inputs=[f"{poems}/{name}" for name in POEMS]
    )
    jobs.done(base)
    left = [entry["name"] for entry in demo.request("GET", f"{base}/stor").lines()]
    assert len([name for name in left if name.startswith("reduce")]) == 1
    assert len(left) <= 2  # and the directory of the first phase's outputs


def test_the_tasks_tools(jobs: Jobs, demo: Client, poems: str) -> None:
    base = jobs.create(
        {"exec": "tr -s ' ' '\\n' | msplit -n 2"},
        {"type": "reduce", "count": 2, "exec": f"sort | uniq -c | awk '{{print $2, $1}}' | mtee {poems}/part-$MANTA_REDUCER | mpipe"},
        {"type": "reduce", "exec": "awk '{print $2}' | maggr sum"},
        inputs=[f"{poems}/{name}" for name in POEMS],
    )  # fmt: skip
    assert jobs.done(base)["stats"]["errors"] == 0, jobs.errors(base)
    assert jobs.output(base).split() == [str(sum(len(text.split()) for text in POEMS.values()))]
    parts = [demo.request("GET", f"{poems}/part-{n}").body.decode().split() for n in range(2)]
    words = dict(zip(parts[0][::2] + parts[1][::2], parts[0][1::2] + parts[1][1::2], strict=True))
    assert words == {
        word: str(" ".join(POEMS.values()).split().count(word)) for word in " ".join(POEMS.values()).split()
    }
    assert not set(parts[0][::2]) & set(parts[1][::2])


def test_a_job_lists_its_objects_through_the_storage_api(jobs: Jobs, poems: str) -> None:
    base = jobs.create({"type": "reduce", "exec": f"mfind -t o {poems} | xargs -d '\\n' mcat"}, {"exec": "cat"})
    assert jobs.done(base)["stats"]["outputs"] == len(POEMS)
