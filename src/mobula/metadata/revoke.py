"""Patroni's `before_stop`: revoke the lease, so that no leased reader sees what a fast shutdown publishes (cancelled commit waits).

Always exits 0: a server that can't be asked any more grants nothing either, and a stop must not be held up.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg

TIMEOUT_S = 1.0


async def revoke(socket_dir: str, port: int = 5432) -> None:
    """Revoke on the local server, within `TIMEOUT_S`."""
    connection = await asyncpg.connect(
        host=socket_dir,
        port=port,
        user="postgres",
        database="mobula",
        timeout=TIMEOUT_S,
        server_settings={"synchronous_commit": "off"},
    )
    try:
        # Nothing here waits for a standby, so a cancel by the timeout publishes nothing.
        await connection.execute("SELECT fence.revoke()", timeout=TIMEOUT_S)
    finally:
        connection.terminate()


def main() -> None:
    """Entry point."""
    try:
        asyncio.run(revoke(os.environ.get("PGHOST", "/run/postgresql")))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        print(f"revoke the lease: {type(error).__name__} {error}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
