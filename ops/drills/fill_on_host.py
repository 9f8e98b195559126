"""Runs on a storage host (as its python3's program, standard library only): fills its pool, empties it, says how full it is.

argv: a verb, the data directory, its dataset. The pool's room is reserved for a dataset of the drill's own: that is done at once, to the
byte, costs no disk, and is undone by one command. Some of the data directory is filled for real before, so that a file which goes
meanwhile (a segment of the log) leaves no room that would count. Says JSON:

    fill    {"filled_percent"}
    empty   the same, after undoing whatever `fill` has done, by half or not at all
    look    {"filled_percent"}: as statvfs has it, which is what the object server goes by; {"younger"}: object files that have come
            since `empty`
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

BALLAST = "tmp/drill-full"
"""where uploads are that are on their way: a start of the object server removes it as well"""
BALLAST_BYTES = 16 << 20
PIECE_BYTES = 1 << 20
LEFT = 50
"""a so-manieth of what is used stays free"""
TRIES = 5
AGAIN_S = 1.0
EMPTIED = Path("/run/mobula/drill-emptied")
"""made when it was emptied"""
ACCOUNT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def zfs(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["zfs", *argv], capture_output=True, text=True, check=False)


def reserved(dataset: str) -> str:
    """The dataset that takes the room of the pool."""
    return f"{dataset.partition('/')[0]}/drill-full"


def fill(root: Path, dataset: str) -> None:
    """Exits with a sentence if ZFS refuses."""
    with (root / BALLAST).open("wb") as file:
        for _ in range(BALLAST_BYTES // PIECE_BYTES):
            file.write(os.urandom(PIECE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    done = zfs(
        "create", "-o", "mountpoint=none", reserved(dataset)
    )  # and what was written before is counted from here on
    for _ in range(TRIES):
        asked = zfs("get", "-Hp", "-o", "value", "referenced,available", dataset)
        if not asked.returncode:
            used_bytes, free_bytes = map(int, asked.stdout.split())
            done = zfs("set", f"refreservation={free_bytes - used_bytes // LEFT}", reserved(dataset))
            if not done.returncode:
                return
        time.sleep(AGAIN_S)  # somebody has just taken some of it
    sys.exit(f"fill the pool: {(asked.stderr or done.stderr).strip()}")


def empty(root: Path, dataset: str) -> None:
    """Exits with a sentence if ZFS refuses."""
    done = zfs("destroy", reserved(dataset))
    if done.returncode and "does not exist" not in done.stderr:
        sys.exit(f"empty the pool: {done.stderr.strip()}")
    with contextlib.suppress(FileNotFoundError):
        (root / BALLAST).unlink()
    EMPTIED.touch()


def filled_percent(root: Path) -> int:
    found = os.statvfs(root)
    return 100 - 100 * found.f_bavail // found.f_blocks


def younger(root: Path) -> int:
    """Object files that have come since the pool was emptied."""
    if not EMPTIED.exists():
        return 0
    since_ns, count = EMPTIED.stat().st_mtime_ns, 0
    for account in root.iterdir():
        for file in account.iterdir() if ACCOUNT.fullmatch(account.name) else ():
            with contextlib.suppress(FileNotFoundError):
                count += file.stat().st_ctime_ns > since_ns
    return count


def main(verb: str, root: Path, dataset: str) -> dict[str, int]:
    if verb == "fill":
        fill(root, dataset)
    elif verb == "empty":
        empty(root, dataset)
    found = {"filled_percent": filled_percent(root)}
    return {**found, "younger": younger(root)} if verb == "look" else found


if __name__ == "__main__":
    try:
        said = main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    except OSError as error:
        sys.exit(f"{sys.argv[1]} the pool: {error}")
    sys.stdout.write(json.dumps(said))
