"""ZooKeeper, by kazoo: sessions, reads and writes from asyncio, watches, registrations, a cached subtree.

The only importer of kazoo. kazoo runs in threads of its own; every callback is handed to the event loop, so that callers
never see a thread. What kazoo's defaults get wrong for a short session, and what is set here instead (measured):

* a dead server costs a whole session timeout for each attempt to connect -> 0.3 s (`_Quick`);
* the back-off between attempts outlives a short session -> at most 0.2 s;
* a client stays for ever at the remote AZ's server that it found while its own was down -> `_come_home`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.retry import KazooRetry

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 0.3
BACKOFF_MAX_S = 0.2
HOME_PERIOD_S = 3.0
RENEW_PERIOD_S = 5.0


class ZooKeeperError(Exception):
    """The ensemble did not do what was asked: no session, no quorum, or the node is not as assumed."""


class NoNode(ZooKeeperError):
    """There is no such node."""


class NodeExists(ZooKeeperError):
    """There is such a node already."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node's data and what identifies its version."""

    data: bytes
    version: int
    czxid: int
    mzxid: int


class _Quick(SequentialThreadingHandler):  # type: ignore[misc]
    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = min(kwargs.get("timeout") or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
        return super().create_connection(*args, **kwargs)


def _retry() -> KazooRetry:
    return KazooRetry(max_tries=-1, delay=0.05, backoff=1.3, max_delay=BACKOFF_MAX_S)


class Client:
    """One session. Calls raise ZooKeeperError at once while there is none: who needs patience brings a deadline.

    `hosts` are ``ip:port``, the own AZ's first.
    """

    def __init__(self, hosts: Sequence[str], *, session_s: float = 4.0) -> None:
        self._hosts = tuple(hosts)
        self._session_s = session_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._home_task: asyncio.Task[None] | None = None
        self.kazoo = KazooClient(
            hosts=",".join(hosts), timeout=session_s, handler=_Quick(), randomize_hosts=False,
            connection_retry=_retry(), command_retry=KazooRetry(max_tries=0),
        )  # fmt: skip
        self.kazoo.add_listener(self._on_state)

    @property
    def connected(self) -> bool:
        """There is a session and a server that answers for it."""
        return bool(self.kazoo.connected) and self.kazoo.state == KazooState.CONNECTED

    def start(self) -> None:
        """Begin to connect, without waiting; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self.kazoo.start_async()
        self._home_task = self._loop.create_task(self._come_home())

    async def stop(self) -> None:
        """End the session: ephemeral nodes vanish at once."""
        if self._home_task:
            self._home_task.cancel()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(KazooException):
            await loop.run_in_executor(None, self.kazoo.stop)
            await loop.run_in_executor(None, self.kazoo.close)

    def on_state(self, callback: Callable[[bool], None]) -> None:
        """Call back on the event loop with True after each (re)connection, with False after each loss."""
        self._listeners.append(callback)

    def _on_state(self, state: str) -> None:
        connected = state == KazooState.CONNECTED
        for listener in tuple(self._listeners):
            self.soon(listener, connected)

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Run a callback on the event loop, from any thread; dropped when the loop has ended."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed between the look and the call
                self._loop.call_soon_threadsafe(callback, *args)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """A kazoo ``*_async`` method as an asyncio future. Calls are sent in order: pipelining is several calls, then await."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self.connected:
            future.set_exception(ZooKeeperError("no session with any ZooKeeper server"))
            return future

        def finish(result: Any) -> None:
            if future.done():
                return
            if result.exception is None:
                future.set_result(result.value)
            else:
                future.set_exception(_translate(result.exception))

        try:
            method(*args, **kwargs).rawlink(lambda result: self.soon(finish, result))
        except (KazooException, OSError) as error:
            future.set_exception(_translate(error))
        return future

    async def get(self, path: str) -> Node:
        """The node at path; raises NoNode."""
        data, stat = await self.call(self.kazoo.get_async, path)
        return Node(data, stat.version, stat.czxid, stat.mzxid)

    async def set(self, path: str, data: bytes) -> None:
        """Replace a node's data; raises NoNode."""
        await self.call(self.kazoo.set_async, path, data)

    async def create(self, path: str, data: bytes, *, ephemeral: bool = False) -> None:
        """Make a node and its parents; raises NodeExists."""
        await self.call(self.kazoo.create_async, path, data, ephemeral=ephemeral, makepath=True)

    async def delete(self, path: str, version: int = -1) -> None:
        """Remove a node, if it has that version still (-1: whatever it has); raises NoNode."""
        await self.call(self.kazoo.delete_async, path, version)

    async def ensure_path(self, path: str) -> None:
        """Make a node and its parents unless they are there."""
        await self.call(self.kazoo.ensure_path_async, path)

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for a session.

        Raises:
            ZooKeeperError: none within the bound.
        """
        arrived = asyncio.Event()

        def listener(up: bool) -> None:
            if up:
                arrived.set()

        self.on_state(listener)
        try:
            if self.connected:
                return
            await asyncio.wait_for(arrived.wait(), timeout_s)
        except TimeoutError as error:
            raise ZooKeeperError(
                f"no ZooKeeper server of {', '.join(self._hosts)} answered within {timeout_s} s"
            ) from error
        finally:
            self._listeners.remove(listener)

    def watch(self, path: str, callback: Callable[[Node | None], None]) -> None:
        """Call back on the event loop with the node now and after each change, None while it is not there.

        While there is no session nothing is called: what was last seen stays valid until something else is known.
        """

        def changed(data: bytes | None, stat: Any) -> None:
            node = None if stat is None else Node(data or b"", stat.version, stat.czxid, stat.mzxid)
            self.soon(callback, node)

        def install() -> None:
            with contextlib.suppress(KazooException):
                self.kazoo.DataWatch(path, changed)

        # DataWatch asks ZooKeeper at once and blocks until it is there: not on the event loop.
        threading.Thread(target=_when_connected, args=(self.kazoo, install), daemon=True, name=f"watch {path}").start()

    async def _come_home(self) -> None:
        """Leave a remote AZ's server when the own AZ's one is in the quorum again; the session goes on there."""
        own = self._hosts[0].split(":")[0]
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HOME_PERIOD_S)
            was = await loop.run_in_executor(None, rehome, self.kazoo, own)
            if was:
                log.info("zookeeper connection brought home", was=was, own=own)


def rehome(kazoo: KazooClient, own: str) -> str | None:
    """Leave the server at another address than `own` if that one serves: the session goes on there. Answers which was left, if any.

    kazoo stays for ever where it found a server while its first one was down. Blocks for up to `CONNECT_TIMEOUT_S`.
    """
    try:
        connection = kazoo._connection._socket
        peer: str = connection.getpeername()[0]
        connected = kazoo.connected and kazoo.state == KazooState.CONNECTED
        if not connected or peer == own or not _serves(own):
            return None
        connection.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        return None
    return peer


def _translate(error: BaseException) -> ZooKeeperError:
    if isinstance(error, NoNodeError):
        return NoNode(str(error))
    if isinstance(error, NodeExistsError):
        return NodeExists(str(error))
    return ZooKeeperError(f"{type(error).__name__}: {error}")


def _serves(address: str) -> bool:
    """A ZooKeeper server there answers and belongs to a quorum."""
    try:
        with socket.create_connection((address, 2181), CONNECT_TIMEOUT_S) as probe:
            probe.settimeout(CONNECT_TIMEOUT_S)
            probe.sendall(b"srvr")
            said = b""
            while chunk := probe.recv(4096):
                said += chunk
    except OSError:
        return False
    return b"Mode: leader" in said or b"Mode: follower" in said


def _when_connected(kazoo: KazooClient, action: Callable[[], None]) -> None:
    """Run `action` once there is a session (now, or when kazoo says so)."""
    ready = threading.Event()

    def listener(state: str) -> None:
        if state == KazooState.CONNECTED:
            ready.set()

    kazoo.add_listener(listener)
    if kazoo.connected:
        ready.set()
    ready.wait()
    kazoo.remove_listener(listener)
    action()


class Registration:
    """An ephemeral node that is kept: made anew after a lost session, taken over from an earlier one, looked at each 5 s."""

    def __init__(self, client: Client, path: str, data: bytes) -> None:
        self._client = client
        self._path = path
        self._data = data
        self._wanted = False
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()
        self.held = False
        """the node is there and belongs to our session, as of the last look"""
        client.on_state(lambda _up: self._nudge.set())

    def ensure(self) -> None:
        """Want the node from now on; returns at once."""
        self._wanted = True
        self._nudge.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def withdraw(self) -> None:
        """Remove the node, as far as ZooKeeper can be reached, and keep it away."""
        self._wanted = False
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.held = False
        with contextlib.suppress(ZooKeeperError):
            await self._client.delete(self._path)

    async def _keep(self) -> None:
        while self._wanted:
            self._nudge.clear()
            try:
                await self._look()
            except ZooKeeperError as error:
                if self.held:
                    log.info("registration not held", path=self._path, why=str(error))
                self.held = False
            with contextlib.suppress(TimeoutError):
                # Somebody may have deleted the node: look again now and then, sooner when it is not there.
                await asyncio.wait_for(self._nudge.wait(), RENEW_PERIOD_S if self.held else BACKOFF_MAX_S)

    async def _look(self) -> None:
        kazoo = self._client.kazoo
        stat = await self._client.call(kazoo.exists_async, self._path)
        session = kazoo.client_id
        if session is None:
            raise ZooKeeperError("the connection was lost while it was asked")
        if stat is not None and stat.ephemeralOwner == session[0]:
            if (await self._client.get(self._path)).data != self._data:
                await self._client.set(self._path, self._data)
            self.held = True
            return
        if stat is not None:
            # An earlier session's node: it would vanish under us when that session expires.
            with contextlib.suppress(NoNode):
                await self._client.delete(self._path)
        await self._client.create(self._path, self._data, ephemeral=True)
        self.held = True


class Tree:
    """The data of all nodes two levels below a root (``/names/<service>/<instance>``), followed by watches.

    `on_change` is called on the event loop with ``{service: {instance: data}}`` after each change once the first picture is complete.
    """

    def __init__(
        self, client: Client, root: str, on_change: Callable[[Mapping[str, Mapping[str, bytes]]], None]
    ) -> None:
        self._client = client
        self._root = root
        self._on_change = on_change
        self._complete = threading.Event()
        self._dirty = threading.Event()
        self._cache: TreeCache | None = None
        self._ended = False

    @property
    def complete(self) -> bool:
        """The first whole picture has arrived."""
        return self._complete.is_set()

    def start(self) -> None:
        """Begin to follow, as soon as there is a session."""
        threading.Thread(
            target=_when_connected, args=(self._client.kazoo, self._follow), daemon=True, name=f"tree {self._root}"
        ).start()

    def refresh(self) -> None:
        """Call `on_change` again with what is known."""
        self._dirty.set()

    def stop(self) -> None:
        """Follow no more."""
        self._ended = True
        self._dirty.set()
        if self._cache is not None:
            self._cache.close()

    def _follow(self) -> None:
        while not self._ended:
            try:
                self._client.kazoo.ensure_path(self._root)
                break
            except KazooException:
                self._dirty.wait(BACKOFF_MAX_S)
        self._cache = TreeCache(self._client.kazoo, self._root)
        self._cache.listen(self._on_event)
        self._cache.start()
        while not self._ended:
            self._dirty.wait()
            self._dirty.clear()
            if self.complete and not self._ended:
                self._client.soon(self._on_change, self._picture())

    def _on_event(self, event: Any) -> None:
        if event.event_type == TreeEvent.INITIALIZED:
            self._complete.set()
        self._dirty.set()

    def _picture(self) -> dict[str, dict[str, bytes]]:
        cache = self._cache
        assert cache is not None  # noqa: S101
        picture: dict[str, dict[str, bytes]] = {}
        for service in cache.get_children(self._root) or ():
            picture[service] = {}
            for instance in cache.get_children(f"{self._root}/{service}") or ():
                node = cache.get_data(f"{self._root}/{service}/{instance}")
                if node is not None:
                    picture[service][instance] = node.data
        return picture
