"""OpenStack Swift of Debian, from a tree of its own: a proxy and two storage nodes, everything with two copies.

No daemon of its background (replicator, updater, auditor) runs, so all the machine is its requests'. Every object is fsynced before its
answer; with two copies Swift answers after one of them is stored, when the other takes more than half a second longer.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops import image
from ops.region import CACHE
from tests.bench.system import BenchError, System, ask
from tests.probe.machine import INSIDE, Process, user_id

RECIPE = 1
"""counts changes of how the tree is made that its ingredients below don't show"""
PACKAGES = ("swift-proxy", "swift-account", "swift-container", "swift-object", "memcached")
NODES = (1, 2)
PROXY_PORT = 8080
MEMCACHED_PORT = 11211
PORTS = {"account": 6200, "container": 6210, "object": 6220}
START_BOUND_S = 60.0

SWIFT_CONF = """
[swift-hash]
swift_hash_path_prefix = bench
swift_hash_path_suffix = bench
[storage-policy:0]
name = two
default = yes
"""
NODE_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 1
user = swift
swift_dir = /etc/swift
devices = {inside}/node{node}
mount_check = false
log_level = INFO
[pipeline:main]
pipeline = healthcheck {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
[filter:healthcheck]
use = egg:swift#healthcheck
"""
# The pipeline of Swift's sample configuration, without what needs another service.
PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl tempauth copy container-quotas "
    "account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server"
)
PROXY_CONF = f"""
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {PROXY_PORT}
workers = {{workers}}
user = swift
swift_dir = /etc/swift
log_level = INFO
[pipeline:main]
pipeline = {PIPELINE}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{MEMCACHED_PORT}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
token_life = 86400
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
""" + "".join(
    f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n"
    for name in PIPELINE.split()
    if name not in {"proxy-logging", "cache", "tempauth", "versioned_writes", "proxy-server"}
)
RINGS = """
set -eu
cd /etc/swift
for ring in account:6200 container:6210 object:6220; do
  name=${ring%:*} port=${ring#*:}
  swift-ring-builder "$name.builder" create 8 2 1
  for node in 1 2; do swift-ring-builder "$name.builder" add "r1z$node-127.0.0.1:$((port + node))/d1" 1; done
  swift-ring-builder "$name.builder" rebalance
done
"""


def ensure_tree(progress: Callable[[str], None]) -> Path:
    """The root of a Debian with Swift, built first unless it is in the cache. Raises OperatorError."""
    made_from = (RECIPE, image.SUITE, PACKAGES, image.TEXTS)
    folder = CACHE / "bench" / f"swift-{hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]}"

    def build(new: Path) -> None:
        options = [f"--dpkgopt=path-exclude={path}" for path in image.TEXTS]
        # Some packages' scripts want the folder.
        options.append('--essential-hook=mkdir -p "$1/usr/share/man/man1"')
        image.bootstrap(new, "a Debian with Swift", sorted(PACKAGES), options, progress)
        # Swift reads /etc/swift/swift.conf, wherever its other files lie.
        shutil.rmtree(new / "root/etc/swift", ignore_errors=True)
        (new / "root/etc/swift").symlink_to(INSIDE / "etc")

    image.build_once(folder, "a Debian with Swift", build, progress)
    return folder / "root"


def version(tree: Path) -> str:
    """Of its packages."""
    for block in (tree / "var/lib/dpkg/status").read_text().split("\n\n"):
        if block.startswith("Package: swift-proxy\n"):
            return next(line.removeprefix("Version: ") for line in block.splitlines() if line.startswith("Version: "))
    raise BenchError(f"find Swift in '{tree}': its packages are not there; remove that folder")


def _configure(folder: Path, user: int, cores: int) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (etc / "swift.conf").write_text(SWIFT_CONF)
    (etc / "proxy.conf").write_text(PROXY_CONF.format(workers=cores))
    for node in NODES:
        for kind, port in PORTS.items():
            text = NODE_CONF.format(port=port + node, inside=INSIDE, node=node, kind=kind)
            (etc / f"{kind}-{node}.conf").write_text(text)
        (folder / f"node{node}/d1").mkdir(parents=True)
    subprocess.run(["chown", "-R", f"{user}:{user}", str(folder)], check=True)


@contextmanager
def running(folder: Path, tree: Path, cores: int) -> Iterator[System]:
    """Swift on fresh data in `folder`.

    Raises:
        BenchError: it does not get ready.
    """
    _configure(folder, user_id("swift", tree), cores)
    with ExitStack() as stack:

        def start(log: str, *argv: str) -> Process:
            # As root, and Swift changes to its own user and group by itself.
            process = Process(folder, 0, argv, tree=tree, log=f"{log}.log")
            stack.callback(process.kill)
            return process

        rings = start("rings", "sh", "-c", RINGS)
        if rings.wait():
            raise BenchError(f"make Swift's rings: {(folder / 'rings.log').read_text()[-300:]}")
        servers = [
            start("memcached", "memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(MEMCACHED_PORT), "-m", "128")
        ]
        for node in NODES:
            servers += [
                start(f"{kind}-{node}", f"swift-{kind}-server", f"{INSIDE}/etc/{kind}-{node}.conf") for kind in PORTS
            ]
        servers.append(start("proxy", "swift-proxy-server", f"{INSIDE}/etc/proxy.conf"))
        connection = http.client.HTTPConnection("127.0.0.1", PROXY_PORT, timeout=60)
        stack.callback(connection.close)
        token = _token(connection, folder)
        heads = [f"X-Auth-Token: {token}\r\n"]
        system = System(
            "swift", version(tree), [PROXY_PORT], "/v1/AUTH_test/bench/", lambda: heads, lambda c: _pages(c, token),
            "/v1/AUTH_test/list/", [server.pid for server in servers],
        )  # fmt: skip
        for name in ("bench", "list"):
            system.request(connection, "PUT", f"/v1/AUTH_test/{name}")
        yield system


def _token(connection: http.client.HTTPConnection, folder: Path) -> str:
    """Log in as soon as the proxy answers and its token lasts."""
    end, why = time.monotonic() + START_BOUND_S, "no answer"
    while time.monotonic() < end:
        try:
            connection.request("GET", "/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"})
            response = connection.getresponse()
            response.read()
            token = response.headers.get("X-Auth-Token")
            if token:
                ask(connection, "GET", "/v1/AUTH_test", b"", {"X-Auth-Token": token})
                return token
            why = f"{response.status} {response.reason}"
        except (OSError, http.client.HTTPException, BenchError) as error:
            connection.close()
            why = str(error)
        time.sleep(0.2)
    logs = " | ".join(path.read_text()[-200:] for path in sorted(folder.glob("*.log")) if path.stat().st_size)
    raise BenchError(f"start Swift: {why} after {START_BOUND_S:.0f} s; {logs[-600:]}")


def _pages(connection: http.client.HTTPConnection, token: str) -> int:
    """All names, as JSON with sizes and MD5s: 10,000 to a page."""
    found, marker = 0, ""
    while True:
        path = f"/v1/AUTH_test/list?format=json&limit=10000&marker={marker}"
        page = json.loads(ask(connection, "GET", path, b"", {"X-Auth-Token": token}) or "[]")
        found += len(page)
        if len(page) < 10_000:
            return found
        marker = page[-1]["name"]
