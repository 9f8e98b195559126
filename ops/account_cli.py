"""`mobula account`: accounts and their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ops.accounts import Administration
from ops.errors import BadInput
from ops.options import json_option
from ops.region import load


def _call(verb: str, payload: dict[str, Any]) -> dict[str, Any]:
    return Administration(load(click.get_current_context().obj.region)).call(verb, payload)


def _of(login: str, account_verb: str, user_verb: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Call the verb for an account, or for a sub-user that is named as keys name it: ``account/user``."""
    owner, slash, user = login.partition("/")
    return (
        _call(user_verb, {"account": owner, "login": user, **payload})
        if slash
        else _call(account_verb, {"login": login, **payload})
    )


@click.group()
def account() -> None:
    """Make accounts, sub-users of theirs, and give them keys.

    \b
    Example: ./mobula account create alice && ./mobula account key add alice ~/.ssh/id_ed25519.pub
    """


@account.command()
@click.argument("login")
@click.option("--email", default="", help="For people only.")
@click.option("--operator", is_flag=True, help="May do anything anywhere.")
def create(login: str, email: str, operator: bool) -> None:
    """Make an account, or a sub-user (LOGIN/USER) of one; what is there is left as it is.

    A sub-user may only read what is public: there are no roles yet.

    \b
    Examples:
      ./mobula account create alice
      ./mobula account create alice/backup
    """
    if "/" in login and (email or operator):
        raise BadInput(f"create {login!r}: a sub-user has no --email and no --operator; leave them out")
    about = {} if "/" in login else {"email": email, "operator": operator}
    done = _of(login, "account-create", "user-create", about)
    click.echo(f"account {login} {'created' if done['changed'] else 'was there already'}: {done['uuid']}")


@account.command("list")
@json_option
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
        click.echo(_line(entry["login"], entry) + ("  operator" if entry["operator"] else ""))
        for user in entry["users"].values():
            click.echo(_line(f"{entry['login']}/{user['login']}", user))


def _line(name: str, holder: dict[str, Any]) -> str:
    count = len(holder["keys"])
    return f"{name:24} {holder['uuid']}  {count} key{'' if count == 1 else 's'}"


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
    """Give an account, or a sub-user (LOGIN/USER), the public key in FILE (OpenSSH or PEM).

    \b
    Example: ./mobula account key add alice ~/.ssh/id_ed25519.pub
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"read {str(file)!r}: {error}; name the file that ends in .pub") from error
    done = _of(login, "key-add", "user-key-add", {"public_key": text})
    click.echo(f"key {done['fingerprint']} of account {login} {'added' if done['changed'] else 'was there already'}")
