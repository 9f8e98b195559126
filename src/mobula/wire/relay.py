"""The body of a response that we receive, given on as the body of one that we send.

Large bodies go from socket to socket in a thread; one that stalls on either side gives its thread back.
"""

from __future__ import annotations

from mobula.wire import socket_copy
from mobula.wire.http_client import ClientResponse, ConnectionLost, ResponseTimeout
from mobula.wire.http_exchange import LARGE_BYTES, ClientAborted, Response


async def relay(source: ClientResponse, sink: Response) -> None:
    """Send all of `source`'s body to `sink`, which was started and announced at least as much.

    Raises what `source.chunks` raises: `sink.sent_bytes` then tells where to go on from another source;
    raises ClientAborted when the sink's client is gone.
    """
    if source.left_bytes < LARGE_BYTES or not (source.can_hand_over() and sink.can_hand_over()):
        async for chunk in source.chunks():
            await sink.write(chunk)
        return
    pieces, left = source.hand_over()
    try:
        for piece in pieces:
            await sink.write(piece)
        moved = socket_copy.Progress(left)
        try:
            await sink.send_from(source.fileno(), moved, source.idle_s)
        finally:
            sink.count_sent(moved.sent_bytes)
    except socket_copy.SourceStalled as error:
        raise ResponseTimeout(f"read a response of {source.address}: {error}") from error
    except socket_copy.SourceGone as error:
        raise ConnectionLost(f"read a response of {source.address}: {error}") from error
    except (socket_copy.Stalled, socket_copy.PeerGone) as error:
        raise ClientAborted(f"the client went away while it was answered: {error}") from error
    source.handed_over()
