"""mls: list directories."""

from __future__ import annotations

import argparse
import datetime as dt

from mobula.client.commands.command import Call, Command, json_option
from mobula.client.commands.output import human_size, say, say_json
from mobula.client.errors import MobulaError
from mobula.client.model import Entry, Info
from mobula.client.tree import Listing
from mobula.core.dates import iso_ms

KINDS = {"d": "directory", "o": "object"}
HALF_YEAR = dt.timedelta(days=182)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", default=["~~/stor"], metavar="PATH")
    parser.add_argument("-l", "--long", action="store_true", help="type, copies, owner, size and time, too")
    parser.add_argument("-h", "--human-readable", action="store_true", help="sizes with units")
    json_option(parser)
    parser.add_argument("--fulljson", action="store_true", help="JSON with the directory that each entry is in")
    parser.add_argument("-t", "--time", action="store_true", help="newest first")
    parser.add_argument("-r", "--reverse", action="store_true", help="the other way round")
    parser.add_argument("--type", choices=KINDS, help="only directories, only objects")
    parser.add_argument("-m", "--marker", metavar="NAME", help="begin here: a name, or with -t an ISO time")


def run(call: Call) -> None:
    wish = call.options
    listing = Listing(wish.marker, by_mtime=wish.time, reverse=wish.reverse, only=KINDS.get(wish.type))
    for path in wish.paths:
        try:
            _list(call, path, listing)
        except MobulaError as error:
            call.failures.add(error)


def _list(call: Call, path: str, listing: Listing) -> None:
    now = dt.datetime.now(dt.UTC)
    try:
        for entry in call.client.list_directory(path, listing):
            _show(call, entry, path, now)
    except MobulaError as error:
        if error.code != "NotDirectory":
            raise
        _show(call, entry_of(call.client.info(path)), path.rpartition("/")[0], now)


def _show(call: Call, entry: Entry, directory: str, now: dt.datetime) -> None:
    wish = call.options
    if wish.fulljson:
        say_json({**entry.fields, "parent": call.client.session.path(directory)})
    elif wish.json:
        say_json(entry.fields)
    elif wish.long:
        say(long_line(entry, call.client.session.settings.account, now, human=wish.human_readable))
    else:
        say(f"{entry.name}/" if entry.is_directory else entry.name)


def long_line(entry: Entry, owner: str, now: dt.datetime, *, human: bool) -> str:
    """An entry as ls -l would have it, with copies where ls has links. Pure."""
    mode = "drwxr-xr-x" if entry.is_directory else "-rwxr-xr-x"
    size = human_size(entry.size_bytes) if human else str(entry.size_bytes)
    recent = abs(now - entry.mtime) < HALF_YEAR
    when = entry.mtime.strftime("%b %d %H:%M" if recent else "%b %d  %Y")
    name = f"{entry.name}/" if entry.is_directory else entry.name
    return f"{mode} {entry.copies or 1} {owner} {size:>12} {when} {name}"


def entry_of(found: Info) -> Entry:
    """An object as its directory would list it. Pure."""
    mtime = found.mtime or dt.datetime.fromtimestamp(0, dt.UTC)
    copies = found.headers.get("durability-level", "")
    name = found.path.rstrip("/").rpartition("/")[2]
    fields = {
        "name": name, "type": found.kind, "mtime": iso_ms(mtime), "etag": found.etag, "size": found.size_bytes,
        "contentType": found.content_type, "contentMD5": found.content_md5,
    }  # fmt: skip
    if copies.isdecimal():
        fields["durability"] = int(copies)
    return Entry(
        name, found.kind, mtime, fields, found.etag, found.size_bytes, found.content_type, found.content_md5,
        int(copies) if copies.isdecimal() else 0,
    )  # fmt: skip


COMMAND = Command("[PATH...]", "mls -lt ~~/stor/books", options, run, own="h")
