"""What the tasks of a job of usage reports run: lines of what shards know in, a report of each kind for each account out.

    sort | python3 report_task.py 2026-11-28T05

A line is an account's uuid, a tab, and JSON: {"login", "storage", "requests", "compute"}, each as one shard knows it, null for nothing.
It is an asset of that job (reports.py), so it uses the standard library of the task image alone, and runs on Python 3.9.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

KINDS = ("storage", "requests", "compute")
TRIES = 5
DIRECTORY = "application/json; type=directory"


class Refused(Exception):
    """The storage API did not take a report."""


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add numbers to those of the same name, however deep."""
    for name, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(name, {}), value)
        else:
            into[name] = into.get(name, 0) + value


def reports(lines: Iterable[str], hour: str) -> Iterator[tuple[str, bytes]]:
    """Paths and contents, from lines that are sorted. All in memory is one account's."""
    date, _, number = hour.partition("T")
    below = f"{date.replace('-', '/')}/{number}"
    for account, group in itertools.groupby(lines, lambda line: line.partition("\t")[0]):
        used: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        login = ""
        for line in group:
            said = json.loads(line.partition("\t")[2])
            login = said["login"]
            for kind in KINDS:
                merge(used[kind], said[kind] or {})
        for kind in KINDS:
            if used[kind]:
                report = {
                    "owner": account,
                    "login": login,
                    "date": f"{hour}:00:00.000Z",
                    kind: _shown(kind, used[kind]),
                }
                body = json.dumps(report, sort_keys=True, separators=(",", ":")).encode() + b"\n"
                yield f"/{quote(login, safe='')}/reports/usage/{kind}/{below}/h{number}.json", body


def _shown(kind: str, used: dict[str, Any]) -> dict[str, Any]:
    if kind != "compute":
        return used
    return {
        "tasks": used["tasks"],
        "seconds": used["milliseconds"] / 1000,
        "megabyteSeconds": used["megabyteMilliseconds"] / 1000,
    }


class Store:
    """The storage API; in a sandbox it is on port 80, and knows for whom it is asked."""

    def __init__(self, port: int = 80, headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("localhost", port, timeout=60)
        self._headers = headers or {}

    def put(self, path: str, body: bytes) -> None:
        """An object, and the directories above it. Raises Refused."""
        folder = path.rpartition("/")[0]
        self._make(folder)
        if self._ask(path, body, "application/json") != 204:
            raise Refused(f"put {path}: its directory is gone")

    def close(self) -> None:
        self._connection.close()

    def _make(self, folder: str) -> None:
        if self._ask(folder, b"", DIRECTORY) == 404:
            self._make(folder.rpartition("/")[0])
            self._ask(folder, b"", DIRECTORY)

    def _ask(self, path: str, body: bytes, content_type: str) -> int:
        """204 or 404. Raises Refused."""
        why = ""
        for number in range(TRIES):
            time.sleep(0.5 * (2**number - 1))
            try:
                self._connection.request("PUT", path, body, {**self._headers, "Content-Type": content_type})
                answer = self._connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                why = str(error)
                continue
            if answer.status in (204, 404):
                return answer.status
            why = f"{answer.status} {said[:200].decode(errors='replace')}"
            if answer.status < 500:
                break
        raise Refused(f"put {path}: {why}")


def main() -> int:
    """Exit codes: 0 every report is there, 1 one is not."""
    store, count = Store(), 0
    try:
        for path, body in reports(sys.stdin, sys.argv[1]):
            store.put(path, body)
            count += 1
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{count} reports\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
