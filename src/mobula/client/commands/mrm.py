"""mrm: remove objects, and trees."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command, parallel_option
from mobula.client.effects import PARALLEL
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("-r", "--recursive", action="store_true", help="directories, with everything below them")
    parser.add_argument("-f", "--force", action="store_true", help="what is not there is no failure")
    parallel_option(parser, PARALLEL)


def run(call: Call) -> None:
    for path in call.options.paths:
        try:
            _remove(call, path)
        except MobulaError as error:
            if not (call.options.force and error.status == 404):
                call.failures.add(error)


def _remove(call: Call, path: str) -> None:
    if call.options.recursive:
        call.client.delete_tree(path, parallel=call.options.parallel)
    elif call.client.info(path).is_directory:
        call.failures.say(f"{path} is a directory; use mrm -r, or mrmdir")
    else:
        call.client.delete(path)


COMMAND = Command("PATH...", "mrm -r ~~/stor/books/old", options, run)
