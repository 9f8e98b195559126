"""The watch beside the clients: it goes on whatever a guard or a nameserver says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ops.drills import watch
from ops.drills.watch import Watch
from ops.region import Region
from ops.remote import RemoteError
from tests.drills import region_in

NAMES = {
    "@": "lab.mobula.test", **{n: f"{n}.lab.mobula.test" for n in ("authcache", "ns", "storage", "webapi")},
}  # fmt: skip
GOOD = [
    '{"role": "primary", "lease": {"kind": "primary"}}',
    '{"role": "standby", "lease": null}',
    '{"role": "unknown"}',
]


def test_it_looks_on_after_a_line_that_is_no_json_and_a_host_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = region_in(tmp_path)
    told, all_told = {h.address: 0 for h in region.pool("metadata")}, threading.Event()

    class Remote:
        def __init__(self, _region: Region, address: str) -> None:
            self.address = address

        def lines(self, _argv: Sequence[str], **_bounds: float) -> Iterator[str]:
            told[self.address] += 1
            if told[self.address] == 1:
                yield '{"role": "prim'
            if told[self.address] == 2:
                raise RemoteError("reach it by SSH: no")
            if told[self.address] == 3:
                yield from GOOD
            if min(told.values()) > 3 and {names.name for names in looks.names} == set(NAMES):
                all_told.set()

    asked: set[tuple[str, str]] = set()

    def resolve(_region: Region, server: str, name: str, *, namespace: str) -> tuple[set[str], int]:
        assert namespace == "pub"
        asked.add((server, name))
        if server.startswith("10.77.1."):
            raise OSError("no answer")
        return {"10.77.1.11"}, 5

    monkeypatch.setattr(watch, "SshRemote", Remote)
    monkeypatch.setattr(watch, "resolve", resolve)
    monkeypatch.setattr(watch, "AGAIN_S", 0.001)
    monkeypatch.setattr(watch, "DNS_S", 0.001)
    looks = Watch(region)
    looks.start()
    assert all_told.wait(20)
    looks.end()
    for thread in looks._threads:
        thread.join(20)
        assert not thread.is_alive()
    for host in region.pool("metadata"):
        assert [(p.role, p.kind, p.shard) for p in looks.peers if p.host == host.name] == [
            ("primary", "primary", 1), ("standby", "", 1), ("unknown", "", 1),
        ]  # fmt: skip
    assert {(names.name, names.addresses) for names in looks.names} == {(n, frozenset({"10.77.1.11"})) for n in NAMES}
    # The next one only if the first does not answer.
    assert asked == {(server, name) for server in ("10.77.1.6", "10.77.2.6") for name in NAMES.values()}
