"""minfo: show the headers of objects and directories."""

from __future__ import annotations

import argparse

from mobula.client.commands.command import Call, Command, header_options, headers_of, json_option
from mobula.client.commands.output import say, say_json
from mobula.client.errors import MobulaError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    json_option(parser)
    header_options(parser, role_tag=False)


def run(call: Call) -> None:
    headers = headers_of(call.options)
    for path in call.options.paths:
        try:
            found = call.client.info(path, headers=headers)
        except MobulaError as error:
            call.failures.add(error)
            continue
        if call.options.json:
            say_json({"path": call.client.session.path(path), **found.headers})
        else:
            for name, value in found.headers.items():
                say(f"{name}: {value}")


COMMAND = Command("PATH...", "minfo -j ~~/stor/books/one", options, run)
