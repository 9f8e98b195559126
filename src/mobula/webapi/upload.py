"""An upload: the body of one PUT on its way to all copies of an object."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from mobula.core.errors import ApiError, unavailable
from mobula.metadata.model import COMMIT_DEADLINE_S, Group, StorageServer
from mobula.proto.put import Abort, Accept, Commit, Effect, Open, Put, Reply, State
from mobula.webapi.context import Context, Store
from mobula.wire.http_client import RequestFailed
from mobula.wire.http_exchange import BodyMalformed, BodyTimeout
from mobula.wire.storage_client import CopyWriter, StorageError, StorageUnavailable, StoredCopy, address_of

log = structlog.get_logger()

WHOLE_BYTES = 64 * 1024
"""bodies of known length up to here are taken whole, then stored in one go"""
SMALL_BYTES = 256 * 1024
"""from here on bodies stream in a thread"""
UPLOAD_IDLE_S = 45
DISCARD_BOUND_S = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a PUT asks for, checked."""

    copies: int
    content_md5: bytes | None
    size_bytes: int | None
    most_bytes: int


def check_md5(wish: Wish, stored: StoredCopy) -> None:
    """The body is what its Content-MD5 says. Raises ApiError (ContentMD5Mismatch)."""
    if wish.content_md5 is not None and wish.content_md5 != stored.md5:
        wanted, found = (base64.b64encode(d).decode() for d in (wish.content_md5, stored.md5))
        raise ApiError.of("ContentMD5Mismatch", wanted=wanted, found=found)


