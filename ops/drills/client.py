"""One client of a drill: a process in one of the region's networks that asks, and writes down what it was told.

`python -m ops.drills.client < plan`: the first line of its input is a `Plan`. It begins a request each `1 / rate` s whatever has become
of those before (an open loop: whoever is refused slowly is still a client), until a line comes: ``final`` reads every key and directory
once; anything else, or the end of the input (whoever started it is gone), ends it. It says ``ready``, and ``done`` after the last read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from mobula.client.model import Request
from mobula.client.session import Session
from mobula.client.settings import Settings
from mobula.client.signer import find_signer
from mobula.client.tls import Trust
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address, ConnectFailed, RequestFailed, Timeouts
from ops.dns import ask
from ops.drills.history import Kind, Operation, encode

CONNECT_S = 2.0
ANSWER_S = 15.0
"""when a client gives up: beyond the 10 s in which everything has to be answered, so that later answers are seen as such"""
OUTSTANDING_MAX = 300
TRIES = 3
"""loadbalancers that are tried one after the other while no connection comes about: nothing was sent yet"""
RESOLVE_S = 1.0
BAD_S = 3.0
"""how long a loadbalancer is left alone that took no connection"""
MIX: tuple[tuple[Kind | str, float], ...] = (
    ("get", 0.42), ("known", 0.18), ("put", 0.27), ("put_if_match", 0.08), ("delete", 0.05)
)  # fmt: skip


def known_body(path: str) -> bytes:
    """What is in an object that stays as it is."""
    return f"known {path} ".encode() * 8


class Key(msgspec.Struct, frozen=True):
    """An object: its path, and what its directory's shard is called."""

    path: str
    group: str


class Plan(msgspec.Struct, frozen=True):
    """What one client is to do. `nameservers` empty: `addresses` are the loadbalancers, else the name is asked for."""

    name: str
    az: str
    host: str
    account: str
    key_file: str
    ca_file: str
    history: str
    addresses: tuple[str, ...]
    nameservers: tuple[str, ...]
    keys: tuple[Key, ...]
    known: tuple[Key, ...]
    """objects that are there and stay as they are"""
    cold: tuple[Key, ...]
    """likewise, and nobody reads them before the end"""
    rate_per_s: float
    seed: int


