"""List, walk, delete directories and all below. Of a tree, only pages and the directories still to be visited are held."""

from __future__ import annotations

import json
from typing import NamedTuple

from mobula.client.effects import PARALLEL, Emit, Operation, Stream, ask, body, together
from mobula.client.errors import MobulaError
from mobula.client.model import Entry, Request
from mobula.client.operations import delete, info
from mobula.core.dates import parse_date

PAGE = 1024
ROUNDS_MAX = 10
_GONE = frozenset({"ResourceNotFound", "DirectoryDoesNotExist"})


class Listing(NamedTuple):
    """How a directory is listed. `by_mtime`: newest first, and `marker` is then an ISO time; `only`: ``object`` or ``directory``.

    `page`, entries per request: 2 to 1024 (the marker is inclusive, so pages of one would not get on).
    """

    marker: str | None = None
    by_mtime: bool = False
    reverse: bool = False
    only: str | None = None
    page: int = PAGE

    def query(self, marker: str | None) -> tuple[tuple[str, str], ...]:
        """Parameters of one page's request."""
        found = [("limit", str(self.page))]
        if self.by_mtime:
            found.append(("sort", "mtime"))
        if self.reverse:
            found.append(("sort_order", "reverse"))
        if self.only:
            found.append(("dir" if self.only == "directory" else "obj", "true"))
        if marker is not None:
            found.append(("marker", marker))
        return tuple(found)

    def marker_of(self, entry: Entry) -> str:
        """Where a page that begins with `entry` begins."""
        return str(entry.fields.get("mtime", "")) if self.by_mtime else entry.name


class Found(NamedTuple):
    """An entry somewhere below a directory. `depth` 1: directly in it."""

    path: str
    entry: Entry
    depth: int


ALL = Listing()


def child_of(path: str, name: str) -> str:
    """The path of an entry. Pure."""
    return f"{path.rstrip('/')}/{name}"


def list_directory(path: str, listing: Listing = ALL) -> Stream[Entry]:
    """The entries of a directory, page by page, none twice."""
    return Stream(_list_all(path, listing))


def _list_all(path: str, listing: Listing) -> Operation[None]:
    marker, at_marker = listing.marker, frozenset[str]()
    while True:
        entries = yield from _page(path, listing, marker)
        fresh = [entry for entry in entries if entry.name not in at_marker]
        for entry in fresh:
            yield Emit(entry)
        if len(entries) < listing.page:
            return
        if not fresh:
            raise MobulaError(
                "InvalidAnswer", f"list {path!r}: more than {listing.page} entries at {marker!r}; list by name instead"
            )
        # The marker is inclusive: the next page begins with those entries again that stand at it, several if sorted by time.
        marker = listing.marker_of(entries[-1])
        at_marker = frozenset(entry.name for entry in entries if listing.marker_of(entry) == marker)


def _page(path: str, listing: Listing, marker: str | None) -> Operation[list[Entry]]:
    request = Request("GET", path, listing.query(marker), (("Accept", "*/*"),))
    answer = yield from ask(request)
    if not answer.headers.get("content-type", "").startswith("application/x-json-stream"):
        raise MobulaError("NotDirectory", f"list {path!r}: it is an object", status=answer.status)
    return read_page((yield from body()), path)


def read_page(data: bytes, path: str) -> list[Entry]:
    """The entries of a page. Pure. Raises MobulaError (InvalidAnswer)."""
    try:
        return [_entry(json.loads(line)) for line in data.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MobulaError("InvalidAnswer", f"list {path!r}: a line of the answer is no entry ({error})") from error


def _entry(fields: dict[str, object]) -> Entry:
    mtime = parse_date(str(fields["mtime"]))
    if mtime is None:
        raise ValueError(f"{fields['mtime']!r} is no time")
    if fields["type"] == "directory":
        return Entry(str(fields["name"]), "directory", mtime, fields)
    return Entry(
        str(fields["name"]), "object", mtime, fields, str(fields.get("etag", "")), int(str(fields.get("size", 0))),
        str(fields.get("contentType", "")), str(fields.get("contentMD5", "")), int(str(fields.get("durability", 0))),
    )  # fmt: skip


def walk(path: str, *, depth_max: int | None = None, parallel: int = PARALLEL) -> Stream[Found]:
    """Everything below a directory, a directory before what is in it; several directories are listed at the same time.

    What disappears meanwhile is passed over; only `path` itself has to be there.
    """
    return Stream(_walk(path, depth_max, parallel))


def _walk(path: str, depth_max: int | None, parallel: int) -> Operation[None]:
    left = [(path, 1)]
    while left:
        batch, left = left[-parallel:], left[:-parallel]
        pages = yield from together([_page_if_there(p, ALL, None, required=p == path) for p, _ in batch], parallel)
        for (directory, depth), first in zip(batch, pages, strict=True):
            entries, marker = first, None
            while entries:
                for entry in entries:
                    if entry.name == marker:
                        continue
                    found = Found(child_of(directory, entry.name), entry, depth)
                    yield Emit(found)
                    if entry.is_directory and (depth_max is None or depth < depth_max):
                        left.append((found.path, depth + 1))
                if len(entries) < ALL.page:
                    break
                marker = entries[-1].name
                entries = yield from _page_if_there(directory, ALL, marker, required=False)


def _page_if_there(path: str, listing: Listing, marker: str | None, *, required: bool) -> Operation[list[Entry]]:
    try:
        return (yield from _page(path, listing, marker))
    except MobulaError as error:
        if required or error.code not in _GONE | {"NotDirectory"}:
            raise
        return []


def delete_tree(path: str, *, parallel: int = PARALLEL) -> Operation[int]:
    """Remove a directory with everything below it, or an object; returns how many entries went. What others remove meanwhile is no error.

    Raises:
        MobulaError: also DirectoryNotEmpty: somebody keeps on adding.
    """
    if not (yield from info(path)).is_directory:
        yield from delete(path)
        return 1
    removed, rounds = 0, dict[str, int]()
    levels = [[path]]  # directories to be emptied; those of a level have theirs in the next one
    while levels:
        batch = levels[-1][-parallel:]
        pages = yield from together([_page_if_there(p, ALL, None, required=False) for p in batch], parallel)
        objects, below, empty = [], [], []
        for directory, entries in zip(batch, pages, strict=True):
            inner = [child_of(directory, e.name) for e in entries if e.is_directory]
            objects += [child_of(directory, e.name) for e in entries if not e.is_directory]
            below += inner
            if not inner and len(entries) < PAGE:
                empty.append(directory)
        removed += sum((yield from together([_delete_if_there(p) for p in objects], parallel)))
        gone = yield from together([_rmdir(p, rounds) for p in empty], parallel)
        removed += sum(gone)
        done = {p for p, went in zip(empty, gone, strict=True) if went}
        levels[-1] = [p for p in levels[-1] if p not in done]
        if below:
            levels.append(below)
        while levels and not levels[-1]:
            levels.pop()
    return removed


def _delete_if_there(path: str) -> Operation[int]:
    try:
        yield from delete(path)
    except MobulaError as error:
        if error.code not in _GONE:
            raise
        return 0
    return 1


def _rmdir(path: str, rounds: dict[str, int]) -> Operation[int]:
    """1 if the directory is gone now; 0 if it has to be emptied once more."""
    try:
        yield from delete(path)
    except MobulaError as error:
        if error.code == "DirectoryNotEmpty":
            rounds[path] = rounds.get(path, 0) + 1
            if rounds[path] < ROUNDS_MAX:
                return 0
        if error.code not in _GONE:
            raise
    return 1
