"""The webapi: routes a request to its handler, and turns whatever goes wrong into an answer of the documented form."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
from collections.abc import Mapping

import structlog

from mobula.core.clock import SystemClock
from mobula.core.errors import ApiError, unavailable
from mobula.core.media import cors_on_preflight, is_directory_type, is_link_type
from mobula.core.paths import NAMESPACES, InvalidPath, Path, parse
from mobula.core.tokens import TokenKey
from mobula.metadata import model
from mobula.metadata.job_store import PostgresJobDoor
from mobula.metadata.metering import Metering
from mobula.metadata.model import Kind
from mobula.metadata.repairing import Repairs
from mobula.metadata.store import PostgresMetadata
from mobula.webapi import directories, jobs, links, medusa, objects, token
from mobula.webapi.auth import authenticate, authorize, require_caller, require_secure
from mobula.webapi.bound import DECIDE_S, Bound
from mobula.webapi.config import WebapiConfig
from mobula.webapi.context import Context, JobsOfRegion, Store, read_query
from mobula.webapi.notes import Notes
from mobula.webapi.placement import StorageDirectory
from mobula.webapi.usage import Bill
from mobula.wire.accounts import Accounts, Authcaches
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.http_exchange import BodyTooLarge, Request, Response
from mobula.wire.registered import ROOT, addresses_of
from mobula.wire.storage_client import StorageClient, StorageUnavailable
from mobula.wire.supervisors import Line, Supervisors
from mobula.wire.zookeeper import Client, Tree

log = structlog.get_logger()

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
OF_STORAGE = "DELETE, GET, HEAD, OPTIONS, PUT"
NOTES_PERIOD_S = 2.0
LAST_HAND_OVER_S = 2.0
"""for shards to take what was counted, before the process ends"""
JOBS, MEDUSA = "jobs", "medusa"
NOT_YET = frozenset({JOBS, "uploads", MEDUSA})
"""parts of the API that are not there, or not in every region"""
CROSSDOMAIN = b"""<?xml version="1.0"?>
<cross-domain-policy><site-control permitted-cross-domain-policies="none"/></cross-domain-policy>
"""


class Webapi:
    """The handlers, given what they work with."""

    def __init__(self, accounts: Accounts, store: Store, token_key: TokenKey) -> None:
        self._accounts = accounts
        self._store = store
        self._token_key = token_key
        self._namespaces = NAMESPACES if store.jobs is None else (JOBS, *NAMESPACES)

    async def handle(self, request: Request, response: Response) -> None:
        """Answer one request, and count it."""
        bill = Bill()
        try:
            await self._handle(request, response, bill)
        finally:
            self._store.usage.count(
                bill, request.method, response.status, bytes_in=request.received_bytes, bytes_out=response.sent_bytes
            )

    async def _handle(self, request: Request, response: Response, bill: Bill) -> None:
        if (request.headers.get("user-agent") or "").startswith("curl"):
            response.keep_alive = False
        try:
            async with Bound.of(DECIDE_S) as bound:
                response.on_start = bound.lift
                await self._route(request, response, bound, bill)
        except ApiError as error:
            failure = error
        except model.MetadataError as error:
            failure = _translate(error, request)
        except BodyTooLarge as error:
            failure = ApiError("RequestEntityTooLargeError", str(error))
        else:
            return
        if response.started:
            raise StorageUnavailable(f"the answer broke off: {failure.message}") from failure
        if failure.code == "UploadTimeout":
            response.keep_alive = False
        await response.send_error(failure.status, failure.code, failure.message, failure.headers)

    async def _route(self, request: Request, response: Response, bound: Bound, bill: Bill) -> None:
        if request.path in {b"", b"/"}:
            await response.send(302, [("Location", "/docs/"), ("Content-Type", "text/plain")])
            return
        if request.path == b"/crossdomain.xml" and request.method in {"GET", "HEAD"}:
            await response.send(200, [("Content-Type", "text/xml")], CROSSDOMAIN)
            return
        if request.method not in METHODS:
            raise _not_allowed(request.method, request.path.decode("latin-1"), ", ".join(METHODS))
        context = await self._identify(request, response, bound)
        if context.caller is None or context.caller.account.uuid == context.owner.uuid:
            bill.account = context.owner.uuid  # not what an operator does there
        if context.path.namespace == "tokens":
            await self._tokens(context)
            return
        if context.path.namespace == MEDUSA and self._store.jobs is not None:
            authorize(context.caller, context.owner, request.method, context.path)
            await medusa.handle(context, self._store.jobs)
            return
        self._namespace_is_there(context.path)
        if context.path.namespace == JOBS and self._store.jobs is not None:
            authorize(context.caller, context.owner, request.method, context.path)
            if await jobs.handle(context, self._store.jobs, self._store.metadata):
                return
        if objects.needs_no_look(context):
            await self._put_unseen(context)
            return
        await self._look(context)
        authorize(context.caller, context.owner, request.method, context.path)
        await self._handlers[request.method](self, context)

    async def _put_unseen(self, context: Context) -> None:
        """A small object's PUT without a look first, as the write itself refuses what a look would have found. What stopped it is said in
        the order in which it would have been found.
        """
        try:
            authorize(context.caller, context.owner, context.request.method, context.path)
            await objects.put(context, self._store)
        except (ApiError, model.MetadataError) as error:
            if isinstance(error, model.Unavailable | model.OutcomeUnknown) or getattr(error, "status", 0) == 503:
                raise  # nobody could decide it: a look would wait as long again, and explain nothing
            await self._look(context)
            authorize(context.caller, context.owner, context.request.method, context.path)
            objects.admit(context)
            raise

    async def _identify(self, request: Request, response: Response, bound: Bound) -> Context:
        """Who asks, for what, of whom: before anything is looked at."""
        query = read_query(request.query)
        caller = await authenticate(request, query, self._accounts, self._token_key, dt.datetime.now(dt.UTC))
        try:
            path = parse(request.path)
        except InvalidPath as error:
            raise ApiError.of("InvalidResource", path=request.path.decode("latin-1")) from error
        owner = await self._accounts.get(path.login)
        if owner is None:
            raise ApiError.of("AccountDoesNotExist", login=path.login)
        require_secure(request, query, caller, path)
        require_caller(caller, request.method, path)
        return Context(request, response, bound, path, owner, caller, query)

    def _namespace_is_there(self, path: Path) -> None:
        if path.namespace in NOT_YET and path.namespace not in self._namespaces:
            raise ApiError.of("NotImplemented", what=f"/{path.login}/{path.namespace}")
        if path.namespace and path.namespace not in self._namespaces:
            raise ApiError.of("ResourceNotFound", path=path)

    async def _look(self, context: Context) -> None:
        """One look at what is there. What is not is said before anything else; root directories always are there."""
        path, metadata = context.path, self._store.metadata
        if path.is_account:
            return
        found = context.found = await metadata.lookup(context.directory, path.name)
        if found.entry is not None or path.is_root or context.request.method in {"OPTIONS", "POST"}:
            return
        if context.request.method != "PUT" or _is_update(context):
            raise ApiError.of("ResourceNotFound", path=path)
        if not found.directory_exists and not path.parent.is_root:
            above = await metadata.lookup(path.parent.parent.stored(context.owner.uuid), path.parent.name)
            context.parent_is_object = above.entry is not None and above.entry.kind == Kind.OBJECT
            if not context.parent_is_object:
                raise ApiError.of("DirectoryDoesNotExist", path=path.parent)

    async def _tokens(self, context: Context) -> None:
        if len(context.path.names) > 1:
            raise ApiError.of("ResourceNotFound", path=context.path)
        if context.request.method != "POST":
            raise _not_allowed(context.request.method, context.path, "POST")
        await token.create(context, self._token_key)

    async def _put(self, context: Context) -> None:
        kind = context.header("content-type")
        if _is_update(context):
            await objects.put_metadata(context, self._store)
        elif is_directory_type(kind):
            await directories.put(context, self._store.metadata)
        elif is_link_type(kind):
            await links.put(context, self._store, self._accounts)
        else:
            await objects.put(context, self._store)

    async def _show(self, context: Context) -> None:
        entry = context.found.entry
        if context.path.is_account:
            await directories.show_account(context, self._namespaces)
        elif entry is None or entry.kind == Kind.DIRECTORY:
            await directories.show(context, self._store.metadata, entry)
        else:
            await objects.show(context, self._store, entry)

    async def _delete(self, context: Context) -> None:
        await context.body(65_536)
        entry = context.found.entry
        if context.path.is_root:
            raise ApiError.of("OperationNotAllowedOnRootDirectory", path=context.path)
        if entry is not None and entry.kind == Kind.DIRECTORY:
            await directories.delete(context, self._store.metadata)
        else:
            await objects.delete(context, self._store)

    async def _options(self, context: Context) -> None:
        """A browser asks what it may do; for a PUT its new name's directory says."""
        entry, path = context.found.entry, context.path
        if context.header("access-control-request-method") == "PUT" and not path.is_root:
            path = path.parent
            entry = (await self._store.metadata.lookup(path.parent.stored(context.owner.uuid), path.name)).entry
        if entry is None and not path.is_root:
            raise ApiError.of("ResourceNotFound", path=path)
        answer = cors_on_preflight(entry.headers, context.header) if entry is not None else {}
        await context.response.send(200, [("Allow", OF_STORAGE), *answer.items()])

    async def _post(self, context: Context) -> None:
        raise _not_allowed("POST", context.path, OF_STORAGE)

    _handlers = {"GET": _show, "HEAD": _show, "PUT": _put, "DELETE": _delete, "OPTIONS": _options, "POST": _post}  # noqa: RUF012