class Answer(NamedTuple):
    """What a request came to. `status` 0: no answer, or none that was whole. Names of `fields` are in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes


class Doors:
    """Which loadbalancers there are, and which took no connection lately."""

    def __init__(self, plan: Plan, pick: random.Random) -> None:
        self._plan = plan
        self._pick = pick
        self._addresses = plan.addresses
        self.known = asyncio.Event()
        if plan.addresses:
            self.known.set()
        self._bad_until_s: dict[str, float] = {}

    async def follow(self) -> None:
        """Ask for the name again and again, for ever, one nameserver after the other."""
        while self._plan.nameservers:
            for server in self._plan.nameservers:
                with contextlib.suppress(OSError):
                    found, _ = await asyncio.to_thread(ask, server, self._plan.host, timeout_s=1.0)
                    if found:
                        self._addresses = tuple(sorted(found))
                        self.known.set()
                        break
            await asyncio.sleep(RESOLVE_S)

    def choose(self) -> list[Address]:
        """The loadbalancers in the order in which to try them."""
        now_s = time.monotonic()
        addresses = self._pick.sample(self._addresses, len(self._addresses))
        addresses.sort(key=lambda address: self._bad_until_s.get(address, 0.0) > now_s)
        return [Address(address, 443) for address in addresses[:TRIES]]

    def bad(self, address: Address) -> None:
        """It took no connection."""
        self._bad_until_s[address.host] = time.monotonic() + BAD_S


class Client:
    """The requests of one client."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pick = random.Random(plan.seed)  # noqa: S311 (a drill is repeated by its seed)
        settings = Settings(f"https://{plan.host}", plan.account, plan.key_file, ca_file=plan.ca_file).check()
        self._session = Session(settings, find_signer(settings))
        context = Trust(settings).context
        assert context is not None  # noqa: S101 (https)
        # The address is one of several behind the name; who answers proves it by the region's CA.
        context.check_hostname = False
        self._http = HttpClient(
            timeouts=Timeouts(connect_s=CONNECT_S, response_s=ANSWER_S, idle_s=ANSWER_S), tls=context
        )
        self.doors = Doors(plan, self._pick)
        self._seen: dict[str, tuple[str, str]] = {}
        """etag and MD5 of the last body that was read or written, by path"""
        self._written = 0
        self._log = Path(plan.history).open("ab", buffering=1 << 16)  # noqa: SIM115 (as long as the process)
        self._outstanding: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`, then wait for what is on its way."""
        loop, next_s = asyncio.get_running_loop(), time.monotonic()
        while not stop.is_set():
            if len(self._outstanding) < OUTSTANDING_MAX:
                task = loop.create_task(self._one())
                self._outstanding.add(task)
                task.add_done_callback(self._outstanding.discard)
            next_s = max(next_s + 1 / self._plan.rate_per_s, time.monotonic() - 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.0, next_s - time.monotonic()))
        if self._outstanding:
            await asyncio.wait(self._outstanding, timeout=ANSWER_S + CONNECT_S * TRIES)
        self._log.flush()

    async def final(self) -> None:
        """Read every object and every directory once, as the client `final`."""
        keys = (*self._plan.keys, *self._plan.known, *self._plan.cold)
        directories = {key.path.rpartition("/")[0]: key.group for key in keys}
        todo: list[tuple[Kind, Key]] = [("get", key) for key in keys]
        todo += [("list", Key(path, group)) for path, group in directories.items()]
        for kind, key in todo:
            for _ in range(3):
                if await self._do(kind, key, final=True):
                    break
                await asyncio.sleep(1)
        self._log.flush()

    async def _one(self) -> None:
        kind = self._pick.choices([k for k, _ in MIX], [w for _, w in MIX])[0]
        key = self._pick.choice(self._plan.known if kind == "known" else self._plan.keys)
        await self._do("get" if kind == "known" else kind, key)  # type: ignore[arg-type]

    async def _do(self, kind: Kind, key: Key, *, final: bool = False) -> bool:
        """One operation, recorded; whether the service decided it."""
        body, headers, expected, etag = b"", [], None, ""
        if kind in ("put_if_match", "delete"):
            etag, expected = self._seen.get(key.path, ("", None))
            if not etag:
                kind = "get"
        if etag:
            headers.append(("If-Match", etag))
        if kind in ("put", "put_if_match"):
            self._written += 1
            body = f"{self._plan.name} {self._plan.seed} {self._written} ".encode() * 8
        value = hashlib.md5(body, usedforsecurity=False).hexdigest() if body else None
        method = {"put": "PUT", "put_if_match": "PUT", "delete": "DELETE"}.get(kind, "GET")
        began_s = time.monotonic()
        names: tuple[str, ...] = ()
        answer = Answer(0, {}, b"")

        def sending() -> None:
            # Nothing was sent before: the time for connections that did not come about is the client's own.
            nonlocal began_s
            began_s = time.monotonic()

        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._ask(method, key.path, headers, body, sending, listing=kind == "list")
        except (RequestFailed, TimeoutError) as error:
            sys.stderr.write(f"{time.monotonic():.3f} {kind} {key.path}: {type(error).__name__} {error}\n")
        if kind == "get" and answer.status == 200:
            value = hashlib.md5(answer.body, usedforsecurity=False).hexdigest()
            self._whole(key, answer.fields, value)
            self._seen[key.path] = (answer.fields.get("etag", ""), value)
        elif body and answer.status == 204 and value:
            self._seen[key.path] = (answer.fields.get("etag", ""), value)
        elif kind == "list" and answer.status == 200:
            names = tuple(json.loads(line)["name"] for line in answer.body.splitlines())
        client, az = ("final", "final") if final else (self._plan.name, self._plan.az)
        self._log.write(
            encode(
                Operation(
                    client, az, kind, key.path, value if answer.status == 200 or body else None, began_s, time.monotonic(),
                    answer.status, key.group, expected, names, "retry-after" in answer.fields,
                )
            )
        )  # fmt: skip
        return answer.status not in (0, 503)

    def _whole(self, key: Key, fields: dict[str, str], value: str) -> None:
        """A body that is not what its own header says is not what the service has: nobody wrote it, and the checker will say so."""
        told = fields.get("content-md5")
        if told and base64.b64decode(told).hex() != value:
            sys.stderr.write(f"broken body of {key.path}\n")

    async def _ask(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        sending: Callable[[], None],
        *,
        listing: bool,
    ) -> Answer:
        request = Request(method, path, query=(("limit", "1000"),) if listing else (), headers=tuple(headers))
        target = self._session.target(request)
        fields = [f for f in self._session.headers(request, dt.datetime.now(dt.UTC)) if f[0] != "Host"]
        failure: RequestFailed = ConnectFailed("no loadbalancer is known")
        for address in self.doors.choose():
            sending()
            try:
                # Not repeated behind our back: how long each request takes is what is measured.
                response = await self._http.request(
                    address, method, target, headers=fields, body=body, repeatable=False
                )
            except ConnectFailed as error:
                self.doors.bad(address)
                failure = error
                continue
            async with response:
                said = await response.body()
            return Answer(response.status, {name.lower(): text for name, text in response.headers}, said)
        raise failure


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def _main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    client = Client(plan)
    stop = asyncio.Event()
    following = asyncio.create_task(client.doors.follow())
    await client.doors.known.wait()
    running = asyncio.create_task(client.run(stop))
    _say("ready")
    line = await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await running
    if line.strip() == "final":
        await client.final()
    following.cancel()
    _say("done")


if __name__ == "__main__":
    asyncio.run(_main())
