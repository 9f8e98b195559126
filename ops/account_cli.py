"""`mobula account`: accounts and their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ops.accounts import Administration
from ops.errors import BadInput
from ops.region import load


def _call(verb: str, payload: dict[str, Any]) -> dict[str, Any]:
    return Administration(load(click.get_current_context().obj.region)).call(verb, payload)


@click.group()
def account() -> None:
    """Make accounts and give them keys.

    \b
    Example: ./mobula account create alice && ./mobula account key add alice ~/.ssh/id_ed25519.pub
    """


@account.command()
@click.argument("login")
@click.option("--email", default="", help="For people only.")
@click.option("--operator", is_flag=True, help="May do anything anywhere.")
def create(login: str, email: str, operator: bool) -> None:
    """Make an account; one that is there is left as it is.

    \b
    Example: ./mobula account create alice
    """
    done = _call("account-create", {"login": login, "email": email, "operator": operator})
    click.echo(f"account {login} {'created' if done['changed'] else 'was there already'}: {done['uuid']}")


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def list_accounts(as_json: bool) -> None:
    """List the accounts.

    \b
    Example: ./mobula account list
    """
    found = _call("account-list", {})["accounts"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for entry in found:
        keys = len(entry["keys"])
        rest = f"{keys} key{'' if keys == 1 else 's'}{'  operator' if entry['operator'] else ''}"
        click.echo(f"{entry['login']:24} {entry['uuid']}  {rest}")


@account.group()
def key() -> None:
    """Keys of an account.

    \b
    Example: ./mobula account key add alice ~/.ssh/id_ed25519.pub
    """


@key.command()
@click.argument("login")
@click.argument("file", type=click.Path(path_type=Path))
def add(login: str, file: Path) -> None:
    """Give an account the public key in FILE (OpenSSH or PEM).

    \b
    Example: ./mobula account key add alice ~/.ssh/id_ed25519.pub
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"read {str(file)!r}: {error}; name the file that ends in .pub") from error
    done = _call("key-add", {"login": login, "public_key": text})
    click.echo(f"key {done['fingerprint']} of account {login} {'added' if done['changed'] else 'was there already'}")
