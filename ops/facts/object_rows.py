"""Runs on a metadata host (as its python3's program, standard library only): the answer of psql to standard input, rows sorted.

Rows (lines that begin with ``entry`` or ``garbage``) are sorted by their second field, the object id, and come after all other lines, and
only if psql ended well. `sort` keeps them on disk, so the transaction that reads them is over before anybody waits for a slow reader: an
open one would hold back the shard's vacuum. An empty line says "still at it".
"""

import os
import subprocess
import sys
import time

PSQL = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "mobula", "-h", "/run/postgresql")  # fmt: skip
SORT = ("sort", "--buffer-size=16M", "--temporary-directory=/var/tmp", "--field-separator=\t", "--key=2,2", "--stable")
SIGN_OF_LIFE_S = 2.0


def main() -> None:
    out = sys.stdout.buffer
    environment = {**os.environ, "LC_ALL": "C"}
    said = time.monotonic()
    with (
        subprocess.Popen(sys.argv[1:] or PSQL, stdout=subprocess.PIPE) as psql,
        subprocess.Popen(SORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as sort,
    ):
        assert psql.stdout is not None  # noqa: S101
        assert sort.stdin is not None  # noqa: S101
        assert sort.stdout is not None  # noqa: S101
        for line in psql.stdout:
            (sort.stdin if line.startswith((b"entry\t", b"garbage\t", b"released\t")) else out).write(line)
            if time.monotonic() - said > SIGN_OF_LIFE_S:
                said = time.monotonic()
                out.write(b"\n")
                out.flush()
        sort.stdin.close()
        if psql.wait():
            sort.kill()
            sys.exit(psql.returncode)
        out.flush()
        while chunk := sort.stdout.read(1 << 16):
            out.write(chunk)
    out.flush()
    if sort.returncode:
        sys.exit(f"sort the rows: exit {sort.returncode}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"read the rows: {error}")
