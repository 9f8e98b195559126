"""Bulk transfers between the client hosts of AZs: somebody else who uses a link, and takes all that it has left."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

from mobula.lab.network import inside
from mobula.lab.topology import client_address
from ops.errors import OperatorError
from ops.region import Region

PIECE = bytes(64 << 10)
CONNECT_S = 10.0
"""over a link that is bad"""
END_S = 10.0


class Transfer:
    """One TCP connection from an AZ to another one that always has something to send. It ends with the process that began it.

    Raises:
        OperatorError, LabError: it can't begin.
    """

    def __init__(self, region: Region, source: int, target: int) -> None:
        self.moved_bytes = 0
        """that have arrived"""
        try:
            with inside(f"{region.name}-c{target}"):
                self._listener = socket.create_server((client_address(region.cidr, target), 0))
            with inside(f"{region.name}-c{source}"):
                self._sender = socket.socket()
        except OSError as error:
            raise OperatorError(f"begin a bulk transfer from AZ {source} to AZ {target}: {error}") from error
        self._sender.settimeout(CONNECT_S)
        self._to: tuple[str, int] = self._listener.getsockname()
        self._receiver: socket.socket | None = None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Send no more, and leave nothing."""
        for channel in filter(None, (self._listener, self._sender, self._receiver)):
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)  # whoever waits in it wakes up
        for thread in self._threads:
            thread.join(END_S)
        for channel in filter(None, (self._listener, self._sender, self._receiver)):
            channel.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the end, or a link that is too bad: what has arrived says so
            self._sender.connect(self._to)
            self._sender.settimeout(None)
            while True:
                self._sender.sendall(PIECE)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            self._receiver, _ = self._listener.accept()
            buffer = bytearray(len(PIECE))
            while count := self._receiver.recv_into(buffer):
                self.moved_bytes += count


@contextlib.contextmanager
def bulk(region: Region, ways: Sequence[tuple[int, int]]) -> Iterator[list[Transfer]]:
    """A transfer on each way (from, to), until the block ends."""
    with contextlib.ExitStack() as stack:
        transfers = []
        for source, target in ways:
            transfer = Transfer(region, source, target)
            stack.callback(transfer.end)
            transfer.start()
            transfers.append(transfer)
        yield transfers
