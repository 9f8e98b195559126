"""What both HTTP clients, the one on asyncio and the blocking one, have in common: servers, bounds, and how an exchange fails."""

from __future__ import annotations

from typing import NamedTuple


class RequestFailed(Exception):
    """Base of what ends an exchange without a response."""


class ConnectFailed(RequestFailed):
    """No connection: nothing was sent."""


class NotTrusted(ConnectFailed):
    """The server's certificate is not one to trust: trying again is of no use."""


class ResponseTimeout(RequestFailed):
    """The server neither took nor sent a byte for too long."""


class ConnectionLost(RequestFailed):
    """The connection ended in the middle of an exchange."""


class InvalidResponse(RequestFailed):
    """The server sent what is not HTTP, or a body larger than its reader takes."""


class AnsweredEarly(RequestFailed):
    """A response came before the request's body was sent; `response()` gives it."""


class Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of `<host>:<port>`. Raises ValueError."""
        host, _, port = text.rpartition(":")
        if not host or not port.isascii():
            raise ValueError(f"read an address: {text[:100]!r} found; it is <host>:<port>")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Timeouts(NamedTuple):
    connect_s: float = 2.0
    response_s: float = 30.0
    """from the request's last byte to the head of the response"""
    idle_s: float = 30.0
    """between two bytes of a body, either way"""
    keep_s: float = 60.0
    """for a connection without work; less than the server's"""
