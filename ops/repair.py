"""`mobula repair`: declares a pool lost, follows the workers that bring back what it held, proves that nothing is forgotten.

The state lies in the shards, the work is done on the api hosts: whoever stops this command stops neither, and runs it again to follow on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ops.errors import BadInput
from ops.progress import Progress

POLL_S = 2.0
TELL_PERIOD_S = 5.0
WAITS_S = 60.0
"""nothing was done for so long, and somebody is waited for: the command ends, the repair does not"""
STILL_S = 180.0
"""nothing was done for so long though nobody is waited for: are there workers?"""


class Calls(Protocol):
    """`ops.accounts.Administration`."""

    def call(self, verb: str, payload: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class LostObject:
    path: str
    object_id: str
    size_bytes: int
    copies: int
    """as many as it had"""

    def __str__(self) -> str:
        copies = "its only copy" if self.copies == 1 else f"all {self.copies} copies"
        return f"{self.path}  ({self.size_bytes:,} bytes, {copies}, object {self.object_id})"


@dataclass(frozen=True, slots=True)
class Report:
    """What a repair has come to. `status`: as the verb `repair-status` says it."""

    status: Mapping[str, Any]
    lost: tuple[LostObject, ...]
    note: str
    """what was decided at the beginning, or why the command ended early"""

    @property
    def left(self) -> int:
        return int(self.status["left"])

    @property
    def ok(self) -> bool:
        """Everything is accounted for, and nothing was lost."""
        return self.accounted and not self.lost and not self.status["lost"]

    @property
    def accounted(self) -> bool:
        """The repair is done, and says of every reference what became of it."""
        return bool(self.status["done"]) and not self.left

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        lost = [
            {"path": o.path, "object_id": o.object_id, "bytes": o.size_bytes, "copies": o.copies} for o in self.lost
        ]
        return {"ok": self.ok, "note": self.note, **self.status, "lost_objects": lost}

    def text(self) -> str:
        """For people: what is lost, by name, then the sum."""
        s = self.status
        lines = [f"! lost  {lost}" for lost in self.lost]
        if self.note:
            lines.append(self.note)
        lines += [
            f"pool of {s['server']}, declared lost at {s['declared_at']}: {s['objects']:,} objects ({s['bytes']:,} bytes) referred to it",
            f"  {s['copied']:>12,} brought to another pool, MD5 verified",
            f"  {s['present']:>12,} had a right copy there already (verified)",
            f"  {s['changed']:>12,} were deleted or overwritten meanwhile",
            f"  {s['lost']:>12,} are lost: no copy is left; they answer 410 ObjectLost until they are deleted or written again",
            f"  {s['left']:>12,} remain",
            self._sentence(),
        ]
        return "\n".join(lines)

    def _sentence(self) -> str:
        s = self.status
        total = (
            f"{s['objects']:,} = {s['copied']:,} + {s['present']:,} + {s['changed']:,} + {s['lost']:,} + {s['left']:,}"
        )
        if self.ok:
            return f"done: {total}: every reference is accounted for, nothing is lost"
        if s["done"]:
            return f"done, WITH LOSS: {total}: every reference is accounted for; the lost objects stand above"
        return f"NOT DONE: {total}; run the same command again to follow on"


class Follow:
    """A repair being followed; time is a parameter."""

    def __init__(
        self, calls: Calls, progress: Progress, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._calls = calls
        self._progress = progress
        self._clock = clock
        self._sleep = sleep

    def declare(self, server: str, rate_mb_s: float) -> str:
        """Declare, or go on with the open repair at this rate; why there is nothing to follow, if so.

        Raises:
            OperatorError: the pool is not lost, or the region can't be asked.
        """
        self._progress(f"declare the pool of {server} lost, if it is")
        said = self._calls.call("repair-declare", {"server": server, "bytes_per_s": max(1, int(rate_mb_s * (1 << 20)))})
        if not said["why"]:
            self._progress("declared" if said["declared"] else "its repair was declared before; go on with it")
        return str(said["why"])

    def conclude(self, server: str, note: str) -> Report:
        """Follow it to its end, unless there is nothing to follow. Raises OperatorError: the region can't be asked."""
        note = note or self._follow(server)
        status = self._calls.call("repair-status", {"server": server})
        return Report(status, tuple(self._lost(server, status)), note)

    def _follow(self, server: str) -> str:
        """Until it is done, or nothing moves any more; why the latter."""
        last: tuple[Any, ...] = ()
        changed_s, told_s = self._clock(), float("-inf")
        while True:
            s = self._calls.call("repair-status", {"server": server})
            if s["done"]:
                return ""
            now, seen = self._clock(), (s["shards"], s["objects"], s["left"])
            if seen != last:
                last, changed_s = seen, now
                if now - told_s >= TELL_PERIOD_S:
                    told_s = now
                    self._progress(line(s))
            waits = ", ".join(s["waits_for"])
            if waits and now - changed_s > WAITS_S:
                return f"it waits for {waits}: bring it back with an empty pool (./mobula up), or declare its pool lost, too"
            if now - changed_s > STILL_S:
                return "nothing moves: look at ./mobula status and the log of the workers on the api hosts"
            self._sleep(POLL_S)

    def _lost(self, server: str, status: Mapping[str, Any]) -> list[LostObject]:
        if not status["lost"]:
            return []
        logins = {entry["uuid"]: login for login, entry in self._accounts().items()}
        found = []
        for shard in sorted(map(int, status["shards"])):
            after: list[Any] | None = [-1, "", ""]
            while after is not None:
                page = self._calls.call("repair-lost", {"server": server, "shard": shard, "after": after})
                found += [
                    LostObject(named(o["path"], logins), o["object_id"], o["bytes"], o["copies"]) for o in page["lost"]
                ]
                after = page["next"]
        return sorted(found, key=lambda lost: lost.path)

    def _accounts(self) -> dict[str, dict[str, Any]]:
        return {entry["login"]: entry for entry in self._calls.call("account-list", {})["accounts"]}


def named(path: str, logins: Mapping[str, str]) -> str:
    """A path as clients say it: with the account's login, not its uuid."""
    _, account, rest = path.split("/", 2)
    return f"/{logins.get(account, account)}/{rest}"


def line(s: Mapping[str, Any]) -> str:
    """How far a repair is."""
    listing = [shard for shard, state in s["shards"].items() if state in ("listing", "waiting")]
    if listing:
        return f"shard {', '.join(listing)} still lists; {s['objects']:,} objects so far"
    waits = f"; waits for {', '.join(s['waits_for'])}" if s["waits_for"] else ""
    done = s["objects"] - s["left"]
    return (
        f"{done:,} of {s['objects']:,} objects, {s['done_bytes']:,} of {s['bytes']:,} bytes, {s['lost']:,} lost{waits}"
    )


def check_host(server: str, hosts: Mapping[str, str]) -> None:
    """The host is one of the region's storage hosts. Raises BadInput."""
    if server not in hosts:
        known = ", ".join(sorted(name for name, pool in hosts.items() if pool == "storage")) or "none"
        raise BadInput(f"repair {server!r}: the region has no such host; its storage hosts are {known}")
    if hosts[server] != "storage":
        raise BadInput(f"repair {server!r}: it is not a storage host ({hosts[server]}), so it has no pool of objects")
