"""Compute beside our own services: a supervisor, and the agent of storage-a, which has a copy of every object (two servers, two copies).

Both are configured as a region's are. The agent runs on this machine's own root, as a chroot may make no user namespaces; what its tasks
see is the task image, with all the walls and bounds that a region's have.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mobula.core.job import TASKS_GROUP
from mobula.sandbox.cgroups import KINDS, ROOT
from mobula.wire.zookeeper import Client
from ops import task_image
from ops.region import REPO
from tests.bench.ours import ACCOUNT, AUTHCACHE_PORT, START_BOUND_S, WEBAPI_PORT, Ours, Services
from tests.bench.system import BenchError, ask
from tests.probe import sandboxes
from tests.probe.machine import INSIDE

SUPERVISOR_PORT, AGENT_STATUS = 7083, 7062
HOST = "storage-a"
DISK_BYTES = 2 << 30
JOB_BOUND_S = 600.0
POLL_S = 0.02


@contextmanager
def running(system: Ours, image: Path) -> Iterator[None]:
    """`image`: the task image's folder.

    Raises:
        BenchError, OSError, subprocess.SubprocessError: something of it does not get ready.
    """
    folder = system.folder
    near = [f"127.0.0.1:{port}" for port in system.ports]
    with ExitStack() as stack:
        asyncio.run(_register(system))
        services = Services(folder, stack)
        tls = {name: f"{INSIDE}/secrets/{file}" for name, file in TLS.items()}
        services.start("supervisor", "supervisor", "nobody", {
            "host": "supervisor", "az": "a", "port": SUPERVISOR_PORT, "zookeeper": [system.zookeeper], "near_webapis": near,
            "postgres": {**tls, "port": system.primary.port}, "authcaches": [f"127.0.0.1:{AUTHCACHE_PORT}"], "tls": tls,
            "capability_keys": [f"{INSIDE}/secrets/capability-1.key"],
        })  # fmt: skip
        services.wait("supervisor", f"http://127.0.0.1:{SUPERVISOR_PORT}/ping")
        volumes = stack.enter_context(sandboxes.volumes(folder, DISK_BYTES))
        stack.callback(_remove_groups)
        config = {
            "region": "bench", "address": "127.0.0.1", "host": HOST, "az": "a", "status_port": AGENT_STATUS, "shards": 1,
            "zookeeper": [system.zookeeper], "near_webapis": near, "capability_keys": [str(folder / "secrets/capability-1.key")],
            "data_dir": str(folder / "data-a"), "volumes": str(volumes),
            "images": {task_image.VERSION: {"root": str(image / "root"), "program": str(image / "sandbox-init")}},
        }  # fmt: skip
        _start_agent(folder, config, stack)
        services.wait("agent", f"http://127.0.0.1:{AGENT_STATUS}/ping")
        yield


TLS = {"ca": "ca.pem", "certificate": "mobula.pem", "key": "mobula.key"}


def _start_agent(folder: Path, config: dict[str, object], stack: ExitStack) -> None:
    path = folder / "agent.json"
    path.write_text(json.dumps(config))
    # A /run of its own: what it keeps there is not this machine's.
    argv = [
        "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh",
        sys.executable, "-m", "mobula.agent", "--config", str(path),
    ]  # fmt: skip
    with (folder / "agent.log").open("ab") as log:
        agent = subprocess.Popen(argv, cwd=REPO, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end() -> None:
        agent.terminate()  # its sandboxes end with it, in order
        try:
            agent.wait(START_BOUND_S)
        finally:
            agent.kill()

    stack.callback(end)


def _remove_groups() -> None:
    """What the agent leaves empty."""
    for kind in KINDS:
        with suppress(OSError):
            (ROOT / kind / TASKS_GROUP).rmdir()


async def _register(system: Ours) -> None:
    """The registrars' part: where the webapis are."""
    client = Client([system.zookeeper])
    client.start()
    try:
        await client.wait_connected(START_BOUND_S)
        for port in system.ports:
            path = f"/names/webapi/webapi-{port - WEBAPI_PORT}"
            await client.ensure_path(path)
            await client.set(path, json.dumps({"address": "127.0.0.1", "port": port, "ttl": 5}).encode())
    finally:
        await client.stop()


def run_job(system: Ours, script: str, names: list[str]) -> float:
    """Seconds that a map over these objects takes, from its creation to its end. Raises BenchError: a task has not put out one object."""
    connection = http.client.HTTPConnection("127.0.0.1", system.ports[0], timeout=60)
    try:
        head = dict(line.split(": ", 1) for line in system.heads()[0].splitlines())
        began_s = time.monotonic()
        job = _create(connection, head, script)
        body = "\n".join(names).encode()
        ask(connection, "POST", f"{job}/live/in?end=true", body, {**head, "Content-Type": "text/plain"})
        while (status := json.loads(ask(connection, "GET", f"{job}/live/status", b"", head)))["state"] != "done":
            if time.monotonic() - began_s > JOB_BOUND_S:
                raise BenchError(f"run a job: not done after {JOB_BOUND_S:.0f} s: {status['stats']}")
            time.sleep(POLL_S)
        took_s = time.monotonic() - began_s
        stats = status["stats"]
        if (stats["outputs"], stats["errors"], stats["retries"]) != (len(names), 0, 0):
            said = ask(connection, "GET", f"{job}/live/err", b"", head)[:300].decode(errors="replace")
            raise BenchError(f"run a job over {len(names)} objects: {stats}; {said}")
        return took_s
    finally:
        connection.close()


def _create(connection: http.client.HTTPConnection, head: dict[str, str], script: str) -> str:
    document = json.dumps({"phases": [{"exec": script}]}).encode()
    connection.request("POST", f"/{ACCOUNT}/jobs", document, {**head, "Content-Type": "application/json; type=job"})
    response = connection.getresponse()
    said = response.read()
    if response.status != 201:
        raise BenchError(f"create a job: {response.status} {said[:200].decode(errors='replace')}")
    return str(response.headers["Location"])