def _is_update(context: Context) -> bool:
    return context.query.get("metadata") == "true"


def _not_allowed(method: str, path: object, allow: str) -> ApiError:
    return ApiError.of("MethodNotAllowedError", method=method, path=path, headers=(("Allow", allow),))


def _translate(error: model.MetadataError, request: Request) -> ApiError:
    """What the metadata tier refused, as the API says it."""
    path = request.path.decode("latin-1")
    parent = path.rstrip("/").rpartition("/")[0]
    if isinstance(error, model.Unavailable | model.OutcomeUnknown):
        log.warning("metadata unavailable", why=str(error))
        return unavailable("the metadata tier can't decide this now; try again")
    if isinstance(error, model.GroupChanged):
        return unavailable("the storage servers of this object were changed while it was written; try again")
    codes: Mapping[type[model.MetadataError], tuple[str, str]] = {
        model.DirectoryMissing: ("DirectoryDoesNotExist", parent),
        model.ParentNotDirectory: ("ParentNotDirectory", parent),
        model.IsDirectory: ("OperationNotAllowedOnDirectory", path),
        model.NotFound: ("ResourceNotFound", path),
        model.DirectoryNotEmpty: ("DirectoryNotEmpty", path),
        model.DirectoryFull: ("DirectoryLimitExceeded", parent),
    }
    if isinstance(error, model.PreconditionFailed):
        # It held when we looked, so another request was faster.
        return ApiError.of("ConcurrentRequest", path=path)
    code, what = codes[type(error)]
    return ApiError.of(code, path=what)


