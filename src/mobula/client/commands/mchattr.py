"""mchattr: replace the headers that are kept with objects and directories."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command, UsageError, header_options, headers_of
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    header_options(parser)


def run(call: Call) -> None:
    headers = headers_of(call.options)
    if not headers:
        raise UsageError(
            "say which headers to keep, with -H: all others are removed (m-*, CORS, cache-control, role-tag)"
        )
    for path in call.options.paths:
        try:
            call.client.update_metadata(path, headers)
        except MobulaError as error:
            call.failures.add(error)


COMMAND = Command("PATH...", "mchattr -H 'm-author: me' -H 'Content-Type: text/plain' ~~/stor/books/one", options, run)
