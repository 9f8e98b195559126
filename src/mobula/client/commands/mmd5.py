"""mmd5: show the MD5 of objects, as the service keeps it."""

from __future__ import annotations

import argparse
import base64
import binascii

from mobula.client.commands.command import Call, Command, json_option, parallel_option
from mobula.client.commands.output import say, say_json
from mobula.client.effects import settled
from mobula.client.errors import MobulaError
from mobula.client.operations import info


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    json_option(parser)
    parallel_option(parser, 10)


def run(call: Call) -> None:
    paths = call.options.paths
    for path, found in zip(
        paths, call.client.run(settled([info(p) for p in paths], call.options.parallel)), strict=True
    ):
        if isinstance(found, MobulaError):
            call.failures.add(found)
        elif found.is_directory:
            call.failures.say(f"{path} is a directory; only objects have an MD5")
        elif call.options.json:
            say_json({"path": call.client.session.path(path), "md5": hexadecimal(found.content_md5)})
        else:
            say(f"{hexadecimal(found.content_md5)}  {path}")


def hexadecimal(md5: str) -> str:
    """An MD5 in base64 as md5sum writes it. Pure. Raises MobulaError (InvalidAnswer)."""
    try:
        return base64.b64decode(md5, validate=True).hex()
    except binascii.Error as error:
        raise MobulaError("InvalidAnswer", f"read an MD5: {md5!r} is not base64") from error


COMMAND = Command("PATH...", "mmd5 ~~/stor/books/one ~~/stor/books/two", options, run)
