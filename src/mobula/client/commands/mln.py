"""mln: make a snaplink."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command, header_options, headers_of


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--parents", action="store_true", help="make missing directories")
    header_options(parser)


def run(call: Call) -> None:
    wish = call.options
    call.client.link(call.client.session.path(wish.source), wish.path, parents=wish.parents, headers=headers_of(wish))


COMMAND = Command("SOURCE PATH", "mln ~~/stor/books/one ~~/stor/books/one.2026-11-25", options, run)
