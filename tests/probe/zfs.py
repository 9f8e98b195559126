"""A real zfs-fuse of the base image with disks of its own, beside whatever this machine runs: its sockets, locks and mounts are in a
mount and process namespace that goes with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mobula.lab import faults
from mobula.pool.config import PoolConfig
from mobula.pool.zpool_status import Pool, parse_status
from ops.region import REPO
from tests.probe import machine
from tests.probe.machine import until

REGION, HOST, POOL = "probe", "probe-a-storage-01", "tank"
DISK_BYTES = 128 << 20

_ENTER = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir -p /run/zfs /run/lock/zfs
exec "$@"
"""


class PrivateZfs:
    """`folder` holds machines/<host>/disks, as a lab's state does, so that the lab's own faults apply; and `bin`, to be put on PATH."""

    def __init__(self, folder: Path, disks: int) -> None:
        self.folder = folder
        self.tree = machine.root()
        home = folder / "machines" / HOST
        self.disks = home / "disks"
        self.disks.mkdir(parents=True)
        label = {
            "region": REGION, "cidr": "10.99.0.0/16", "name": HOST, "zone": 1, "address": "10.99.1.41", "disks": disks,
            "disk_size_bytes": DISK_BYTES, "state_dir": str(folder), "image": str(self.tree),
        }  # fmt: skip
        (home / "label.json").write_text(json.dumps(label))
        for number in range(1, disks + 1):
            self.new_disk(f"d{number:02}")
        self._make_commands()
        self._log = (folder / "zfs.log").open("ab")
        self._daemon: subprocess.Popen[bytes] | None = None

    def _make_commands(self) -> None:
        """The image's programs with the image's libraries, outside of the image."""
        loader = next(self.tree.glob("lib*/ld-linux*"))
        libraries = ":".join(str(p) for p in self.tree.glob("usr/lib/*-linux-gnu")) or "/nowhere"
        libraries += "".join(f":{p}" for p in self.tree.glob("lib/*-linux-gnu"))
        (self.folder / "bin").mkdir()
        for name in ("zpool", "zfs", "zfs-fuse"):
            script = self.folder / "bin" / name
            program = self.tree / "sbin" / name
            script.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {program} "$@"\n')
            script.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self._daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig=SIGKILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "enter",
             "zfs-fuse", "--no-daemon", "--no-kstat-mount", "--max-arc-size", "64"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=self.environment, start_new_session=True,
        )  # fmt: skip
        until("zfs-fuse to answer", lambda: self._run("zpool", "list").returncode == 0)

    def stop(self) -> None:
        """End the daemon with everything in its namespaces, mounts too."""
        self._kill()
        self._log.close()

    def _kill(self) -> None:
        assert self._daemon is not None
        self._daemon.kill()  # --kill-child takes the namespace's first process, and so all others, with it
        self._daemon.wait(machine.BOUND_S)

    def restart(self) -> None:
        """As after a loss of power."""
        self._kill()
        self.start()
        self.run("zpool", "import", "-f", "-d", str(self.disks), POOL)

    @property
    def _first(self) -> int:
        """The namespaces' first process: zfs-fuse itself; 0 before there is one."""
        assert self._daemon is not None
        path = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children")
        children = path.read_text().split() if path.exists() else []
        return int(children[0]) if children else 0

    def freeze(self, *, frozen: bool) -> None:
        """It answers nothing any more, or again."""
        os.kill(self._first, signal.SIGSTOP if frozen else signal.SIGCONT)

    def inside(self, *argv: str) -> list[str]:
        """The command that runs `argv` where the daemon's sockets and mounts are."""
        return ["nsenter", f"--mount=/proc/{self._first}/ns/mnt", "--wdns=/", *argv]

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        if not self._first:
            return subprocess.CompletedProcess(argv, 1)
        return subprocess.run(
            self.inside(*argv), env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def run(self, *argv: str) -> str:
        """What it prints; fails the test if it fails."""
        done = self._run(*argv)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def create(self, spares: int, *, owner: str = f"{REGION}/{HOST}") -> None:
        """One raidz2 vdev of all disks but the last, which are spares."""
        paths = [str(p) for p in sorted(self.disks.iterdir())]
        data, rest = paths[: len(paths) - spares], paths[len(paths) - spares :]
        self.run("zpool", "create", "-m", str(self.folder / "tank"), POOL, "raidz2", *data, "spare", *rest)
        self.run("zfs", "set", f"mobula:owner={owner}", POOL)
        self.run("zpool", "set", "failmode=continue", POOL)

    def pool(self) -> Pool:
        return parse_status(self.run("zpool", "status", POOL), POOL)

    def state(self, disk: str) -> list[str]:
        """Of every line with that disk: it has two when it is a spare at work."""
        pool = self.pool()
        nodes = [leaf for vdev in pool.vdevs for leaf in vdev.leaves()] + list(pool.spares)
        return [node.state for node in nodes if node.name == str(self.disks / disk)]

    def fail_disk(self, disk: str) -> None:
        faults.fail_disk(self.folder, HOST, disk)

    def new_disk(self, disk: str) -> None:
        """Another, blank disk in that place, as the lab puts one there."""
        new = self.disks / f"{disk}.new"
        with new.open("wb") as file:
            file.truncate(DISK_BYTES)
        new.rename(self.disks / disk)

    def write(self, name: str, size_bytes: int) -> str:
        """A file in the pool; the command that fails unless it is still the same."""
        path = self.folder / "tank" / name
        self.run("sh", "-c", f"head -c {size_bytes} /dev/urandom >{path} && sync {path}")
        digest = self.run("sha256sum", str(path)).split()[0]
        return f"echo '{digest}  {path}' | sha256sum --check --quiet"


class Agent:
    """The pool agent as the service runs it."""

    def __init__(self, zfs: PrivateZfs, **values: Any) -> None:
        self.config = PoolConfig(
            region=REGION, host=HOST, az="a", address="127.0.0.1", listen="127.0.0.1", status_port=machine.free_port(), pool=POOL,
            folder=str(zfs.disks), spares=2, **values,
        )  # fmt: skip
        file = zfs.folder / "pool-agent.json"
        file.write_bytes(msgspec.json.encode(self.config))
        self.log = zfs.folder / "agent.log"
        self._out = self.log.open("ab")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig=SIGKILL", *zfs.inside(sys.executable, "-m", "mobula.pool", "--config", str(file))],
            stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._out,
            env={**zfs.environment, "PYTHONPATH": str(REPO / "src")},
        )  # fmt: skip

    def get(self, path: str) -> str:
        """What it answers at `path`; empty before it listens."""
        url = f"http://127.0.0.1:{self.config.status_port}{path}"
        return subprocess.run(
            ["curl", "-sS", "--max-time", "5", url], capture_output=True, text=True, check=False
        ).stdout

    def status(self) -> dict[str, Any]:
        said = self.get("/status")
        found: dict[str, Any] = json.loads(said) if said else {}
        return found

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self) -> int:
        self._process.terminate()
        code = self._process.wait(machine.BOUND_S)
        self._out.close()
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(machine.BOUND_S)
        self._out.close()


@contextmanager
def private_zfs(disks: int) -> Iterator[PrivateZfs]:
    machine.root()
    if not Path("/dev/fuse").exists():
        pytest.skip("zfs-fuse needs /dev/fuse")
    with machine.folder() as folder:
        zfs = PrivateZfs(folder, disks)
        try:
            zfs.start()
            yield zfs
        finally:
            zfs.stop()
