"""mlogin: have a terminal where an object is stored. It is a task of a job like any other; what is typed goes there through the service.

Exit codes: the command's (128 + N if signal N ended it), once it has run; else those of every command. 130: it was left by ~. or a signal.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mobula.client.commands import job_document
from mobula.client.commands.command import Call, Command, UsageError
from mobula.client.escapes import ESCAPE, NONE
from mobula.core import medusa

NAME = "interactive compute job"
SHELL = "bash --norc"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("object", nargs="?", metavar="OBJECT")
    parser.add_argument("-c", "--command", default=SHELL, metavar="COMMAND", help=f"run this there ({SHELL})")
    parser.add_argument(
        "-s", "--asset", "--assets", action="append", default=[], metavar="PATH",
        help="an object to have below /assets; may come several times",
    )  # fmt: skip
    parser.add_argument("--init", metavar="COMMAND", help="run this before")
    parser.add_argument("--memory", type=int, metavar="MB", help="memory of the task (1024)")
    parser.add_argument("--disk", type=int, metavar="GB", help="disk of the task (8)")
    parser.add_argument("--image", metavar="VERSION", help="version of the image")
    parser.add_argument("-q", "--quiet", action="store_true", help="don't say how far it is")
    parser.add_argument(
        "-e", "--escape", default=ESCAPE, metavar="CHAR", help=f"begins an escape, {ESCAPE} if not given; or {NONE}"
    )


def run(call: Call) -> None:
    """Ends by SystemExit, with the command's exit code, if it has run."""
    wish = call.options
    if wish.escape != NONE and (len(wish.escape) != 1 or not "!" <= wish.escape <= "~"):
        raise UsageError(f"use the escape {wish.escape!r}: it is one printable character, or {NONE}")
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        call.failures.say(
            "log in: standard input and output have to be a terminal; mjob create -o -r COMMAND runs one without"
        )
        return
    document = job_document.encode(_document(call))
    if wish.object is not None and call.client.info(wish.object).is_directory:
        call.failures.say(f"log in: {wish.object} is a directory; name an object, or nothing")
        return
    from mobula.client.commands.mlogin_session import log_in  # noqa: PLC0415 (with asyncio 70 ms, of which help needs nothing)

    code = log_in(call, call.client.create_job(document))
    if code is not None:
        raise SystemExit(code)


def _document(call: Call) -> dict[str, Any]:
    """Raises MobulaError (InvalidPath)."""
    wish = call.options
    kind = "reduce" if wish.object is None else "map"
    steps = [job_document.Step("asset", path, "-s") for path in wish.asset]
    steps += [
        job_document.Step(name, value, f"--{name}")
        for name in ("init", "memory", "disk", "image")
        if (value := getattr(wish, name)) is not None
    ]
    phases = job_document.phases_of([*steps, job_document.Step(kind, medusa.AGENT, "")], ())
    return job_document.document_of(phases, NAME, call.client.session.path)


COMMAND = Command("[OBJECT]", "mlogin ~~/stor/books/one", options, run)
