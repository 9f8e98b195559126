"""Runs on an api host (piped into the release's Python): prints the region's shard map as ZooKeeper has it. argv[1]: webapi.json."""

import asyncio
import json
import pathlib
import sys

import structlog

from mobula.metadata.store import MAP_PATH
from mobula.wire.zookeeper import Client, ZooKeeperError

CONNECT_TIMEOUT_S = 10.0


async def read(hosts: "list[str]") -> str:
    zookeeper = Client(hosts)
    zookeeper.start()
    try:
        await zookeeper.wait_connected(CONNECT_TIMEOUT_S)
        return (await zookeeper.get(MAP_PATH)).data.decode()
    finally:
        await zookeeper.stop()


def main() -> None:
    # Standard output is the map, and nothing else.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        print(asyncio.run(read(json.loads(pathlib.Path(sys.argv[1]).read_text())["zookeeper"])))
    except (ZooKeeperError, TimeoutError) as error:
        sys.exit(f"read {MAP_PATH} from ZooKeeper: {error}")


if __name__ == "__main__":
    main()
