"""Many clients at once, on the real webapi over two real shards: what is acknowledged is true, and stays so.

MOBULA_LONG=20 makes each test do twenty times as much.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ops.drills.history import Kind, Operation
from ops.drills.linear import linearizable
from tests.probe import shard
from tests.probe.sharded import ShardedRegion
from tests.region.signed import Answer, Client

pytestmark = pytest.mark.probe

LONG = int(os.environ.get("MOBULA_LONG", "1"))
CLIENTS = 8
DIRECTORY = "application/json; type=directory"
ORPHANS = """
SELECT e.directory, e.name FROM metadata.entry e WHERE e.directory !~ '^/[^/]+/stor$' AND NOT EXISTS (
  SELECT FROM metadata.directory d WHERE d.vnode = e.vnode AND d.path = e.directory AND d.state = 'active')
"""
ENTRIES = "SELECT directory || '/' || name AS path FROM metadata.entry WHERE kind = 'directory'"
ROWS = "SELECT path FROM metadata.directory WHERE state = 'active'"
UNFINISHED = "SELECT path FROM metadata.directory WHERE state <> 'active'"


def whole(region: ShardedRegion) -> None:
    """No entry without its directory, no directory that is half there."""
    assert region.sql(ORPHANS) == region.sql(UNFINISHED) == []
    entries, rows = (sorted(str(row["path"]) for row in region.sql(statement)) for statement in (ENTRIES, ROWS))
    assert entries == rows


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedRegion]:
    with shard.shards(2) as running:
        made = ShardedRegion(tmp_path_factory.mktemp("sharded"), shards=running)
        made.start()
        yield made
        made.stop()


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients of one new account, each with a thread."""

    stor: str
    clients: Sequence[Client]
    pool: ThreadPoolExecutor

    def together[T](self, calls: Sequence[Callable[[Client], T]]) -> list[T]:
        """What each call gives; all begin at once."""
        gate = threading.Barrier(len(calls))

        def one(client: Client, call: Callable[[Client], T]) -> T:
            gate.wait(10)
            return call(client)

        return list(self.pool.map(one, self.clients, calls))


@pytest.fixture
def crowd(region: ShardedRegion) -> Iterator[Crowd]:
    login = f"a{uuid.uuid4().hex[:10]}"
    region.add_account(login)
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield Crowd(f"/{login}/stor", [region.client(login) for _ in range(CLIENTS)], pool)


def put(path: str, body: bytes = b"x", **headers: str) -> Callable[[Client], Answer]:
    return lambda client: client.put(path, body, **headers)


def statuses(answers: Sequence[Answer]) -> list[int]:
    return sorted(answer.status for answer in answers)


def test_of_conditional_writers_exactly_one_wins(crowd: Crowd) -> None:
    for number in range(15 * LONG):
        path, etag = f"{crowd.stor}/o{number}", ""
        for condition in ({"If_None_Match": "*"}, {"If_Match": "etag"}, {"If_Match": "etag"}):
            headers = {name: etag if value == "etag" else value for name, value in condition.items()}
            bodies = [f"{number}-{etag}-{client}".encode() for client in range(CLIENTS)]
            answers = crowd.together([put(path, body, **headers) for body in bodies])
            won = [(answer, body) for answer, body in zip(answers, bodies, strict=True) if answer.status == 204]
            assert len(won) == 1, statuses(answers)
            lost = {(a.status, a.json()["code"]) for a in answers if a.status != 204}
            assert lost <= {(412, "PreconditionFailed"), (409, "ConcurrentRequest")}
            etag = won[0][0].headers["etag"]
            found = crowd.clients[0].get(path)
            assert (found.body, found.headers["etag"]) == (won[0][1], etag)


def test_unconditional_writers_all_succeed_and_each_replaced_body_is_garbage_once(
    region: ShardedRegion, crowd: Crowd
) -> None:
    path, rounds = f"{crowd.stor}/o", 8 * LONG
    before = len(region.sql("SELECT object_id FROM metadata.garbage"))
    for number in range(rounds):
        bodies = [f"{number}-{client}".encode() for client in range(CLIENTS)]
        answers = crowd.together([put(path, body) for body in bodies])
        assert statuses(answers) == [204] * CLIENTS
        found = crowd.clients[0].get(path)
        assert (found.body, found.headers["etag"]) in [
            (body, answer.headers["etag"]) for body, answer in zip(bodies, answers, strict=True)
        ]
    garbage = [row["object_id"] for row in region.sql("SELECT object_id FROM metadata.garbage")]
    assert len(garbage) == len(set(garbage)) == before + rounds * CLIENTS - 1


def test_a_directory_is_made_once_by_whoever_comes(crowd: Crowd) -> None:
    def mkdir(path: str) -> Callable[[Client], Answer]:
        return lambda client: client.mkdir(path)

    for number in range(10 * LONG):
        path = f"{crowd.stor}/d{number}"
        assert statuses(crowd.together([mkdir(path)] * CLIENTS)) == [204] * CLIENTS
        assert crowd.clients[0].put(f"{path}/o", b"x").status == 204
    listed = [entry["name"] for entry in crowd.clients[0].list_all(crowd.stor)]
    assert listed == sorted(f"d{number}" for number in range(10 * LONG))


