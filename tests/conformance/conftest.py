"""A standing region, looked at once: machines over testinfra's SSH, services by `ops.status`, files by Ansible's check mode.

Started by `ops.check` inside the region's management namespace; every fixture only reads. Looking is begun for all hosts at once
and judged as it comes in. What a check finds goes to `found`, which fails the check after all of it is told.
"""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import testinfra

from ops import ansible, release, status
from ops.conformance.model import Finding, Machine
from ops.conformance.wanted import question
from ops.region import REPO, Host, Region, load
from ops.remote import Remote, RemoteError, Result

LOOK_TIMEOUT_S = 40
AT_ONCE = 6
"""hosts looked at at the same time; on two cores more only wait for each other"""
SCRIPT = (REPO / "ops" / "facts" / "machine.py").read_text()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--region", help="The region to look at.")
    group.addoption(
        "--machine", action="append", default=[], help="Only checks that this host takes part in; repeatable."
    )
    group.addoption("--events", type=int, help="File descriptor for what happens, as JSON lines.")


class Events:
    """What happens, for `ops.check`: a JSON object a line."""

    def __init__(self, descriptor: int | None) -> None:
        self._out = os.fdopen(descriptor, "w") if descriptor is not None else None

    def say(self, event: str, **values: Any) -> None:
        if self._out:
            self._out.write(json.dumps({"event": event, **values}) + "\n")
            self._out.flush()


