"""mcat: have objects be outputs of a task, without touching their bytes."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command
from mobula.client.commands.task import reducer_option
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument(
        "-p", "--port", dest="url", type=local_url, metavar="PORT", help="the storage API is there on this machine, not at MANTA_URL"
    )  # fmt: skip
    reducer_option(parser)


def run(call: Call) -> None:
    # One after the other: in the order in which they are named.
    for path in call.options.paths:
        try:
            call.client.refer(path, reducer=call.options.reducer)
        except MobulaError as error:
            call.failures.add(error)


def local_url(port: str) -> str:
    """The URL of a port of this machine. Pure. Raises ValueError, as argparse wants it."""
    if not 0 < int(port) < 1 << 16:
        raise ValueError(port)
    return f"http://localhost:{int(port)}"


COMMAND = Command("PATH...", "mcat -r 3 ~~/stor/books/one ~~/stor/books/two", options, run)