def test_a_removal_and_an_arrival_do_not_both_succeed(region: ShardedRegion, crowd: Crowd) -> None:
    outcomes: set[bool] = set()
    for number in range(250 * LONG):
        path = f"{crowd.stor}/d{number}"
        assert crowd.clients[0].mkdir(path).status == 204
        calls = [lambda client, at=path: client.request("DELETE", at), put(f"{path}/a"), put(f"{path}/b")]
        removed, *arrived = crowd.together(calls)
        came = {name for name, answer in zip("ab", arrived, strict=True) if answer.status == 204}
        gone = removed.status == 204
        outcomes.add(gone)
        assert gone != bool(came), "one of them, and never both"
        assert gone or (removed.status, removed.json()["code"]) == (400, "DirectoryNotEmpty")
        for answer in arrived:
            assert answer.status == 204 or (answer.status, answer.json()["code"]) == (404, "DirectoryDoesNotExist")
        listing = crowd.clients[1].get(path)
        assert listing.status == (404 if gone else 200)
        assert gone or {entry["name"] for entry in listing.lines()} == came
        names = {entry["name"] for entry in crowd.clients[1].list_all(crowd.stor)}
        assert (path.rpartition("/")[2] in names) is not gone
        if number >= 25 * LONG and outcomes == {True, False}:
            break
    assert outcomes == {True, False}, "both came to pass"
    whole(region)


def test_a_list_misses_nothing_that_was_acknowledged_before_it_began(crowd: Crowd) -> None:
    path, stop, written = f"{crowd.stor}/d", threading.Event(), [list[str]() for _ in range(CLIENTS - 2)]
    assert crowd.clients[0].mkdir(path).status == 204

    def write(number: int) -> Callable[[Client], None]:
        def loop(client: Client) -> None:
            source = random.Random(number)  # noqa: S311
            while not stop.is_set():
                name = f"{source.random():.12f}"
                assert client.put(f"{path}/{name}", b"").status == 204
                written[number].append(name)

        return loop

    def read(client: Client) -> None:
        try:
            for _ in range(10 * LONG):
                known = {name for names in written for name in list(names)}
                listed = [entry["name"] for entry in client.list_all(path)]
                assert known <= set(listed)
                assert listed == sorted(set(listed)), "in order, each once"
        finally:
            stop.set()

    crowd.together([*map(write, range(CLIENTS - 2)), read, read])
    client = crowd.clients[0]
    names = {entry["name"] for entry in client.list_all(path)}
    assert names == {name for found in written for name in found}
    assert int(client.get(path).headers["result-set-size"]) == len(names)


def test_no_read_is_stale(crowd: Crowd) -> None:
    """Readers and writers of few names: each history is that of a register."""
    names = ["p", "q", "r"]

    def work(number: int) -> Callable[[Client], list[Operation]]:
        def loop(client: Client) -> list[Operation]:
            source = random.Random(number)  # noqa: S311
            return [one(client, source.choice(names), source.random(), f"{number}-{step}") for step in range(60 * LONG)]

        return loop

    def one(client: Client, name: str, draw: float, body: str) -> Operation:
        path, began_s = f"{crowd.stor}/{name}", time.monotonic()
        kind: Kind = "put" if draw < 0.4 else "delete" if draw < 0.5 else "get"
        answer = client.put(path, body.encode()) if kind == "put" else client.request(kind.upper(), path)
        ended_s = time.monotonic()
        assert answer.status in {"put": {204}, "delete": {204, 404}, "get": {200, 404}}[kind]
        value = body if kind == "put" else answer.body.decode() if answer.status == 200 else None
        return Operation(body.partition("-")[0], "a", kind, name, value, began_s, ended_s, answer.status)

    histories = crowd.together([work(number) for number in range(CLIENTS)])
    history = [operation for operations in histories for operation in operations]
    assert linearizable(history) == []
    for name in names:
        assert sum(o.kind == "get" and o.key == name for o in history) > 50