EVENTS = pytest.StashKey[Events]()
REGION = pytest.StashKey[Region]()


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--region")
    if name:
        config.stash[EVENTS] = Events(config.getoption("--events"))
        config.stash[REGION] = load(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REGION not in config.stash:
        raise pytest.UsageError("name a region: these checks are for ./mobula check")
    # A check that is repeated for nothing (a storage host's, when none was chosen) would show as skipped.
    items[:] = [item for item in items if "[NOTSET" not in item.name]


def pytest_collection_finish(session: pytest.Session) -> None:
    if EVENTS in session.config.stash:
        session.config.stash[EVENTS].say("collected", checks=len(session.items))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        LAST.append(report)


LAST: list[pytest.TestReport] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    LAST.clear()
    done = yield
    report = LAST[-1] if LAST else None
    outcome, message = "passed", ""
    if report is None or report.outcome != "passed":
        outcome = "failed" if item.stash.get(TOLD, False) else "broken"
        message = why_broken(report) if outcome == "broken" else ""
    of = item.name.partition("[")[2].rstrip("]")
    item.config.stash[EVENTS].say("checked", check=title(item.name), of=of, outcome=outcome, message=message)
    return done


def title(name: str) -> str:
    """A check's name as a sentence."""
    return name.partition("[")[0].removeprefix("test_").replace("_", " ")


def why_broken(report: pytest.TestReport | None) -> str:
    """The exception that kept a check from being made, in a line."""
    crash = getattr(report and report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr if report else "it did not run")
    return " ".join(text.removeprefix("ops.remote.RemoteError: ").split())[-400:]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check is about, and the hosts that take part."""

    name: str
    hosts: tuple[Host, ...]


def subjects(region: Region) -> dict[str, list[Subject]]:
    """By name of the fixture, what checks are repeated for."""
    hosts = sorted(region.hosts.values(), key=lambda h: h.name)
    shards = sorted({h.shard for h in hosts if h.shard})
    return {
        "machine": [Subject(h.name, (h,)) for h in hosts],
        "storage": [Subject(h.name, (h,)) for h in region.pool("storage")],
        "nameserver": [Subject(h.name, (h,)) for h in region.pool("nameservice")],
        "shard": [Subject(str(n), tuple(h for h in hosts if h.shard == n)) for n in shards],
        "ensemble": [Subject("ensemble", tuple(region.pool("nameservice")))],
        "az": [Subject(az, tuple(h for h in hosts if h.az == az)) for az in sorted(region.zones)],
        "layout": [Subject("layout", tuple(hosts))],
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if REGION not in metafunc.config.stash:
        return
    chosen = set(metafunc.config.getoption("--machine"))
    for fixture, all_of in subjects(metafunc.config.stash[REGION]).items():
        if fixture in metafunc.fixturenames:
            of = [s for s in all_of if not chosen or chosen & {h.name for h in s.hosts}]
            metafunc.parametrize(fixture, of, ids=[s.name for s in of])


@pytest.fixture(scope="session")
def region(request: pytest.FixtureRequest) -> Region:
    return request.config.stash[REGION]


@pytest.fixture(scope="session")
def events(request: pytest.FixtureRequest) -> Events:
    return request.config.stash[EVENTS]


@pytest.fixture(scope="session")
def chosen(request: pytest.FixtureRequest, region: Region) -> list[Host]:
    """The hosts that were asked for: all, unless some were named."""
    names = request.config.getoption("--machine") or sorted(region.hosts)
    return [region.hosts[name] for name in names]


@pytest.fixture(scope="session")
def in_background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class SshOfTestinfra:
    """`ops.remote.Remote` by testinfra's SSH: one connection per host, shared with Ansible's."""

    connection: Any

    def run(self, argv: Iterable[str], *, stdin: str | None = None, timeout_s: float, check: bool = True) -> Result:
        script = "exec timeout %s " + " ".join("%s" for _ in argv)
        if stdin is not None:
            script = "printf %%s %s | base64 -d | timeout %s " + " ".join("%s" for _ in argv)
        args = [f"{timeout_s:.0f}", *argv]
        if stdin is not None:
            args.insert(0, base64.b64encode(stdin.encode()).decode())
        try:
            done = self.connection.run(script, *args)
        except RuntimeError as error:  # how testinfra says that ssh itself failed
            stderr = getattr(error.args[0], "stderr", str(error)).strip()
            raise RemoteError(f"reach it by SSH: {stderr.splitlines()[-1] if stderr else 'no message'}") from error
        if check and done.rc:
            why = "silent for too long" if done.rc == 124 else done.stderr.strip()[-300:]
            raise RemoteError(f"run {args[-1][:40]!r}: exit {done.rc}: {why}")
        return Result(done.stdout, done.stderr, done.rc)


@pytest.fixture(scope="session")
def remotes(request: pytest.FixtureRequest, region: Region) -> Mapping[str, Remote]:
    config = request.config.getoption("ssh_config")
    return {
        name: SshOfTestinfra(testinfra.get_host(f"ssh://{host.address}", ssh_config=config, controlpersist=0))
        for name, host in region.hosts.items()
    }


@dataclass
class Machines:
    """Every machine's facts, read once, when they are first asked for or before."""

    remotes: Mapping[str, Remote]
    pool: ThreadPoolExecutor
    events: Events
    _futures: dict[str, Future[Machine]] = field(default_factory=dict)

    def begin(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            if host.name not in self._futures:
                self._futures[host.name] = self.pool.submit(self._read, host)

    def _read(self, host: Host) -> Machine:
        began = time.monotonic()
        packed = base64.b64encode(zlib.compress(SCRIPT.encode())).decode()
        argv = ["python3", "-c", f"import zlib,base64;exec(zlib.decompress(base64.b64decode('{packed}')))"]
        said = self.remotes[host.name].run([*argv, json.dumps(question(host))], timeout_s=LOOK_TIMEOUT_S)
        try:
            found = msgspec.json.decode(said.stdout, type=Machine)
        except msgspec.MsgspecError as error:
            raise RemoteError(f"read what it says of itself: {error}") from error
        self.events.say("looked", host=host.name, seconds=round(time.monotonic() - began, 2))
        return found

    def of(self, host: Host) -> Machine:
        """Raises RemoteError when it can't be read."""
        self.begin([host])
        return self._futures[host.name].result()

    def those_of(self, hosts: Iterable[Host]) -> dict[str, Machine]:
        """Of the hosts that can be read."""
        hosts = list(hosts)
        self.begin(hosts)
        found = {}
        for host in hosts:
            try:
                found[host.name] = self.of(host)
            except RemoteError:
                continue  # whoever judges several says which are missing
        return found


@pytest.fixture(scope="session")
def machines(
    remotes: Mapping[str, Remote], in_background: ThreadPoolExecutor, events: Events, chosen: list[Host]
) -> Machines:
    found = Machines(remotes, in_background, events)
    found.begin(chosen)
    return found


@pytest.fixture
def seen(machine: Subject, machines: Machines) -> Machine:
    """The one machine that a check is about. One that can't be read is no machine that is well: the check is then broken."""
    return machines.of(machine.hosts[0])


@pytest.fixture(scope="session")
def services(region: Region, remotes: Mapping[str, Remote], chosen: list[Host]) -> status.Status:
    """What `mobula status` says, of the chosen hosts and of whole shards."""
    shards = {h.shard for h in chosen if h.shard}
    wanted = {n: h for n, h in region.hosts.items() if h in chosen or h.shard in shards - {0}}
    return status.look(replace(region, hosts=wanted), remotes, release.installed(region))


@pytest.fixture(scope="session")
def rendering(region: Region, chosen: list[Host], events: Events) -> Iterator[Callable[[], ansible.Outcome]]:
    """What Ansible would change on the chosen hosts; begun with the first check, waited for by whoever calls it."""

    def compare() -> ansible.Outcome:
        began = time.monotonic()
        found = ansible.compare(region, "site.yml", [h.name for h in chosen], on_progress=lambda _: None)
        events.say("compared", seconds=round(time.monotonic() - began, 2))
        return found

    with ThreadPoolExecutor(max_workers=1) as one:
        future = one.submit(compare)
        yield future.result


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin the long looks before the first check, those that some check will ask for."""
    needed = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in ("rendering", "machines"):
        if name in needed:
            request.getfixturevalue(name)


TOLD = pytest.StashKey[bool]()


@pytest.fixture
def found(request: pytest.FixtureRequest, events: Events) -> Callable[[Iterable[Finding]], None]:
    """Tell findings; fails the check if there was any."""

    def tell(findings: Iterable[Finding]) -> None:
        told = list(findings)
        for finding in told:
            events.say("finding", check=title(request.node.name), **asdict(finding))
        request.node.stash[TOLD] = bool(told)
        assert not told, "\n".join(f"{f.host}: {f.what} ({f.claim}) -> {f.do}" for f in told)

    return tell


def profile_counts(region: Region) -> dict[str, int]:
    """Hosts of each pool in each AZ, as the region's profile says."""
    path = Path(REPO / "terraform" / "profiles" / f"{region.profile}.tfvars.json")
    values = json.loads(path.read_text())
    return {**values["pools"], "nameservice": 1, "metadata": values["shards"]}
