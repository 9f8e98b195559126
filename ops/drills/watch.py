"""What is looked at beside the clients while a drill runs: who is primary of each shard and under which lease, who is in DNS."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass

from mobula.lab.network import LabError
from ops.catalog import names_of
from ops.dns import resolve
from ops.region import Host, Region
from ops.remote import RemoteError, SshRemote

LOOK = """
import json, sys, time, urllib.error, urllib.request
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=1) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    except OSError as error:
        said = {"role": "unknown"}
    print(json.dumps(said), flush=True)
    time.sleep(0.25)
"""
SILENT_S = 3.0
AGAIN_S = 0.5
DNS_S = 1.0
APEX = "@"


@dataclass(frozen=True, slots=True)
class Peer:
    """A guard's word: `role` primary, standby or unknown; `kind` of its lease, empty without one."""

    at_s: float
    host: str
    shard: int
    role: str
    kind: str


@dataclass(frozen=True, slots=True)
class Names:
    """Addresses of a name in DNS, as the first nameserver that answers on the internet has it; None: none answers."""

    at_s: float
    addresses: frozenset[str] | None
    name: str = APEX
    """of a service, ``@`` for the loadbalancers"""


class Watch:
    """Looks until it is ended; what it saw is in `peers` and `names`."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._end = threading.Event()
        self.peers: list[Peer] = []
        self.names: list[Names] = []
        self._threads = [
            threading.Thread(target=self._watch_peer, args=(host,), daemon=True) for host in region.pool("metadata")
        ]
        # One by one: a nameserver that does not answer makes a name wait, and only that one.
        names = sorted({name for pool in {host.pool for host in region.hosts.values()} for name in names_of(pool)})
        self._threads += [threading.Thread(target=self._watch_name, args=(name,), daemon=True) for name in names]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Look no more. Whoever waits for a host that is gone ends by itself."""
        self._end.set()

    def _watch_peer(self, host: Host) -> None:
        url = f"http://{host.address}:8009/status"
        while not self._end.is_set():
            with contextlib.suppress(RemoteError, ValueError):
                remote = SshRemote(self._region, host.address)
                for line in remote.lines(["python3", "-u", "-c", LOOK, url], timeout_s=SILENT_S):
                    said = json.loads(line)
                    kind = (said.get("lease") or {}).get("kind", "")
                    self.peers.append(Peer(time.monotonic(), host.name, host.shard, said.get("role", "unknown"), kind))
                    if self._end.is_set():
                        return
            self._end.wait(AGAIN_S)

    def _watch_name(self, name: str) -> None:
        asked = self._region.zone if name == APEX else f"{name}.{self._region.zone}"
        while not self._end.wait(DNS_S):
            found: frozenset[str] | None = None
            for server in self._region.pool("nameservice"):
                with contextlib.suppress(OSError, LabError):
                    found = frozenset(resolve(self._region, server.address, asked, namespace="pub")[0])
                    break
            self.names.append(Names(time.monotonic(), found, name))