class Service:
    """One process: the handlers, wired to the shards, the authcaches and the storage hosts of a region."""

    def __init__(self, config: WebapiConfig) -> None:
        self._zookeeper = Client(config.zookeeper)
        self._metadata = PostgresMetadata(self._zookeeper, config.postgres)
        self._auth_http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=2.0), tls=config.tls.client_context())
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=60.0))
        storage = StorageClient(self._http, key=config.signing_key(), caller=config.host, clock=SystemClock())
        self._directory = StorageDirectory(storage)
        self._tree = Tree(self._zookeeper, ROOT, self._on_names)
        accounts = Authcaches(self._auth_http, [Address.parse(text) for text in config.authcaches])
        pick = random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._notes = Notes()
        self._supervisors = Supervisors(self._zookeeper)
        self._door = PostgresJobDoor(self._metadata)
        self._line = Line(
            self._supervisors, self._http, key=config.signing_key(), caller=config.host, clock=SystemClock()
        )
        jobs_of_region = JobsOfRegion(
            self._door,
            lambda job: self._line.wake(self._door.shard_of(job), job),
            lambda job, side, headers: self._line.attach(self._door.shard_of(job), job, side, headers),
            config.images,
        )
        store = Store(self._metadata, storage, self._directory, config.az, pick, self._notes, jobs_of_region)
        self._webapi = Webapi(accounts, store, config.tokens())
        self._usage, self._metering = store.usage, Metering(self._metadata)
        self._tasks: list[asyncio.Task[None]] = []

    def _on_names(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        self._directory.on_change(addresses_of(picture, "storage"))

    async def start(self) -> None:
        """Begin to follow the region."""
        self._zookeeper.start()
        self._metadata.start()
        self._tree.start()
        self._supervisors.start()
        self._directory.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._hand_on_notes()),
            loop.create_task(self._usage.keep_handing_over(self._metering)),
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(model.MetadataError, TimeoutError):
            async with asyncio.timeout(LAST_HAND_OVER_S):
                await self._usage.hand_over(self._metering)
        self._tree.stop()
        self._supervisors.stop()
        self._directory.stop()
        self._metadata.stop()
        await self._http.close()
        await self._auth_http.close()
        await self._zookeeper.stop()

    async def _hand_on_notes(self) -> None:
        """Let the workers know of copies that were not found."""
        repairs = Repairs(self._metadata)
        while True:
            await asyncio.sleep(NOTES_PERIOD_S)
            notes = self._notes.take()
            try:
                await repairs.note(notes)
            except model.MetadataError as error:
                log.info("missing copies not noted", copies=len(notes), why=str(error))

    def status(self) -> dict[str, object]:
        """Healthy once the shard map is known."""
        ready = self._metadata.ready
        return {
            "healthy": ready,
            "why": "" if ready else "the shard map has not been read from ZooKeeper yet",
            "storage_servers": sorted(self._directory.rooms),
        }

    async def handle(self, request: Request, response: Response) -> None:
        await self._webapi.handle(request, response)
