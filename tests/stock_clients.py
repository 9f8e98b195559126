"""Stock Manta clients and raw signed requests; a live region called `test` (or MOBULA_TEST_REGION), or with --local something smaller.

Nothing here starts the region: `make test` does, and a standing one can be used again and again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.region import CACHE, REPO, Region, load
from tests.region.signed import Client

CLIENT_VERSION = "5.4.2"
Output = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands that begin with `prefix`, in exactly this environment; the caller looks at the exit code."""

    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()

    def lines(self, *argv: str, stdin: bytes = b"", cwd: Path | None = None) -> list[str]:
        """What a command printed that must succeed."""
        said = self(*argv, stdin=stdin, cwd=cwd)
        assert said.returncode == 0, said
        return said.stdout.splitlines()

    def __call__(
        self,
        *argv: str,
        stdin: bytes = b"",
        timeout_s: float = 120,
        cwd: Path | None = None,
        variables: Mapping[str, str] = {},
    ) -> Output:
        """Output as text, byte for byte: text mode would turn a carriage return in a name into a newline."""
        done = subprocess.run(
            [*self.prefix, *argv], env={**self.environment, **variables}, input=stdin, capture_output=True, check=False,
            timeout=timeout_s, cwd=cwd,
        )  # fmt: skip
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Output(done.args, done.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where clients go, and as whom."""

    environment: Mapping[str, str]
    """what `./mobula env` says, nothing else: it must be enough for any client"""
    port: int
    private_pem: bytes
    """the demo account's RSA key"""


@pytest.fixture(scope="session")
def region() -> Region:
    found = load(os.environ.get("MOBULA_TEST_REGION", "test"))
    assert found.hosts, f"region {found.name!r} is not up; run ./mobula -R {found.name} up --profile small"
    return found


@pytest.fixture(scope="session")
def mobula(region: Region) -> Shell:
    """Run the operator's command on the region."""
    return Shell(os.environ, (str(REPO / "mobula"), "-R", region.name))


@pytest.fixture(scope="session")
def region_endpoint(region: Region, mobula: Shell) -> Endpoint:
    said = mobula("env", "--json")
    assert said.returncode == 0, said.stderr
    values: dict[str, str] = json.loads(said.stdout)
    return Endpoint(values, region.relay_port, (region.secrets / "demo.pem").read_bytes())


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """The region's, or with --local that of the suite's own webapi (only tests/compat has one)."""
    local = request.config.getoption("--local")
    found: Endpoint = request.getfixturevalue("local_endpoint" if local else "region_endpoint")
    return found


@pytest.fixture(scope="session")
def environment(endpoint: Endpoint) -> dict[str, str]:
    """The environment of any client."""
    return dict(endpoint.environment)


@pytest.fixture(scope="session")
def client_bin() -> Path:
    """Folder of the stock Manta commands; npm puts no links to them anywhere."""
    prefix = CACHE / "npm" / f"manta-{CLIENT_VERSION}"
    with once(prefix) as missing:
        if missing:
            options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(prefix)]
            install(["npm", "install", *options, f"manta@{CLIENT_VERSION}"])
    return prefix / "node_modules" / "manta" / "bin"


@pytest.fixture(scope="session")
def mantash_bin() -> Path:
    """Folder of PyPI's `mantash`, in a Python environment of its own: its pins and ours have nothing to do with each other."""
    pins = [REPO / "requirements" / name for name in ("mantash-build.txt", "mantash.txt")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()[:12]
    venv = CACHE / "mantash" / digest
    with once(venv) as missing:
        if missing:
            install([sys.executable, "-m", "venv", str(venv)])
            # What builds its sdist is pinned, too, so it must be there before; what it says it needs, it can't use (decisions/0007).
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--require-hashes", "--no-deps"]
            for path in pins:
                install([*pip, "--no-build-isolation", "-r", str(path)])
    return venv / "bin"


@contextlib.contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether the body has to fill `folder`; what a body that failed left there is removed, two at once wait for each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        complete.touch()


def install(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def manta(endpoint: Endpoint, client_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run one stock command in a shell that has nothing but PATH, the region's environment and an empty home."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()  # the stock client lists it before it asks the agent
    path = f"{client_bin}:{os.environ['PATH']}"
    return Shell({"HOME": str(home), "LC_ALL": "C.UTF-8", **endpoint.environment, "PATH": path})


@pytest.fixture(scope="session")
def demo(endpoint: Endpoint) -> Iterator[Client]:
    """Raw requests signed by the demo account's key."""
    with contextlib.closing(Client(endpoint.port, "demo", endpoint.private_pem)) as client:
        yield client


@pytest.fixture
def folder(demo: Client) -> Iterator[str]:
    """A directory of the test's own under /demo/stor, removed with all in it afterwards."""
    with directory(demo) as path:
        yield path


@contextlib.contextmanager
def directory(demo: Client) -> Iterator[str]:
    """A new directory under /demo/stor, removed with all in it afterwards."""
    path = f"/demo/stor/test-{uuid.uuid4()}"
    assert demo.mkdir(path).status == 204
    yield path
    demo.remove_tree(path)
