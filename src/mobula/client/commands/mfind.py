"""mfind: find objects and directories below a directory."""

from __future__ import annotations

import argparse
import re

from mobula.client.commands.command import Call, Command, UsageError, json_option, parallel_option, pattern_of
from mobula.client.commands.output import say, say_json
from mobula.client.effects import PARALLEL
from mobula.client.errors import MobulaError
from mobula.client.tree import Found

UNITS = {"": 1, "c": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
KINDS = {"d": "directory", "o": "object"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", default=["~~/stor"], metavar="PATH")
    parser.add_argument("-n", "--name", metavar="REGEX", help="only those whose name has a match")
    parser.add_argument("-s", "--size", metavar="SIZE", help="only objects of at least that size: 1500, 10k, 2m, 1g")
    parser.add_argument("-t", "--type", choices=KINDS, help="only directories, only objects")
    parser.add_argument("--mindepth", type=int, default=1, metavar="N", help="only those so deep; 1 is directly in it")
    parser.add_argument("--maxdepth", type=int, metavar="N", help="no deeper")
    json_option(parser)
    parallel_option(parser, PARALLEL)


def run(call: Call) -> None:
    wish = call.options
    name = pattern_of(wish.name or "")
    size_bytes = parse_size(wish.size) if wish.size else None
    for path in wish.paths:
        try:
            for found in call.client.walk(path, depth_max=wish.maxdepth, parallel=wish.parallel):
                if found.depth >= wish.mindepth and matches(found, name, size_bytes, KINDS.get(wish.type)):
                    _show(call, found)
        except MobulaError as error:
            call.failures.add(error)


def matches(found: Found, name: re.Pattern[str], size_bytes: int | None, kind: str | None) -> bool:
    """The entry is among those looked for. Pure."""
    entry = found.entry
    return (
        (kind is None or entry.kind == kind)
        and (size_bytes is None or (not entry.is_directory and entry.size_bytes >= size_bytes))
        and name.search(entry.name) is not None
    )


def _show(call: Call, found: Found) -> None:
    path = call.client.session.path(found.path)
    if call.options.json:
        say_json({**found.entry.fields, "path": path, "depth": found.depth})
    else:
        say(path)


def parse_size(text: str) -> int:
    """Bytes of ``10k``. Pure. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,15})([ckmgt]?)", text.lower(), re.ASCII)
    if match is None:
        raise UsageError(f"use the size {text!r}: a number, and c, k, m, g or t, as in 10k")
    return int(match[1]) * UNITS[match[2]]


COMMAND = Command("[PATH...]", r"mfind -t o -n '\.log$' -s 10m ~~/stor", options, run)
