"""Bytes between a socket and a file or a function, moved by a thread, as fast as one core can.

The thread works only while bytes flow: when the other side is slow it goes back to the pool, and the event loop waits
for the socket. Sockets stay non-blocking (the event loop owns them); each transfer works on a duplicate descriptor, so
the connection may end meanwhile without the number being used for another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import cast

_PATIENCE_MS = 20
"""how long the thread waits for a socket before it gives it back to the event loop"""
_PIECE_BYTES = 256 * 1024
"""moved at a time: it stays in a core's cache from the socket to whoever gets it"""
_ENOUGH_BYTES = 128 * 1024
"""handed on at once; less only at the end or when the other side is slow"""
_SENDFILE_BYTES = 16 * 1024 * 1024
_thread = threading.local()


class Stalled(Exception):
    """The other side neither sent nor took a byte for as long as we wait."""


class PeerGone(Exception):
    """The other side ended the connection."""


class SourceStalled(Stalled):
    """Of a relay: the side that is read from sent nothing."""


class SourceGone(PeerGone):
    """Of a relay: the side that is read from ended the connection."""


@dataclass(slots=True)
class Progress:
    """How far a relay is: read and not sent yet is what `pending` holds."""

    unread_bytes: int
    sent_bytes: int = 0
    pending: memoryview = field(default_factory=lambda: memoryview(b""))


async def relay(
    executor: Executor, source_fd: int, sink_fd: int, progress: Progress, *, source_idle_s: float, sink_idle_s: float
) -> None:
    """Send what is left of a socket's body to another socket, in a thread.

    Raises SourceStalled, SourceGone, Stalled, PeerGone (the sink's); `progress` is kept up to date.
    """
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(min(_PIECE_BYTES, progress.unread_bytes)))
    with duplicate(source_fd) as source, duplicate(sink_fd) as sink:
        while progress.unread_bytes or progress.pending:
            await _finish(sink, loop.run_in_executor(executor, _relay, source, sink, progress, buffer))
            if progress.pending:
                await _ready(sink.fileno(), loop.add_writer, loop.remove_writer, sink_idle_s)
            elif progress.unread_bytes:
                try:
                    await _ready(source.fileno(), loop.add_reader, loop.remove_reader, source_idle_s)
                except Stalled as error:
                    raise SourceStalled(str(error)) from error


def _relay(source: socket.socket, sink: socket.socket, progress: Progress, buffer: memoryview) -> None:
    readable, writable = select.poll(), select.poll()
    readable.register(source, select.POLLIN)
    writable.register(sink, select.POLLOUT)
    while progress.pending or progress.unread_bytes:
        if progress.pending:
            if not _send_some(sink, progress) and not writable.poll(_PATIENCE_MS):
                return
        elif not _receive_some(source, progress, buffer) and not readable.poll(_PATIENCE_MS):
            return


def _send_some(sink: socket.socket, progress: Progress) -> int:
    try:
        count = sink.send(progress.pending)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise PeerGone(str(error)) from error
    progress.pending = progress.pending[count:]
    progress.sent_bytes += count
    return count


def _receive_some(source: socket.socket, progress: Progress, buffer: memoryview) -> int:
    try:
        count = source.recv_into(buffer[: progress.unread_bytes])
    except BlockingIOError:
        return 0
    except OSError as error:
        raise SourceGone(str(error)) from error
    if not count:
        raise SourceGone("end of the stream")
    progress.pending = buffer[:count]
    progress.unread_bytes -= count
    return count


async def receive(
    executor: Executor, connection_fd: int, size_bytes: int, consume: Callable[[memoryview], None], idle_s: float
) -> None:
    """Hand the next `size_bytes` of a socket to `consume`, in a thread. Raises Stalled, PeerGone, what `consume` raises."""
    loop = asyncio.get_running_loop()
    with duplicate(connection_fd) as sock:
        left = size_bytes
        while True:
            left = await _finish(sock, loop.run_in_executor(executor, _receive, sock, left, consume))
            if not left:
                return
            await _ready(sock.fileno(), loop.add_reader, loop.remove_reader, idle_s)


async def send_file(
    executor: Executor, connection_fd: int, *, prefix: bytes, fd: int, offset: int, size_bytes: int, idle_s: float
) -> None:
    """Send `prefix`, then part of an open file, to a socket, in a thread. Raises Stalled, PeerGone, OSError (the file's)."""
    loop = asyncio.get_running_loop()
    end = offset + size_bytes
    with duplicate(connection_fd) as sock:
        while True:
            prefix, offset = await _finish(sock, loop.run_in_executor(executor, _send, sock, prefix, fd, offset, end))
            if offset == end:
                return
            await _ready(sock.fileno(), loop.add_writer, loop.remove_writer, idle_s)


def duplicate(connection_fd: int) -> socket.socket:
    """A socket of its own over the same connection, for a thread. Only from the event loop, which owns the number."""
    return socket.socket(fileno=os.dup(connection_fd))


def send_all(sock: socket.socket, pieces: list[bytes | memoryview], idle_s: float) -> None:
    """Send all of it to a non-blocking socket, from a thread. Raises Stalled, PeerGone."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    for piece in pieces:
        view = memoryview(piece)
        while view:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                if not poll.poll(idle_s * 1000):
                    raise Stalled(f"no byte moved for {idle_s:.0f} s") from None
            except OSError as error:
                raise PeerGone(str(error)) from error


async def _finish[T](sock: socket.socket, work: asyncio.Future[T]) -> T:
    """The outcome of a thread's work on `sock`; a cancelled caller leaves only after the thread has let go of it."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        await asyncio.wait([work])
        raise


def _buffer() -> memoryview:
    """This thread's own, for what does not outlast a call: fresh memory would cost as much as the copying."""
    if not hasattr(_thread, "buffer"):
        _thread.buffer = memoryview(bytearray(_PIECE_BYTES))
    return cast(memoryview, _thread.buffer)


def _receive(sock: socket.socket, left: int, consume: Callable[[memoryview], None]) -> int:
    buffer = _buffer()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    filled = 0
    while left > filled:
        try:
            count = sock.recv_into(buffer[filled : left if left < len(buffer) else None])
        except BlockingIOError:
            if poll.poll(_PATIENCE_MS):
                continue
            break
        except OSError as error:
            raise PeerGone(str(error)) from error
        if not count:
            raise PeerGone("end of the stream")
        filled += count
        if filled >= _ENOUGH_BYTES:
            consume(buffer[:filled])
            left -= filled
            filled = 0
    if filled:
        consume(buffer[:filled])
    return left - filled


def _send(sock: socket.socket, prefix: bytes, fd: int, offset: int, end: int) -> tuple[bytes, int]:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while offset < end:
        try:
            if prefix:
                prefix = prefix[sock.send(prefix, socket.MSG_MORE) :]
                continue
            count = os.sendfile(sock.fileno(), fd, offset, min(end - offset, _SENDFILE_BYTES))
        except BlockingIOError:
            if poll.poll(_PATIENCE_MS):
                continue
            break
        except (BrokenPipeError, ConnectionError) as error:
            raise PeerGone(str(error)) from error
        if not count:
            raise OSError(f"send a file: it ends at byte {offset}, {end - offset} bytes early")
        offset += count
    return prefix, offset


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _ready(fd: int, add: Callable[..., object], remove: Callable[[int], object], timeout_s: float) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(fd, _settle, waiter)
    try:
        await asyncio.wait_for(waiter, timeout_s)
    except TimeoutError as error:
        raise Stalled(f"no byte moved for {timeout_s:.0f} s") from error
    finally:
        remove(fd)
