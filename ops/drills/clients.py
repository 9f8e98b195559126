"""The clients of a drill as processes: one on the internet (`pub`), one inside each AZ (`c1`..`c3`), with objects on every shard."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mobula.client import Client as Sdk
from mobula.client.settings import from_environment
from mobula.metadata.shard_map import ShardMap, vnode_of
from ops.accounts import Administration
from ops.audit_region import read_shard_map
from ops.drills.client import ANSWER_S, Key, Plan, known_body
from ops.environment import DEMO_ACCOUNT, variables
from ops.errors import OperatorError
from ops.region import REPO, Region
from ops.remote import SshRemote

KEYS_PER_SHARD = 24
KNOWN_PER_SHARD = 16
RATE_PER_S = 18.0
END_S = 120.0
PUTS = 4
PUB = "pub"
A_RUN = re.compile(r"\d{8}-\d{6}-[a-z-]+")
"""a drill's folder: when it began, and which"""


class Objects:
    """A folder of the drill's own with a directory on each shard. `cold`: objects on each shard that nobody reads before the end."""

    def __init__(self, region: Region, name: str, cold: int) -> None:
        found = read_shard_map(region, {host.name: SshRemote(region, host.address) for host in region.pool("api")})
        if isinstance(found, str):
            raise OperatorError(f"prepare the objects of a drill: {found}")
        account = {a["login"]: a["uuid"] for a in Administration(region).call("account-list", {})["accounts"]}
        self.root = f"/{DEMO_ACCOUNT}/stor/drills/{name}"
        directories = _directory_on_each(found, account[DEMO_ACCOUNT], f"stor/drills/{name}")
        self._cold = cold
        self.directories = {shard: f"/{DEMO_ACCOUNT}/{path}" for shard, path in directories.items()}

    def keys(self, prefix: str, count: int) -> tuple[Key, ...]:
        """So many objects on each shard."""
        return tuple(
            Key(f"{directory}/{prefix}{number:03}", f"shard:{shard}")
            for shard, directory in sorted(self.directories.items())
            for number in range(count)
        )

    @property
    def known(self) -> tuple[Key, ...]:
        """Objects that stay as they are."""
        return self.keys("known", KNOWN_PER_SHARD)

    @property
    def cold(self) -> tuple[Key, ...]:
        """Those of them that nobody reads."""
        return self.keys("known-cold", self._cold)

    def make(self, region: Region) -> None:
        """The directories, and the objects that stay as they are; what drills that were killed have left goes."""
        above = self.root.rpartition("/")[0]
        with Sdk(from_environment(variables(region))) as sdk:
            sdk.mkdir(above, parents=True)
            for left in [e.name for e in sdk.list_directory(above) if A_RUN.fullmatch(e.name)]:
                sdk.delete_tree(f"{above}/{left}")
            sdk.mkdir(self.root)
            for directory in self.directories.values():
                sdk.mkdir(directory)
            with ThreadPoolExecutor(PUTS) as pool:
                list(pool.map(lambda key: sdk.put(key.path, known_body(key.path)), (*self.known, *self.cold)))

    def remove(self, region: Region) -> None:
        """All of it."""
        with Sdk(from_environment(variables(region))) as sdk:
            sdk.delete_tree(self.root)


def _directory_on_each(shards: ShardMap, account: str, folder: str) -> Mapping[int, str]:
    found: dict[int, str] = {}
    number = 0
    while set(found) != set(shards.shards):
        path = f"{folder}/d{number}"
        found.setdefault(shards.shard_of(vnode_of(f"/{account}/{path}")), path)
        number += 1
    return found


class Clients:
    """Running clients. `start` returns when all of them ask."""

    def __init__(self, region: Region, objects: Objects, folder: Path, seed: int) -> None:
        self._region = region
        self._objects = objects
        self._folder = folder
        self._seed = seed
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Begin to ask, from everywhere."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, (az, zone) in enumerate(sorted(self._region.zones.items())):
            own = tuple(h.address for h in self._region.pool("loadbalancer") if h.az == az)
            self._begin(f"c{zone}", az, own, (), self._seed * 10 + number)
        servers = tuple(h.address for h in self._region.pool("nameservice"))
        self._begin(PUB, PUB, (), servers, self._seed * 10 + 9)
        for process in self._processes.values():
            self._expect(process, "ready")

    def finish(self) -> list[Path]:
        """No new requests; wait for the old ones; then one of them reads everything. Answers the files of the history."""
        for name, process in self._processes.items():
            if name != PUB:
                self._tell(process, "stop")
        for name, process in self._processes.items():
            if name != PUB:
                self._expect(process, "done")
        self._tell(self._processes[PUB], "final")
        self._expect(self._processes[PUB], "done")
        for process in self._processes.values():
            process.wait(ANSWER_S)
        return sorted(self._folder.glob("*.jsonl"))

    def end(self) -> None:
        """However they are: they end when nobody is left to talk to them."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def _begin(self, name: str, az: str, addresses: tuple[str, ...], servers: tuple[str, ...], seed: int) -> None:
        region = self._region
        plan = Plan(
            name, az, region.zone, DEMO_ACCOUNT, str(region.secrets / "demo.pem"), str(region.secrets / "ca.pem"),
            str(self._folder / f"{name}.jsonl"), addresses, servers, self._objects.keys("k", KEYS_PER_SHARD),
            self._objects.known, self._objects.cold, RATE_PER_S, seed,
        )  # fmt: skip
        argv: Sequence[str] = (
            "nsenter", f"--net=/run/netns/{region.name}-{name}", sys.executable, "-m", "ops.drills.client",
        )  # fmt: skip
        environment = {"PYTHONPATH": f"{REPO}/src:{REPO}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=REPO, env=environment
            )
        self._processes[name] = process
        self._tell(process, msgspec.json.encode(plan).decode())

    @staticmethod
    def _tell(process: subprocess.Popen[bytes], line: str) -> None:
        assert process.stdin is not None  # noqa: S101
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
        except OSError as error:
            raise OperatorError(f"talk to a client of the drill: it has ended with {process.poll()}") from error

    def _expect(self, process: subprocess.Popen[bytes], word: str) -> None:
        assert process.stdout is not None  # noqa: S101
        end_s = time.monotonic() + END_S
        while time.monotonic() < end_s:
            line = process.stdout.readline().decode().strip()
            if line == word:
                return
            if not line:
                break
        name = next(name for name, known in self._processes.items() if known is process)
        said = (self._folder / f"{name}.log").read_text(errors="replace").strip()[-400:]
        raise OperatorError(f"wait for {word!r} from the drill's client {name}: {said or 'it has ended'}")
