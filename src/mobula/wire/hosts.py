"""Whether a host lives, whatever runs on it."""

from __future__ import annotations

import asyncio


async def host_lives(address: str, port: int, *, timeout_s: float) -> bool:
    """The host's kernel answers a TCP handshake: it takes the connection, or refuses it."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
