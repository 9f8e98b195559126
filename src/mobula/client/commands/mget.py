"""mget: get objects. A download that breaks goes on where it stopped, a file's even in a later call; length and MD5 are checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mobula.client.commands.command import Call, Command, UsageError, header_options, headers_of, parallel_option
from mobula.client.commands.partial_file import to_file
from mobula.client.commands.progress import Bar
from mobula.client.commands.workers import run_all
from mobula.client.model import Info
from mobula.client.sync import Client


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    to = parser.add_mutually_exclusive_group()
    to.add_argument("-o", "--output", metavar="FILE", help="into this file; without, to standard output")
    to.add_argument("-O", "--remote-name", action="store_true", help="each into a file of its own name, here")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    header_options(parser, role_tag=False)
    parallel_option(parser, 4)


def run(call: Call) -> None:
    wish = call.options
    headers = headers_of(wish)
    with Bar(wish.paths[0] if len(wish.paths) == 1 else f"{len(wish.paths)} objects", None, quiet=wish.quiet) as bar:
        if wish.remote_name:
            targets = {name_of(path): path for path in wish.paths}
            if len(targets) < len(wish.paths):
                raise UsageError("get into files of their own names: two of them have the same")
            jobs = (partial(to_file, call.client, path, Path(name), headers, bar) for name, path in targets.items())
            run_all(jobs, min(wish.parallel, len(targets)), call.failures)
        elif wish.output is not None and len(wish.paths) == 1:
            to_file(call.client, wish.paths[0], Path(wish.output), headers, bar)
        elif wish.output is not None:
            raise UsageError("get several objects: one file can't hold them; use -O, or standard output")
        else:
            for path in wish.paths:
                _copy(call.client, path, sys.stdout.buffer, headers, bar)


def name_of(path: str) -> str:
    """The last name of a path. Pure. Raises UsageError."""
    name = path.rstrip("/").rpartition("/")[2]
    if name in {"", ".", "..", "~~"} or "\0" in name:
        raise UsageError(f"get {path!r} into a file of its own name: it has none that can be a file's")
    return name


def _copy(client: Client, path: str, file: BinaryIO, headers: Mapping[str, str], bar: Bar) -> None:
    def begun(found: Info) -> None:
        bar.expect(found.size_bytes)

    for chunk in client.get(path, headers=headers, begun=begun):
        file.write(chunk)
        bar.add(len(chunk))
    file.flush()


COMMAND = Command("PATH...", "mget -O ~~/stor/books/one ~~/stor/books/two", options, run)
