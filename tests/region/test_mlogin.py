"""mlogin on a region: a terminal in a task, through loadbalancer, webapi, supervisor and the task's door; with npm's client, too."""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from mobula.core.medusa import STOCK_AGENT
from ops.region import REPO
from tests.probe.machine import until
from tests.region.signed import Client, encode
from tests.seat import Seat
from tests.stock_clients import Shell

pytestmark = pytest.mark.region
AGENT = b"#!/bin/sh\nexec /usr/local/lib/mobula/medusa-agent\n"


@pytest.fixture
def environment_here(manta: Shell) -> dict[str, str]:
    """For our own commands."""
    return {**manta.environment, "PATH": f"{REPO / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture
def poem(demo: Client, folder: str) -> str:
    path = f"{folder}/a poem"
    assert demo.request("PUT", encode(path), b"poochy\n").status == 204
    return path


def newest(demo: Client) -> dict[str, Any]:
    """The status of the newest session's job."""
    jobs = demo.request("GET", "/demo/jobs?limit=1000").lines()
    last = max(jobs, key=lambda job: str(job["mtime"]))
    found: dict[str, Any] = json.loads(demo.request("GET", f"/demo/jobs/{last['name']}/live/status").body)
    return found


def test_a_terminal_where_the_object_is(environment_here: dict[str, str], demo: Client, poem: str) -> None:
    with Seat(["mlogin", poem], environment_here) as seat:
        seat.until("connected")
        seat.type('tty; echo $MANTA_INPUT_FILE; cat "$MANTA_INPUT_FILE"\r')
        seat.until(r"/dev/pts/\d+\r\n")
        seat.until(rf"/manta{poem}\r\npoochy\r\n")
        seat.type("stty size\r")
        seat.until(r"24 80\r\n")
        seat.resize(132, 50)
        seat.type("sleep 0.5; stty size\r")
        seat.until(r"50 132\r\n")
        seat.type("bash -c 'kill -SEGV $$'; ulimit -c; mls /$MANTA_USER >/dev/null && echo we''ll\r")
        seat.until("well")
        seat.type("exit 7\r")
        assert seat.exit_code() == 7, seat.text
        assert seat.are_modes_restored()
    status = newest(demo)
    assert (status["name"], status["state"], status["cancelled"]) == ("interactive compute job", "done", False)
    assert status["stats"]["errors"] == 0


def test_one_command_and_much_output(environment_here: dict[str, str]) -> None:
    with Seat(["mlogin", "-q", "-c", "seq 200000 | tail -n 199999; exit 3"], environment_here) as seat:
        assert seat.exit_code() == 3
        assert seat.text.split("\r\n")[:2] == ["2", "3"]
        assert seat.text.endswith("199999\r\n200000\r\n")


@pytest.mark.parametrize("way", ["escape", "signal"])
def test_who_leaves_leaves_no_job(environment_here: dict[str, str], demo: Client, way: str) -> None:
    with Seat(["mlogin"], environment_here) as seat:
        seat.until("connected")
        seat.type("echo he''re\r")
        seat.until("here")
        if way == "escape":
            seat.type("~.")
        else:
            seat.process.send_signal(signal.SIGTERM)
        assert seat.exit_code() == 130
        assert seat.are_modes_restored()
    until("the job to be cancelled", lambda: newest(demo)["state"] == "done", 30)
    assert newest(demo)["cancelled"] is True


def test_npms_mlogin_with_its_agent_made(
    manta: Shell, mobula: Shell, environment_here: dict[str, str], tmp_path: Path, poem: str
) -> None:
    """The commands of `docs/clients.md`."""
    key, script = tmp_path / "key", tmp_path / "agent.sh"
    Shell(os.environ).lines(
        "ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-C", uuid.uuid4().hex, "-f", str(key)
    )
    script.write_bytes(AGENT)
    mobula.lines("account", "key", "add", "poseidon", f"{key}.pub")
    put = ["mput", "-q", "-a", "poseidon", "-k", str(key), "-p", "-f", str(script), STOCK_AGENT]
    Shell(environment_here).lines(*put)
    with Seat(["mlogin", poem], manta.environment) as seat:
        seat.type("\r")
        seat.type("echo in=$MANTA_INPUT_FILE\r")
        seat.until(rf"in=/manta{poem}\r+\n")
        seat.type("exit 7\r")
        seat.exit_code()  # 0, whatever the command said
        assert "session complete" in seat.text, seat.text
