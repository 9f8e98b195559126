"""mtee: copy standard input to standard output, and put it. In a task the object is no output: what went to standard output still is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from mobula.client.commands.command import Call, Command, header_options, headers_of, positive
from mobula.client.commands.mput import chunks_of, type_of
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("-c", "--copies", type=positive, metavar="N", help="keep so many copies (2)")
    header_options(parser)


def run(call: Call) -> None:
    wish = call.options
    headers = headers_of(wish)
    copied = _copied()
    try:
        call.client.put(
            wish.path, copied, copies=wish.copies, content_type=type_of(None, wish.path, headers), headers=headers
        )
    except MobulaError as error:
        call.failures.add(error)
    for _ in copied:  # what is left when the put failed: whoever reads standard output is to have all of it
        pass


def _copied() -> Iterator[bytes]:
    for chunk in chunks_of(sys.stdin.buffer):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        yield chunk


COMMAND = Command("PATH", "mtee ~~/stor/books/one < one | wc -l", options, run)
