"""msign: sign URLs that anybody can use for a while."""

from __future__ import annotations

import argparse
import re
import time

from mobula.client.commands.command import Call, Command, UsageError, json_option, role_tag_option, roles_of
from mobula.client.commands.output import say, say_json

HOUR_S = 3600
UNITS_S = {"s": 1, "m": 60, "h": HOUR_S, "d": 24 * HOUR_S, "w": 7 * 24 * HOUR_S, "y": 365 * 24 * HOUR_S}
METHODS = {"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("-e", "--expires", type=int, metavar="EPOCH", help="until then, in seconds since 1970")
    when.add_argument(
        "-E", "--expires-in", "--expires-relative", metavar="TIME", help="for so long: 30s, 10m, 1h (usual), 7d, 1y"
    )
    parser.add_argument("-m", "--method", action="append", metavar="METHOD", help="GET; may come several times")
    parser.add_argument("-g", "--algorithm", metavar="NAME", help="refuse to sign with another one, as in RSA-SHA256")
    role_tag_option(parser, "roles to tag with what is put by it")
    json_option(parser)


def run(call: Call) -> None:
    wish = call.options
    expires_s = int(time.time()) + parse_time(wish.expires_in or "1h") if wish.expires is None else wish.expires
    parameters = [
        (name, value) for name, value in (("role", roles_of(wish.role)), ("role-tag", roles_of(wish.role_tag))) if value
    ]
    found = call.client.session.algorithm
    if wish.algorithm and wish.algorithm.upper() != found:
        raise UsageError(f"sign with {wish.algorithm}: the key of MANTA_KEY_ID makes {found}; use that, or another key")
    methods = ",".join(wish.method or ["GET"]).upper().split(",")
    if not set(methods) <= METHODS:
        raise UsageError(f"sign for {', '.join(methods)}: choose from {', '.join(sorted(METHODS))}")
    for path in wish.paths:
        url = call.client.sign_url(path, expires_s=expires_s, methods=methods, parameters=parameters)
        if wish.json:
            say_json({"path": call.client.session.path(path), "url": url, "expires": expires_s})
        else:
            say(url)


def parse_time(text: str) -> int:
    """Seconds of ``10m``. Pure. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,9})([smhdwy]?)", text, re.ASCII)
    if match is None:
        raise UsageError(f"use the time {text!r}: a number, and s, m, h, d, w or y, as in 10m")
    return int(match[1]) * UNITS_S[match[2] or "s"]


COMMAND = Command("PATH...", "msign -E 1d -m GET ~~/stor/books/one", options, run)
