"""What `./mobula --help` and the help of each of its commands say, as last reviewed. `make golden` rewrites it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ops.cli import main

GOLDEN = Path(__file__).parent / "help.txt"


def helps(command: click.Command, parent: click.Context | None = None, name: str = "./mobula") -> Iterator[str]:
    """The help of a command, then of all below it."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=100, **command.context_settings)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from helps(found, context, below)


def test_every_commands_help_is_the_reviewed_one(request: pytest.FixtureRequest) -> None:
    text = "\n\n".join(helps(main)) + "\n"
    if request.config.getoption("--rewrite"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text
