from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from mobula.wire.http_client import Address, HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.service import ConfigRefused, Frame, load, on_trouble

SOURCES = Path(__file__).parents[2] / "src"
BOUND_S = 10.0


class SampleConfig(msgspec.Struct, frozen=True):
    region: str
    host: str
    az: str
    address: str
    listen: str = "127.0.0.1"
    status_port: int = 0


class PublicConfig(SampleConfig, frozen=True):
    port: int = 0


class Sample:
    """A service that tells what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.starting = asyncio.Event()
        self.ready = asyncio.Event()
        self.why = ""

    async def start(self) -> None:
        self.asked.append("start")
        self.starting.set()
        await self.ready.wait()

    async def stop(self) -> None:
        self.asked.append("stop")

    def status(self) -> Mapping[str, object]:
        return {"healthy": not self.why, "why": self.why, "role": "sample"}


GOOD = {"region": "test", "host": "h", "az": "a", "address": "127.0.0.1"}


def write(folder: Path, content: object) -> Path:
    path = folder / "sample.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        (GOOD | {"status_port": "x"}, "status_port"),
        ({"region": "test"}, "missing required field `host`"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, content: object, says: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigRefused, match=says) as refusal:
        load(path, SampleConfig)
    assert str(refusal.value).startswith(f"read config '{path}': ")
    with pytest.raises(ConfigRefused, match="No such file"):
        load(tmp_path / "none", SampleConfig)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobula.storage", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND_S,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )


def test_the_command_explains_itself_and_refuses_with_exit_code_2(tmp_path: Path) -> None:
    explained = run("--help")
    assert explained.returncode == 0
    assert "Example: --config /etc/mobula/storage.json" in explained.stdout
    refused = run("--config", str(write(tmp_path, "{}")))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("mobula-storage: read config ")
    assert "Traceback" not in refused.stderr
    assert refused.stderr.count("\n") == 1


async def test_a_service_lives_from_start_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.create_server(("127.0.0.1", 0)) as free:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(BOUND_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        port = free.getsockname()[1]
        free.close()
        sample = Sample()
        frame = Frame("sample", load(write(tmp_path, GOOD | {"status_port": port}), SampleConfig), lambda _: sample)
        running = asyncio.create_task(frame.run(None))
        await asyncio.wait_for(sample.starting.wait(), BOUND_S)
        client, address = HttpClient(), Address("127.0.0.1", port)
        assert (await client.request(address, "GET", "/ping")).status == 503
        assert (await client.request(address, "GET", "/other")).status == 503
        starting = json.loads(await (await client.request(address, "GET", "/status")).body())
        assert (starting["healthy"], starting["why"]) == (False, "the service is starting")
        sample.ready.set()
        assert await asyncio.to_thread(systemd.recv, 100) == b"READY=1"
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        assert (await client.request(address, "GET", "/ping")).status == 200
        assert (await client.request(address, "GET", "/other")).status == 404
        status = json.loads(await (await client.request(address, "GET", "/status")).body())
        assert {name: status[name] for name in ("service", "healthy", "role", "region")} == {
            "service": "sample", "healthy": True, "role": "sample", "region": "test",
        }  # fmt: skip
        sample.why = "the disk is gone"
        refused = await client.request(address, "GET", "/ping")
        assert refused.status == 503
        assert b"the disk is gone" in await refused.body()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, BOUND_S) == 0
        assert sample.asked == ["start", "stop"]
        await client.close()


async def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        loaded = load(write(tmp_path, GOOD | {"status_port": port}), SampleConfig)
        assert await Frame("sample", loaded, lambda _: Sample()).run(None) == 1
    assert f"listen on 127.0.0.1:{port}" in "".join(capsys.readouterr())


class Public(Sample):
    """A service with clients of its own."""

    async def handle(self, request: Request, response: Response) -> None:
        await response.send(200, [], b"the service's own " + request.path)


async def test_a_service_with_a_status_port_tells_its_clients_nothing_of_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"port": one.getsockname()[1], "status_port": other.getsockname()[1]}
    sample = Public()
    sample.ready.set()
    running = asyncio.create_task(
        Frame("sample", load(write(tmp_path, GOOD | ports), PublicConfig), lambda _: sample).run(None)
    )
    client = HttpClient()

    async def get(port: str, path: str) -> tuple[int, bytes]:
        answer = await client.request(Address("127.0.0.1", ports[port]), "GET", path)
        return answer.status, await answer.body()

    async with asyncio.timeout(BOUND_S):
        await sample.starting.wait()
        while (await get("status_port", "/ping"))[0] == 503:  # each turn is a request: the service gets its time
            pass
        assert await get("port", "/status") == (200, b"the service's own /status")
        assert await get("port", "/metrics") == (200, b"the service's own /metrics")
        assert (await get("port", "/ping")) == (200, b"")
        assert json.loads((await get("status_port", "/status"))[1])["healthy"] is True
        assert (await get("status_port", "/other"))[0] == 404
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
        await client.close()


def test_a_connection_that_was_ended_while_something_arrived_on_it_is_no_error() -> None:
    """uvloop calls it fatal; every other thing that nobody has caught goes on to where such things are logged."""
    passed: list[dict[str, object]] = []
    loop = cast("asyncio.AbstractEventLoop", SimpleNamespace(default_exception_handler=passed.append))
    closed = RuntimeError("unable to perform operation on <TCPTransport closed=True 0x1>; the handler is closed")
    on_trouble(loop, {"message": "Fatal error on SSL protocol", "exception": closed})
    assert passed == []
    others: list[dict[str, object]] = [
        {"message": "Task exception was never retrieved", "exception": RuntimeError("ours")},
        {"message": "Fatal error on SSL protocol", "exception": OSError("the handler is closed")},
        {"message": "no exception at all"},
    ]
    for context in others:
        on_trouble(loop, context)
    assert passed == others
