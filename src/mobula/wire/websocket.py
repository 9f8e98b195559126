"""Requests that become a websocket, on their way through one of our processes: asked for, asked on, granted. Source: RFC 6455, section 4.

Frames are nobody's business here: `wsproto` reads and writes them at the ends.
"""

from __future__ import annotations

from mobula.wire.http_client import ClientResponse
from mobula.wire.http_exchange import Response
from mobula.wire.http_message import Headers, Pairs
from mobula.wire.tunnel import join

SWITCHING = 101
_VERSION = "13"
"""the only one that there is; who names none (the stock client) can't mean another"""
_ASKED_ON = ("sec-websocket-key", "sec-websocket-protocol")
_GRANTED = ("sec-websocket-accept", "sec-websocket-protocol")


def is_asked_for(headers: Headers) -> bool:
    """Whether a request wants to become a websocket, of the version that there is."""
    get = headers.get
    connection = {word.strip().lower() for word in (get("connection") or "").split(",")}
    upgrade = (get("upgrade") or "").lower() == "websocket" and "upgrade" in connection
    return upgrade and bool(get("sec-websocket-key")) and get("sec-websocket-version") in {None, _VERSION}


def asked_on(headers: Headers) -> Pairs:
    """The headers with which the same is asked of somebody else; extensions are not: who reads frames here knows none."""
    ours = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION)]
    return [*ours, *_those(headers, _ASKED_ON)]


async def pass_on(reply: ClientResponse, response: Response) -> None:
    """Grant what was granted to us (`reply` is a 101), and let both ends talk until one of them ends."""
    theirs = reply.tunnel()
    try:
        ours = response.upgrade([("Upgrade", "websocket"), *_those(reply.headers, _GRANTED)])
    except BaseException:
        theirs.close()
        raise
    await join(ours, theirs)


def _those(headers: Headers, names: tuple[str, ...]) -> Pairs:
    return [(name, value) for name in names if (value := headers.get(name)) is not None]