class Upload:
    """Drives one `proto.put` machine: opens copies, moves the body to all of them at once, waits until each is on disk."""

    def __init__(self, context: Context, store: Store, wish: Wish, groups: list[Group]) -> None:
        self._context = context
        self._store = store
        self._wish = wish
        self._writers: dict[str, CopyWriter] = {}
        self._whole: Sequence[StorageServer] = ()
        """who has stored a copy in one go"""
        self._began_s = time.monotonic()
        self._digest = hashlib.md5(usedforsecurity=False)
        self._hashed = True
        """`_digest` is the body's"""
        self._size_bytes = 0
        self.object_id = uuid.UUID(int=0)
        """a new one for each group that is tried"""
        self.machine = Put(wish.copies, groups)

    @property
    def group(self) -> Group:
        """Where the copies are."""
        assert self.machine.group is not None  # noqa: S101
        return self.machine.group

    async def receive(self) -> StoredCopy:
        """Take the body; returns when every copy is on disk.

        Raises:
            ApiError: what the client did wrong, or 503 when no group would take it, or a copy was lost on the way.
        """
        try:
            if self._wish.size_bytes is not None and self._wish.size_bytes <= WHOLE_BYTES:
                await self._take_whole()
            else:
                await self._open(self.machine.begin())
                with self._context.bound.paused():  # also while a large body is made to last
                    await self._stream()
                    await self._finish()
            stored = StoredCopy(self._size_bytes, self.machine.md5)
            check_md5(self._wish, stored)
            if time.monotonic() - self._began_s > COMMIT_DEADLINE_S / 2:
                raise unavailable("the upload took longer than its copies may wait for their entry")
            if not self._size_bytes:
                await self.discard()  # a body of unknown length that turned out empty: such an object has no copies
        except BaseException:
            self.machine.abandoned("ended before its commit")
            await self.discard()
            raise
        return stored

    async def _take_whole(self) -> None:
        """Body first, then one round trip per copy; a server that refuses or fails costs another try, as the bytes are at hand."""
        with self._body_errors():
            body = await self._context.body(WHOLE_BYTES)
        self._count(body)
        check_md5(self._wish, StoredCopy(len(body), self._digest.digest()))
        todo = list(self.machine.begin())
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Open):
                todo += await self._store_whole(effect, body)
            elif isinstance(effect, Reply):
                raise unavailable(f"no storage server took the object: {effect.failure}")
            elif isinstance(effect, Commit):
                return

    async def _store_whole(self, effect: Open, body: bytes) -> list[Effect]:
        self.object_id = uuid.uuid4()  # see _open_group
        account = str(self._context.owner.uuid)
        results = await asyncio.gather(
            *(
                self._store.storage.put(
                    address_of(server), account, str(self.object_id), body, request_id=self._context.request.request_id
                )
                for server in effect.servers
            ),
            return_exceptions=True,
        )
        outcomes = dict(zip(effect.servers, results, strict=True))
        stored = {server: result for server, result in outcomes.items() if isinstance(result, StoredCopy)}
        refused = self._refusal(outcomes)
        if refused:
            await self._delete_copies(list(stored), self._digest.digest())
            return self.machine.copy_refused(*refused)
        self._whole = effect.servers
        for server in effect.servers:
            self.machine.copy_opened(server.id)
        self.machine.body_ended(self._size_bytes, self._digest.digest())
        effects: list[Effect] = []
        for server, copy in stored.items():
            if self.machine.state == State.STORING:
                effects += self.machine.copy_stored(server.id, copy.size_bytes, copy.md5)
        return effects

    def _refusal(self, outcomes: Mapping[StorageServer, object]) -> tuple[str, str] | None:
        """A server that was asked and did not do it, with its reason; what is no storage server's word is raised."""
        refused: tuple[str, str] | None = None
        for server, result in outcomes.items():
            if isinstance(result, StorageError):
                refused = (server.id, str(result))
                if isinstance(result, StorageUnavailable):
                    self._store.directory.suspect(server.id)
            elif isinstance(result, BaseException):
                raise result
        if refused:
            log.warning("storage server refused a copy", server=refused[0], why=refused[1])
        return refused

    async def _open(self, effects: list[Effect]) -> None:
        """Until all servers of one group are ready, or the tries are used up."""
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Open):
                todo += await self._open_group(effect)
            elif isinstance(effect, Abort):
                self._abort()
            elif isinstance(effect, Reply):
                raise unavailable(f"no storage server took the object: {effect.failure}")
            elif isinstance(effect, Accept):
                return

    async def _open_group(self, effect: Open) -> list[Effect]:
        self.object_id = uuid.uuid4()  # used once: a server of the last try may have that one, or be about to
        results = await asyncio.gather(*(self._open_copy(server) for server in effect.servers), return_exceptions=True)
        outcomes = dict(zip(effect.servers, results, strict=True))
        self._writers.update({s.id: result for s, result in outcomes.items() if isinstance(result, CopyWriter)})
        refused = self._refusal(outcomes)
        if refused:
            self._abort()
            return self.machine.copy_refused(*refused)
        out: list[Effect] = []
        for server in effect.servers:
            out += self.machine.copy_opened(server.id)
        return out

    async def _open_copy(self, server: StorageServer) -> CopyWriter:
        return await self._store.storage.open_put(
            address_of(server), str(self._context.owner.uuid), str(self.object_id), self._wish.size_bytes,
            request_id=self._context.request.request_id,
        )  # fmt: skip

    @contextlib.contextmanager
    def _body_errors(self) -> Iterator[None]:
        """What can go wrong while the body comes, as the API says it."""
        try:
            yield
        except BodyTimeout as error:
            raise ApiError.of("UploadTimeout", seconds=UPLOAD_IDLE_S) from error
        except BodyMalformed as error:
            raise ApiError.of("BadRequestError", why=str(error)) from error
        except (StorageError, RequestFailed) as error:
            raise self._lost(error) from error

    async def _stream(self) -> None:
        with self._body_errors():
            size = self._wish.size_bytes
            if size is not None and size > SMALL_BYTES:
                await self._stream_in_thread()
            else:
                async for chunk in self._context.request.chunks():
                    self._count(chunk)
                    await asyncio.gather(*(writer.write(chunk) for writer in self._writers.values()))

    async def _stream_in_thread(self) -> None:
        writers = [await writer.thread_writer() for writer in self._writers.values()]
        # Each server hashes what it got; where two or more do, their agreement says what a third hash here would.
        self._hashed = len(writers) < 2

        def consume(piece: memoryview) -> None:
            for write in writers:
                write(piece)
            if self._hashed:
                self._digest.update(piece)
            self._size_bytes += len(piece)

        await self._context.request.receive_into(consume)

    def _count(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes > self._wish.most_bytes:
            raise ApiError.of("MaxContentLengthExceeded", most=self._wish.most_bytes)
        self._digest.update(chunk)

    async def _finish(self) -> None:
        results = await asyncio.gather(*(w.finish() for w in self._writers.values()), return_exceptions=True)
        copies = [result for result in results if isinstance(result, StoredCopy)]
        md5 = copies[0].md5 if copies and not self._hashed else self._digest.digest()
        self.machine.body_ended(self._size_bytes, md5)
        effects: list[Effect] = []
        for server, result in zip(self._writers, results, strict=True):
            if isinstance(result, StoredCopy) and self.machine.state == State.STORING:
                effects += self.machine.copy_stored(server, result.size_bytes, result.md5)
            elif isinstance(result, BaseException):
                raise self._lost(result) if isinstance(result, StorageError) else result
        if not any(isinstance(effect, Commit) for effect in effects):
            raise unavailable(f"the copies could not be stored: {self.machine.why}")

    def _lost(self, error: BaseException) -> ApiError:
        log.warning("copy lost while it was written", why=str(error))
        return unavailable(f"a copy was lost while it was written: {error}")

    def _abort(self) -> None:
        for writer in self._writers.values():
            writer.abort()
        self._writers.clear()

    async def discard(self) -> None:
        """Drop what the servers have, as far as they can be asked; what stays is swept, as no entry names it."""
        servers = [*self._whole, *(s for s in self.machine.servers if s.id in self._writers)]
        self._abort()
        if self.machine.md5:
            await self._delete_copies(servers, self.machine.md5)

    async def _delete_copies(self, servers: Sequence[StorageServer], digest: bytes) -> None:
        account = str(self._context.owner.uuid)
        delete = self._store.storage.delete
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_BOUND_S):
                await asyncio.gather(
                    *(delete(address_of(s), account, str(self.object_id), self._size_bytes, digest) for s in servers),
                    return_exceptions=True,
                )
