"""Administration of a region's data, run on an api host: a verb, JSON on standard input, JSON on standard output.

Exit codes: 0 done, 1 it could not be done (one sentence on standard error), 2 the input can't be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog
from asyncpg import PostgresError

from mobula.core.accounts import InvalidLogin
from mobula.core.keys import InvalidKey
from mobula.metadata import repair_admin
from mobula.metadata.config import Postgres
from mobula.metadata.directory import Directory
from mobula.metadata.model import MetadataError, StorageServer
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client, ZooKeeperError

CONNECT_TIMEOUT_S = 10.0


class Config(msgspec.Struct, frozen=True):
    """What this needs of webapi.json."""

    zookeeper: tuple[str, ...]
    postgres: Postgres
    host: str = ""
    capability_keys: tuple[str, ...] = ()


class RegionInit(msgspec.Struct, frozen=True):
    storages: tuple[StorageServer, ...]
    shards: int


class AccountCreate(msgspec.Struct, frozen=True):
    login: str
    email: str = ""
    operator: bool = False


class KeyAdd(msgspec.Struct, frozen=True):
    login: str
    public_key: str


class UserCreate(msgspec.Struct, frozen=True):
    account: str
    login: str


class UserKeyAdd(msgspec.Struct, frozen=True):
    account: str
    login: str
    public_key: str


class Nothing(msgspec.Struct, frozen=True):
    """No input."""


Answer = dict[str, Any]


async def region_init(metadata: PostgresMetadata, wanted: RegionInit) -> Answer:
    changed, epoch, groups = await metadata.region_init(wanted.storages, wanted.shards)
    await Directory(metadata).system_account()
    return {"changed": changed, "shard_map_epoch": epoch, "groups": groups}


async def account_create(metadata: PostgresMetadata, wanted: AccountCreate) -> Answer:
    changed, uuid = await Directory(metadata).create(wanted.login, wanted.email, operator=wanted.operator)
    return {"changed": changed, "uuid": str(uuid)}


async def account_list(metadata: PostgresMetadata, _wanted: Nothing) -> Answer:
    return {"accounts": msgspec.to_builtins((await Directory(metadata).read()).accounts)}


async def key_add(metadata: PostgresMetadata, wanted: KeyAdd) -> Answer:
    changed, fingerprint = await Directory(metadata).add_key(wanted.login, wanted.public_key)
    return {"changed": changed, "fingerprint": fingerprint}


async def user_create(metadata: PostgresMetadata, wanted: UserCreate) -> Answer:
    changed, uuid = await Directory(metadata).create_user(wanted.account, wanted.login)
    return {"changed": changed, "uuid": str(uuid)}


async def user_key_add(metadata: PostgresMetadata, wanted: UserKeyAdd) -> Answer:
    changed, fingerprint = await Directory(metadata).add_user_key(wanted.account, wanted.login, wanted.public_key)
    return {"changed": changed, "fingerprint": fingerprint}


async def sweep(metadata: PostgresMetadata, _wanted: Nothing) -> Answer:
    return {"finished": await metadata.sweep()}


VERBS: dict[str, tuple[type, Callable[[PostgresMetadata, Any], Awaitable[Answer]]]] = {
    "region-init": (RegionInit, region_init),
    "account-create": (AccountCreate, account_create),
    "account-list": (Nothing, account_list),
    "key-add": (KeyAdd, key_add),
    "user-create": (UserCreate, user_create),
    "user-key-add": (UserKeyAdd, user_key_add),
    "sweep": (Nothing, sweep),
}


INPUTS = {name: kind for name, (kind, _) in (VERBS | repair_admin.VERBS).items()}


async def act(config: Config, verb: str, wanted: Any) -> Answer:
    """Do one verb with a metadata tier of its own."""
    zookeeper = Client(config.zookeeper)
    zookeeper.start()
    metadata = PostgresMetadata(zookeeper, config.postgres)
    try:
        await zookeeper.wait_connected(CONNECT_TIMEOUT_S)
        metadata.start()
        if verb in repair_admin.VERBS:
            async with repair_admin.speaking(metadata, config.capability_keys, config.host) as verbs:
                return await repair_admin.VERBS[verb][1](verbs, wanted)
        return await VERBS[verb][1](metadata, wanted)
    finally:
        metadata.stop()
        await zookeeper.stop()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="webapi.json of this host.")
@click.argument("verb", type=click.Choice(list(INPUTS)))
def main(path: Path, verb: str) -> None:
    """Administer the region's data; JSON on standard input, JSON on standard output.

    \b
    Example: echo '{"login": "alice"}' | python -m mobula.metadata.admin --config /etc/mobula/webapi.json account-create
    """
    # Standard output is the answer, and nothing else.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
        wanted: Any = msgspec.json.decode(sys.stdin.buffer.read() or b"{}", type=INPUTS[verb])
    except (OSError, msgspec.MsgspecError) as error:
        click.echo(f"{verb}: {error}", err=True)
        sys.exit(2)
    try:
        click.echo(json.dumps(asyncio.run(act(config, verb, wanted))))
    except (InvalidLogin, InvalidKey) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except (MetadataError, ZooKeeperError, PostgresError, OSError, ValueError) as error:
        click.echo(f"{verb}: {error}" if verb not in str(error) else str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
