"""Make the usage reports of one hour right now, on an api host; JSON on standard output.

Exit codes: 0 made, 1 they could not be made (one sentence on standard error), 2 the input can't be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click
import msgspec
import structlog

from mobula.core.clock import SystemClock
from mobula.core.hours import hour_of, name_of, parse
from mobula.jobs.runner import StoreError
from mobula.metadata.metering import Metering
from mobula.metadata.model import MetadataError
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_client import HttpClient, Timeouts
from mobula.wire.registered import ROOT, Webapis
from mobula.wire.zookeeper import Client, Tree, ZooKeeperError
from mobula.workers.config import WorkerConfig
from mobula.workers.reports import JobFailed, Made, Reports
from mobula.workers.system_store import WRITE_S, SystemStore, SystemToken

CONNECT_TIMEOUT_S = 10.0


class BadHour(ValueError):
    """There can be no reports of that hour; the sentence says why."""


async def make(config: WorkerConfig, hour: int) -> Made:
    """With connections of its own. Raises BadHour, and what `Reports.make` raises."""
    zookeeper = Client(config.zookeeper)
    zookeeper.start()
    metadata = PostgresMetadata(zookeeper, config.postgres)
    webapis = Webapis(config.near_webapis)
    names = Tree(zookeeper, ROOT, webapis.on_names)
    client = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=WRITE_S))
    try:
        await zookeeper.wait_connected(CONNECT_TIMEOUT_S)
        metadata.start()
        names.start()
        await metadata.wait_mapped()
        metering, clock = Metering(metadata), SystemClock()
        first, this_hour = await metering.first_hour(), hour_of(clock.now_s())
        if not first <= hour <= this_hour:
            raise BadHour(
                f"report hour {name_of(hour)}: what was used is known from {name_of(first)} to {name_of(this_hour)}; name one of these"
            )
        token = SystemToken(metadata, config.tokens())
        return await Reports(metering, SystemStore(client, webapis.pick, token), clock).make(hour)
    finally:
        names.stop()
        await client.close()
        metadata.stop()
        await zookeeper.stop()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="worker.json of this host.")
@click.option("--hour", required=True, help="In UTC, as 2026-11-28T05; of the hour of now, as far as it has come.")
def main(path: Path, hour: str) -> None:
    """Make the usage reports of one hour.

    \b
    Example: python -m mobula.workers.usage --config /etc/mobula/worker.json --hour 2026-11-28T05
    """
    # Standard output is the answer, and nothing else.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        config = msgspec.json.decode(path.read_bytes(), type=WorkerConfig)
        wanted = parse(hour)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    try:
        made = asyncio.run(make(config, wanted))
    except BadHour as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except (MetadataError, StoreError, JobFailed, ZooKeeperError, OSError) as error:
        click.echo(f"report hour {hour}: {error}", err=True)
        sys.exit(1)
    click.echo(
        json.dumps({"hour": hour, "accounts": made.accounts, "job": made.job and str(made.job), "final": made.final})
    )


if __name__ == "__main__":
    main()
