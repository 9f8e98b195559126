"""mmkdir: make directories."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command, header_options, headers_of
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("-p", "--parents", action="store_true", help="those above it, too, if they are missing")
    header_options(parser)


def run(call: Call) -> None:
    headers = headers_of(call.options)
    for path in call.options.paths:
        try:
            call.client.mkdir(path, parents=call.options.parents, headers=headers)
        except MobulaError as error:
            call.failures.add(error)


COMMAND = Command("PATH...", "mmkdir -p ~~/stor/books/old", options, run)
