"""mpipe: put standard input, or a file, as an output of a task."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobula.client.commands.command import Call, Command, header_options, headers_of
from mobula.client.commands.mput import type_of
from mobula.client.commands.output import say
from mobula.client.commands.task import kept, new_name, output_headers, reducer_option


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", metavar="PATH")
    parser.add_argument("-f", "--file", metavar="FILE", help="put this file, not standard input")
    parser.add_argument("-p", "--parents", action="store_true", help="make missing directories")
    reducer_option(parser)
    header_options(parser)


def run(call: Call) -> None:
    wish = call.options
    headers_of(wish)  # refused now, if they are to be refused
    path = call.client.session.path(wish.path or new_name(call.environment))
    if wish.file is not None:
        _put(call, path, Path(wish.file))
    else:
        with kept(sys.stdin.buffer) as file:
            call.failures.note(f"standard input is kept in {file} until it is put")
            _put(call, path, file)
    say(path)


def _put(call: Call, path: str, file: Path) -> None:
    wish = call.options
    headers = headers_of(wish)
    content_type = type_of(None, path, headers) if wish.path else None
    # Of an output without a name nobody but the job knows the directory: it is made.
    call.client.put(
        path, file, content_type=content_type, parents=wish.parents or wish.path is None,
        headers={**headers, **output_headers(wish.reducer)},
    )  # fmt: skip


COMMAND = Command("[PATH]", "mpipe -r 3 ~~/stor/books/sorted < sorted", options, run)
