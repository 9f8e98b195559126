"""What a command is, and how any of them runs: options, environment, client, exit code.

Exit codes: 0 all was done; 1 something was refused or failed, and standard error says what; 2 the command line or the environment
can't be used; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from mobula.client.commands import COMMANDS
from mobula.client.commands.output import Failures, columns
from mobula.client.errors import MobulaError
from mobula.client.session import USER_AGENT
from mobula.client.settings import Settings, from_environment
from mobula.client.sync import Client

DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
ENVIRONMENT = """environment: MANTA_URL, MANTA_USER, MANTA_KEY_ID (fingerprint or path of a private key), MANTA_SUBUSER,
MANTA_ROLE, MANTA_NO_AUTH, MANTA_TLS_INSECURE, MANTA_CA_FILE, NODE_EXTRA_CA_CERTS, SSH_AUTH_SOCK. ~~ in a path is your account.
"""
EXIT_CODES = "exit codes: 0 done, 1 something failed, 2 can't be understood, 130 interrupted"


class Call(NamedTuple):
    """One call of a command."""

    options: argparse.Namespace
    client: Client
    failures: Failures
    environment: Mapping[str, str]


class Command(NamedTuple):
    """`usage`: what follows the options. `example`: a line to type. `own`: letters that are not here what they are in other commands.

    `does` is a subcommand's line of help. `below` are a command's subcommands, by name.
    """

    usage: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Call], None]
    own: str = ""
    does: str = ""
    below: Mapping[str, Command] = MappingProxyType({})


class Filter(NamedTuple):
    """A command that asks the service for nothing, and so has no account and no key."""

    usage: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Failures], None]


class UsageError(Exception):
    """Options that don't go together; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command whose name the program was called by. For console scripts and `python -m mobula.client.commands NAME ...`."""
    words = list(sys.argv if argv is None else argv)
    name = os.path.basename(words[0])  # noqa: PTH119 (pathlib is slower, and nothing else needs it here)
    try:
        code = run(name, words[1:], os.environ)
    except SystemExit as end:  # argparse: help was asked for, or is needed
        code = int(end.code or 0)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or FAILED
    except OSError as error:  # the disk that it goes to is full
        Failures(name).say(f"write to standard output: {error.strerror}")
        code = code or FAILED
    # Not by SystemExit: taking all modules apart again takes 10 ms, and there is nothing left to be done.
    os._exit(code)


def run(name: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; returns its exit code."""
    if name not in COMMANDS:
        Failures("mobula").say(f"no command {name!r}; there are {', '.join(COMMANDS)}")
        return UNUSABLE
    found: Command | Filter = import_module(f"mobula.client.commands.{name}").COMMAND
    name, command, words = choose(name, found, words)
    parser = parser_of(name, command)
    options = parser.parse_args(words)
    failures = Failures(name, verbose=getattr(options, "verbose", False))
    try:
        if isinstance(command, Filter):
            command.run(options, failures)
        else:
            with Client(settings_of(options, environment)) as client:
                command.run(Call(options, client, failures, environment))
    except MobulaError as error:
        failures.add(error)
        return UNUSABLE if error.code == "InvalidSetting" else FAILED
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:
        return FAILED  # whoever read our output has seen enough
    except OSError as error:
        failures.say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        failures.note("interrupted")
        return INTERRUPTED
    return FAILED if failures.count else DONE


def choose(name: str, command: Command | Filter, words: Sequence[str]) -> tuple[str, Command | Filter, Sequence[str]]:
    """What is called: the command, or the subcommand that the words begin with (its name is of two words); and the words left. Pure."""
    below = command.below if isinstance(command, Command) else {}
    if below and words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if words and words[0] in below:
        return f"{name} {words[0]}", below[words[0]], words[1:]
    return name, command, words


def parser_of(name: str, command: Command | Filter) -> argparse.ArgumentParser:
    """The parser of a command's line."""
    asks, does, own = (True, command.does, command.own) if isinstance(command, Command) else (False, "", "")
    parser = argparse.ArgumentParser(
        prog=name,
        usage=f"{name} [options] {command.usage}".rstrip(),
        description=f"{name}: {does or COMMANDS[name]}.",
        epilog=f"example:\n  {command.example}\n\n{ENVIRONMENT if asks else ''}{EXIT_CODES}",
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=columns() - 2),
        add_help=False,
        allow_abbrev=False,
    )
    command.options(parser)
    common = parser.add_argument_group("options of every command")
    if asks:
        _account_options(common, own)
    common.add_argument("--version", action="version", version=USER_AGENT)
    common.add_argument(*_named("-h", "--help", own), action="help", help="show this and exit")
    return parser


def _named(short: str, long: str, own: str) -> list[str]:
    """The names of an option; one that the command has itself is not among them."""
    return [long] if short[1] in own else [short, long]


def _account_options(common: argparse._ArgumentGroup, own: str) -> None:
    common.add_argument("-a", "--account", metavar="LOGIN", help="instead of MANTA_USER")
    common.add_argument("--user", "--subuser", dest="subuser", metavar="LOGIN", help="instead of MANTA_SUBUSER")
    common.add_argument("-k", "--key-id", "--keyId", dest="key_id", metavar="KEY", help="instead of MANTA_KEY_ID")
    common.add_argument("-u", "--url", help="instead of MANTA_URL")
    common.add_argument(
        "--role", action="append", metavar="ROLES", help="instead of MANTA_ROLE: roles to act in, separated by commas"
    )
    common.add_argument(
        *_named("-i", "--insecure", own), action="store_true", help="don't check the server's certificate"
    )
    common.add_argument("-v", "--verbose", action="store_true", help="say more about what fails")


def settings_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """The environment's settings, those replaced that options name."""
    given = {
        "account": options.account,
        "user": options.subuser,
        "key_id": options.key_id,
        "url": options.url,
        "role": roles_of(options.role),
        "tls_insecure": options.insecure or None,
    }
    return from_environment(environment)._replace(**{k: v for k, v in given.items() if v is not None})


# options that several commands have


def header_options(parser: argparse.ArgumentParser, *, role_tag: bool = True) -> None:
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header to send; may come several times",
    )
    if role_tag:
        role_tag_option(parser, "roles to tag it with")


def role_tag_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--role-tag", action="append", metavar="ROLES", help=f"{what}, separated by commas")


def roles_of(given: Sequence[str] | None) -> str | None:
    """The list that an option stands for which may come several times; None if it did not come. Pure."""
    return None if given is None else ",".join(given)


def headers_of(options: argparse.Namespace) -> dict[str, str]:
    """The headers that the options ask for. Raises UsageError."""
    headers = {}
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"use the header {text!r}: it is not of the form 'name: value'")
        headers[name.strip()] = value.strip()
    if (tags := roles_of(getattr(options, "role_tag", None))) is not None:
        headers["role-tag"] = tags
    return headers


def parallel_option(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "-p", "--parallel", type=positive, default=default, metavar="N", help=f"so many at the same time ({default})"
    )


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-j", "--json", action="store_true", help="print JSON, an object a line")


def pattern_of(regex: str) -> re.Pattern[str]:
    """A regular expression that was typed. Raises UsageError."""
    try:
        return re.compile(regex)
    except re.error as error:
        raise UsageError(f"match names: {regex!r} is no regular expression ({error})") from error


def positive(text: str) -> int:
    """A number from 1 to 1000. Raises ValueError, as argparse wants it."""
    number = int(text)
    if not 1 <= number <= 1000:
        raise ValueError(text)
    return number
