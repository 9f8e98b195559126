"""Bring a shard's schema to this release: run on each metadata host, it acts on the primary only.

On the primary: database and role `mobula`, then each migration of ``migrations/`` that is not recorded, in a transaction of its own
together with its record. Elsewhere: wait until the primary's version has arrived by replication. Both are bounded; both print
``{"changed", "version"}``. A migration that was applied with other contents than this release has is refused: released files don't change.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import asyncpg
import click
import msgspec

from mobula.metadata.config import GuardConfig

BOUND_S = 120.0
POLL_S = 0.3

ROLE = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mobula') THEN CREATE ROLE mobula LOGIN; END IF;
END $$"""

# What services may do: run the functions and touch the rows, nothing of the schema; the lease is written by the guard alone.
# Run after each migration, so a schema may not exist yet.
_ROWS = (
    "GRANT USAGE ON SCHEMA {0} TO mobula; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {0} TO mobula; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {0} TO mobula;"
)
_FENCE = (
    "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fence FROM PUBLIC; GRANT USAGE ON SCHEMA fence TO mobula; "
    "GRANT EXECUTE ON FUNCTION fence.leased(), fence.require() TO mobula;"
)
GRANTS = (
    f"DO $do$ BEGIN {_FENCE} "
    + " ".join(
        f"IF to_regnamespace('{s}') IS NOT NULL THEN {_ROWS.format(s)} END IF;"
        for s in ("metadata", "directory", "jobs", "metering")
    )
    + " END $do$"
)


RECORD = """
CREATE TABLE IF NOT EXISTS public.migration
(version int PRIMARY KEY, name text NOT NULL, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"""


class MigrationError(Exception):
    """The schema can't be brought to this release; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this release, in order, numbered from 1 without a gap."""
    found = []
    for file in sorted(resources.files("mobula.metadata").joinpath("migrations").iterdir(), key=lambda f: f.name):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text()))
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError(
            f"read the migrations: numbers are {[m.version for m in found]}; they must run from 1 without a gap"
        )
    return found


def pending(all_of_them: list[Migration], recorded: dict[int, str]) -> list[Migration]:
    """Those that are not recorded yet (`recorded`: digest by version).

    Raises:
        MigrationError: a recorded one has other contents here, or is unknown to this release.
    """
    known = {m.version: m for m in all_of_them}
    for version, digest in recorded.items():
        if version not in known:
            raise MigrationError(
                f"migrate: the schema has version {version}, this release knows {len(known)}; install a newer release"
            )
        if known[version].digest != digest:
            raise MigrationError(
                f"migrate: migration {version} was applied with other contents; restore its released file"
            )
    return [m for m in all_of_them if m.version not in recorded]


async def migrate(socket_dir: str, port: int = 5432, *, bound_s: float = BOUND_S) -> bool:
    """Apply what is pending on the primary behind `socket_dir`; returns whether anything was.

    Raises:
        MigrationError: a migration is refused, or a commit was not acknowledged within the bound.
    """
    opened: list[asyncpg.Connection] = []
    task = asyncio.ensure_future(_migrate(socket_dir, port, opened))
    done, _ = await asyncio.wait({task}, timeout=bound_s)
    if not done:
        # Closed, never cancelled: a cancelled commit wait would publish what no standby has.
        for connection in opened:
            connection.terminate()
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        raise MigrationError(
            f"migrate: a commit was not acknowledged within {bound_s:.0f} s; run it again when a standby streams"
        )
    return task.result()


async def _migrate(socket_dir: str, port: int, opened: list[asyncpg.Connection]) -> bool:
    where = {"host": socket_dir, "port": port, "user": "postgres"}
    server = await asyncpg.connect(**where, database="postgres")
    opened.append(server)
    await server.execute(ROLE)
    if not await server.fetchval("SELECT true FROM pg_database WHERE datname = 'mobula'"):
        await server.execute("CREATE DATABASE mobula TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        await server.execute("REVOKE ALL ON DATABASE mobula FROM PUBLIC; GRANT CONNECT ON DATABASE mobula TO mobula")
    await server.close()
    database = await asyncpg.connect(**where, database="mobula")
    opened.append(database)
    await database.execute("SET client_min_messages = warning")
    await database.execute(RECORD)
    rows = await database.fetch("SELECT version, digest FROM public.migration")
    try:
        todo = pending(migrations(), {row["version"]: row["digest"] for row in rows})
        for migration in todo:
            await _apply(database, migration)
    finally:
        database.terminate()
    return bool(todo)


async def _apply(database: asyncpg.Connection, migration: Migration) -> None:
    async with database.transaction():
        await database.execute("SET LOCAL lock_timeout = '10s'")
        await database.execute(migration.sql)
        await database.execute(GRANTS)
        await database.execute(
            "INSERT INTO public.migration (version, name, digest) VALUES ($1, $2, $3)",
            migration.version, migration.name, migration.digest,
        )  # fmt: skip


async def version_here(socket_dir: str, port: int = 5432) -> int | None:
    """The newest recorded version on this peer, None while there is none to be seen."""
    try:
        database = await asyncpg.connect(host=socket_dir, port=port, user="postgres", database="mobula", timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return None
    try:
        found = await database.fetchval("SELECT max(version) FROM public.migration")
        return int(found) if found is not None else None
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await database.close()


async def is_writable_primary(socket_dir: str, port: int = 5432) -> bool:
    """This peer is the primary, and a commit would be acknowledged now (a synchronous standby streams)."""
    try:
        server = await asyncpg.connect(host=socket_dir, port=port, user="postgres", database="postgres", timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    try:
        return bool(
            await server.fetchval(
                "SELECT NOT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))"
            )
        )
    finally:
        await server.close()


async def converge(config: GuardConfig, bound_s: float = BOUND_S) -> dict[str, object]:
    """Until this peer shows the release's version: as primary migrate, else wait. Answers ``{"changed", "version"}``.

    Raises:
        MigrationError: not within the bound, or a migration is refused.
    """
    wanted = len(migrations())
    end = time.monotonic() + bound_s
    while time.monotonic() < end:
        if await version_here(config.socket_dir, config.postgres_port) == wanted:
            return {"changed": False, "version": wanted}
        if await is_writable_primary(config.socket_dir, config.postgres_port):
            return {
                "changed": await migrate(config.socket_dir, config.postgres_port, bound_s=end - time.monotonic()),
                "version": wanted,
            }
        await asyncio.sleep(POLL_S)
    raise MigrationError(
        f"migrate shard {config.shard} from {config.host}: no primary with a synchronous standby within {bound_s:.0f} s; "
        "look at `mobula status`, then at the logs of patroni on the shard's three hosts"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="guard.json of this host.")
def main(path: Path) -> None:
    """Bring this peer's shard to the release's schema.

    \b
    Example: python -m mobula.metadata.migrate --config /etc/mobula/guard.json
    Exit codes: 0 the version is there, 1 it could not be reached, 2 the configuration can't be read.
    """
    try:
        config = msgspec.json.decode(path.read_bytes(), type=GuardConfig)
    except (OSError, msgspec.MsgspecError) as error:
        click.echo(f"read {str(path)!r}: {error}", err=True)
        sys.exit(2)
    try:
        click.echo(json.dumps(asyncio.run(converge(config))))
    except (MigrationError, asyncpg.PostgresError, OSError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
