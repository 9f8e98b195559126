"""mrmdir: remove empty directories."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")


def run(call: Call) -> None:
    for path in call.options.paths:
        try:
            if call.client.info(path).is_directory:
                call.client.delete(path)
            else:
                call.failures.say(f"{path} is not a directory; use mrm")
        except MobulaError as error:
            call.failures.add(error)


COMMAND = Command("PATH...", "mrmdir ~~/stor/books/old", options, run)