NAMES = st.sampled_from(["a", "b", "\u00e9"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


class OneClient(RuleBasedStateMachine):
    """Any program of one client, against a dict: object paths have (etag, body), directories None."""

    region: ShardedRegion

    def __init__(self) -> None:
        super().__init__()
        login = f"m{uuid.uuid4().hex[:10]}"
        self.region.add_account(login)
        self.client = self.region.client(login)
        self.stor = f"/{login}/stor"
        self.model: dict[str, tuple[str, bytes] | None] = {}

    def parent_is(self, path: str) -> str:
        above = path.rpartition("/")[0]
        if not above or (above in self.model and self.model[above] is None):
            return "directory"
        return "object" if above in self.model else "nothing"

    def is_directory(self, path: str) -> bool:
        return path in self.model and self.model[path] is None

    def children(self, path: str) -> list[str]:
        names = {p[len(path) + 1 :] if path else p for p in self.model if not path or p.startswith(f"{path}/")}
        return sorted(name for name in names if "/" not in name)

    def expect_parent(self, answer: Answer, path: str) -> bool:
        """Whether the parent lets the write through; if it does not, the answer says why."""
        parent = self.parent_is(path)
        if parent == "directory":
            return True
        code = "ParentNotDirectory" if parent == "object" else "DirectoryDoesNotExist"
        assert answer.json()["code"] == code, answer
        return False

    @rule(
        path=PATHS, body=st.sampled_from([b"", b"one", b"two"]), condition=st.sampled_from(["", "new", "same", "other"])
    )
    def put(self, path: str, body: bytes, condition: str) -> None:
        now = self.model.get(path)
        etag = now[0] if now else str(uuid.uuid4())
        headers = {"": {}, "new": {"If_None_Match": "*"}, "same": {"If_Match": etag}, "other": {"If_Match": "other"}}
        answer = self.client.put(f"{self.stor}/{path}", body, **headers[condition])
        if self.parent_is(path) == "object" and condition in {
            "same",
            "other",
        }:  # conditions are looked at before the parent
            assert answer.json()["code"] == "PreconditionFailed"
            return
        if not self.expect_parent(answer, path):
            return
        if (condition == "new" and now) or (condition == "same" and not now) or condition == "other":
            assert (answer.status, answer.json()["code"]) == (412, "PreconditionFailed")
        elif self.is_directory(path):
            assert answer.json()["code"] == "OperationNotAllowedOnDirectory"
        else:
            assert answer.status == 204, answer
            self.model[path] = (answer.headers["etag"], body)

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        answer = self.client.mkdir(f"{self.stor}/{path}")
        if self.expect_parent(answer, path):
            assert answer.status == 204, answer
            self.model[path] = None

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        answer = self.client.request("DELETE", quote(f"{self.stor}/{path}"))
        if path not in self.model:
            assert answer.status == 404
        elif self.is_directory(path) and self.children(path):
            assert answer.json()["code"] == "DirectoryNotEmpty"
        else:
            assert answer.status == 204, answer
            del self.model[path]

    @rule(source=PATHS, path=PATHS)
    def link(self, source: str, path: str) -> None:
        now = self.model.get(source)
        headers = {"Content-Type": "application/json; type=link", "Location": quote(f"{self.stor}/{source}")}
        answer = self.client.request("PUT", quote(f"{self.stor}/{path}"), None, headers)
        if self.parent_is(path) != "directory" or now is None or self.is_directory(path):
            assert answer.status >= 400, answer
        else:
            assert answer.status == 204, answer
            self.model[path] = now

    @rule(path=PATHS, color=st.sampled_from(["red", "blue"]))
    def update(self, path: str, color: str) -> None:
        answer = self.client.request("PUT", quote(f"{self.stor}/{path}") + "?metadata=true", None, {"m-color": color})
        if path not in self.model:
            assert answer.status == 404
        else:
            assert answer.status == 204, answer
            assert self.client.request("HEAD", quote(f"{self.stor}/{path}")).headers["m-color"] == color

    @rule(path=PATHS)
    def get(self, path: str) -> None:
        answer = self.client.get(f"{self.stor}/{path}")
        if path not in self.model:
            assert answer.status == 404
        elif (now := self.model[path]) is not None:
            assert (answer.status, answer.headers["etag"], answer.body) == (200, *now)

    @rule(path=st.just("") | PATHS, limit=st.integers(1, 4), reverse=st.booleans(), marker=st.none() | NAMES)
    def page(self, path: str, limit: int, reverse: bool, marker: str | None) -> None:
        if path and not self.is_directory(path):
            return
        query = (
            f"?limit={limit}"
            + ("&sort_order=reverse" if reverse else "")
            + (f"&marker={quote(marker)}" if marker else "")
        )
        answer = self.client.request("GET", quote(f"{self.stor}/{path}".rstrip("/")) + query)
        names = self.children(path)
        assert int(answer.headers["result-set-size"]) == len(names)
        if marker is not None:
            names = [name for name in names if (name <= marker if reverse else name >= marker)]
        wanted = (names[::-1] if reverse else names)[:limit]
        lines = answer.lines()
        assert [entry["name"] for entry in lines] == wanted
        for entry in lines:
            now = self.model[f"{path}/{entry['name']}" if path else entry["name"]]
            assert (entry["type"], entry.get("etag")) == (("object", now[0]) if now else ("directory", None))

    def teardown(self) -> None:
        self.client.close()


def test_any_program_of_one_client_is_that_of_a_dict(region: ShardedRegion) -> None:
    class Machine(OneClient):
        pass

    Machine.region = region
    limits: dict[str, Any] = {
        "max_examples": 25 * LONG,
        "stateful_step_count": 30,
        "derandomize": LONG == 1,
        "phases": [Phase.generate],  # a smaller program would take minutes to find
        "database": None,
    }
    run_state_machine_as_test(Machine, settings=settings(suppress_health_check=list(HealthCheck), **limits))  # type: ignore[no-untyped-call]
    whole(region)
    garbage = [row["object_id"] for row in region.sql("SELECT object_id FROM metadata.garbage")]
    assert len(garbage) == len(set(garbage))
