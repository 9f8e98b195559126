"""The frame of every process: config, logs, signals, systemd, and the routes that all services have.

`main(name, ConfigType, Build)` does the rest. The config says where to listen: `port` for a service that speaks HTTP,
`status_port` for one that doesn't. `/status`, `/metrics` and `/ping` are answered here, before the service is ready
and while it stops too; everything else is the service's own. A service with both answers `/status` and `/metrics` on its
status port alone: what lies on `port` is for its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import gc
import hashlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec
import prometheus_client
import uvloop

from mobula import VERSION
from mobula.core import log
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_message import Pairs
from mobula.wire.http_server import Handler, HttpServer, Limits

STOP_S = 20.0
"""for running requests to finish; systemd kills later than this"""

_OWN_PATHS = frozenset({b"/status", b"/metrics", b"/ping"})
_PUBLIC_PATHS = frozenset({b"/ping"})
"""those of them that a service with a status port answers on its other port too"""

_requests = prometheus_client.Histogram(
    "http_request_seconds",
    "Requests by method and status, with their duration",
    ["method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
_received = prometheus_client.Counter("http_received_bytes", "Bytes of request bodies")
_sent = prometheus_client.Counter("http_sent_bytes", "Bytes of response bodies")


class Config(Protocol):
    """What every config has. Optional: `port` or `status_port`, `listen`, `reuse_port`, `drain_s`, `log_level`."""

    @property
    def region(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def az(self) -> str: ...
    @property
    def address(self) -> str: ...


class Service(Protocol):
    """What a package builds. One that serves HTTP has `async def handle(self, request, response)` as well."""

    async def start(self) -> None:
        """Become able to serve; the port is open already and answers 503."""

    async def stop(self) -> None:
        """Let go of everything; no request is running any more."""

    def status(self) -> Mapping[str, object]:
        """`healthy` (bool), `why` (a sentence if it isn't), and what else is worth knowing."""


class ConfigRefused(Exception):
    """A config file can't be used."""


@dataclass(frozen=True, slots=True)
class Loaded[C]:
    """A config and the SHA-256 (hex) of the file it came from."""

    config: C
    digest: str


def load[C](path: Path, config_type: type[C]) -> Loaded[C]:
    """Raises ConfigRefused, with a sentence for whoever starts the process."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigRefused(f"read config '{path}': {error.strerror}; name a file with --config") from error
    try:
        config = msgspec.json.decode(data, type=config_type)
    except msgspec.DecodeError as error:
        raise ConfigRefused(f"read config '{path}': {error}; correct the file") from error
    return Loaded(config, hashlib.sha256(data).hexdigest())


def main[C: Config](
    name: str,
    config_type: type[C],
    build: Callable[[C], Service],
    *,
    tls: Callable[[C], ssl.SSLContext] | None = None,
    identity: Pairs = (),
    limits: Limits | None = None,
) -> None:
    """Run service `name` until SIGTERM. `identity` are headers of every response. Exits 2 for a config that can't be used."""

    @click.command(epilog=f"Example: --config /etc/mobula/{name}.json")
    @click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The JSON config file.")
    @click.version_option(VERSION)
    def command(path: Path) -> None:
        try:
            loaded = load(path, config_type)
            context = tls(loaded.config) if tls else None
        except (ConfigRefused, OSError) as error:
            click.echo(f"mobula-{name}: {error}", err=True)
            sys.exit(2)
        log.configure(name, loaded.config.host, level=getattr(loaded.config, "log_level", "info"))
        frame = Frame(name, loaded, build, identity=identity, limits=limits)
        sys.exit(uvloop.run(frame.run(context)))

    command.help = f"Run the Mobula service '{name}'."
    command()


def on_trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody has caught is an error, with where it came from; but for one thing that is none.

    uvloop goes on reading what has arrived on a TLS connection that was ended meanwhile, wants to answer, and calls it fatal that it can't
    (its issues 506 and 685). Whoever ended the connection knows that it has ended.
    """
    error = context.get("exception")
    if isinstance(error, RuntimeError) and str(error).endswith("the handler is closed"):
        log.get_logger().info("a connection was ended while something arrived on it", why=str(error))
        return
    loop.default_exception_handler(context)


class Frame[C: Config]:
    """One process's life: listen, start the service, wait for a signal, drain, stop the service."""

    def __init__(
        self,
        name: str,
        loaded: Loaded[C],
        build: Callable[[C], Service],
        *,
        identity: Pairs = (),
        limits: Limits | None = None,
    ) -> None:
        self._name = name
        self._config = loaded.config
        self._digest = loaded.digest
        self._build = build
        self._identity = identity
        self._limits = limits
        self._since = dt.datetime.now(dt.UTC)
        self._service: Service | None = None
        self._handler: Handler = _nothing_here
        self._phase = "starting"

    async def run(self, tls: ssl.SSLContext | None) -> int:
        """The exit code."""
        logger, config = log.get_logger(), self._config
        told_to_stop = asyncio.Event()
        told_to_hurry = asyncio.Event()

        def signalled() -> None:
            (told_to_hurry if told_to_stop.is_set() else told_to_stop).set()

        asyncio.get_running_loop().set_exception_handler(on_trouble)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, signalled)
        listen, reuse_port = getattr(config, "listen", "0.0.0.0"), getattr(config, "reuse_port", False)
        servers: list[HttpServer] = []
        ports: list[int] = []
        for port, handler in self._listeners():
            server = HttpServer(handler, identity=self._identity, limits=self._limits, observe=_observe)
            try:
                ports.append(await server.listen(listen, port, tls=tls, reuse_port=reuse_port))
            except OSError as error:
                logger.error("not started", why=f"listen on {listen}:{port}: {error.strerror}; free that port")
                return 1
            servers.append(server)
        try:
            service = self._service = self._build(config)
            started = await _unless(told_to_stop, service.start())
        except Exception as error:
            logger.error("not started", why=str(error), exc_info=error)
            return 1
        if started:
            self._handler = getattr(service, "handle", _nothing_here)
            self._phase = ""
            gc.collect()
            gc.freeze()  # what is there now stays; later collections needn't look at it
            notify("READY=1")
            logger.info("ready", port=ports[0], version=VERSION, config_digest=self._digest)
            async with asyncio.TaskGroup() as group:
                watchdog = group.create_task(_watchdog())
                await told_to_stop.wait()
                watchdog.cancel()
        self._phase = "stopping"
        notify("STOPPING=1")
        logger.info("stopping")
        with contextlib.suppress(TimeoutError):  # others see /ping fail and turn away; a second signal hurries
            await asyncio.wait_for(told_to_hurry.wait(), getattr(config, "drain_s", 0.0))
        await asyncio.gather(*(server.stop(STOP_S) for server in servers))
        await service.stop()
        logger.info("stopped")
        return 0

    def _listeners(self) -> list[tuple[int, Handler]]:
        """Ports, and who answers there."""
        port, status_port = (int(getattr(self._config, name, 0)) for name in ("port", "status_port"))
        if port and status_port:
            return [(port, functools.partial(self.handle, own_paths=_PUBLIC_PATHS)), (status_port, self._handle_status)]
        return [(port or status_port, self.handle)]

    async def _handle_status(self, request: Request, response: Response) -> None:
        if request.path in _OWN_PATHS and request.method in ("GET", "HEAD"):
            await self._handle_own(request, response)
        else:
            await _nothing_here(request, response)

    async def handle(self, request: Request, response: Response, own_paths: frozenset[bytes] = _OWN_PATHS) -> None:
        if request.path in own_paths and request.method in ("GET", "HEAD"):
            await self._handle_own(request, response)
        elif self._phase == "starting":
            await response.send_error(503, "ServiceUnavailable", "the service is starting", [("Retry-After", "1")])
        else:
            await self._handler(request, response)

    def status(self) -> dict[str, object]:
        own = dict(self._service.status()) if self._service is not None and self._phase != "starting" else {}
        answer: dict[str, object] = {
            "service": self._name,
            "version": VERSION,
            "config_digest": self._digest,
            "since": self._since.isoformat(timespec="seconds"),
            "region": self._config.region,
            "host": self._config.host,
            "az": self._config.az,
            "healthy": True,
            "why": "",
            **own,
        }
        if self._phase:
            answer |= {"healthy": False, "why": f"the service is {self._phase}"}
        return answer

    async def _handle_own(self, request: Request, response: Response) -> None:
        if request.path == b"/metrics":
            await response.send(
                200, [("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)], prometheus_client.generate_latest()
            )
            return
        status = self.status()
        if request.path == b"/status":
            await response.send(200, [("Content-Type", "application/json")], msgspec.json.encode(status, enc_hook=str))
            return
        response.keep_alive = False
        if status["healthy"]:
            await response.send(200)
        else:
            await response.send_error(503, "ServiceUnavailable", str(status["why"]), [("Retry-After", "1")])


async def _unless(event: asyncio.Event, work: object) -> bool:
    """Do `work` unless `event` comes first; whether it was done. Raises what it raises."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    waiter = asyncio.ensure_future(event.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        return False
    task.result()
    return True


async def _nothing_here(request: Request, response: Response) -> None:
    await response.send_error(404, "ResourceNotFound", f"{request.path.decode('latin-1')} was not found")


@functools.cache
def _durations(method: str, status: int) -> prometheus_client.Histogram:
    """What counts such requests. The parser knows some thirty methods, so they are few."""
    return _requests.labels(method, status)


def _observe(request: Request, response: Response, seconds: float) -> None:
    _durations(request.method, response.status).observe(seconds)
    _received.inc(request.received_bytes)
    _sent.inc(response.sent_bytes)
    log.request_line(
        logging.DEBUG if request.path in _OWN_PATHS else logging.INFO,
        request.request_id,
        {
            "method": request.method,
            "path": request.path.decode("latin-1"),
            "status": response.status,
            "ms": round(seconds * 1000, 2),
            "received_bytes": request.received_bytes,
            "sent_bytes": response.sent_bytes,
            "peer": request.peer,
        },
    )


def notify(state: str) -> None:
    """Tell systemd; nothing happens if it didn't start us."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())


async def _watchdog() -> None:
    """Tell systemd that this loop turns, twice as often as it wants to know."""
    period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while period_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s)
