"""How agents and supervisors talk: JSON over HTTP, a supervisor on some api host for each shard. Both sides are here.

POST /jobs/<shard>/orders      what an agent has room for, and what it has   -> tasks, their jobs, what it should not have
POST /jobs/<shard>/results     what came of attempts                         -> 204
POST /jobs/<shard>/made        names that an attempt has put out             -> whether it counts
POST /jobs/<shard>/feed        more of what a reducer gets                   -> feeds, whether that is all
POST /jobs/<shard>/wake/<job>  something has happened to a job               -> 204
GET /jobs/<shard>/attach/<job>/master and /slave     an end of its terminal  -> 101, a websocket; 409 if there is one
503: nobody leads that shard here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mobula.core.capability import HEADER, CapabilityRefused, verify
from mobula.core.clock import Clock
from mobula.jobs.lead import Agent, Lead, Order
from mobula.jobs.reflector import Reflector
from mobula.jobs.session import Side, Taken
from mobula.metadata.jobs import Attempt, Feed, Job, Made, Result, Task
from mobula.metadata.model import MetadataError, NotFound, Unavailable
from mobula.wire import websocket
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address, RequestFailed
from mobula.wire.supervisors import SUBJECT, permission

BODY_BYTES_MAX = 64 << 20


class Ask(msgspec.Struct, frozen=True):
    agent: Agent
    slots: int
    held: tuple[Attempt, ...] | None = None
    most: int = 0


class Orders(msgspec.Struct, frozen=True):
    tasks: tuple[Task, ...]
    jobs: tuple[Job, ...]
    strangers: tuple[Attempt, ...] = ()


class Results(msgspec.Struct, frozen=True):
    agent: Agent
    results: tuple[Result, ...]
    lost: tuple[Attempt, ...]


class Names(msgspec.Struct, frozen=True):
    attempt: Attempt
    after: int
    made: tuple[Made, ...]


class More(msgspec.Struct, frozen=True):
    job: uuid.UUID
    phase: int
    reducer: int
    after: int
    limit: int


class Feeds(msgspec.Struct, frozen=True):
    feeds: tuple[Feed, ...]
    whole: bool


# Made at import: msgspec is not safe when several threads are the first to decode a type.
_ask, _results, _more = msgspec.json.Decoder(Ask), msgspec.json.Decoder(Results), msgspec.json.Decoder(More)
_orders, _feeds = msgspec.json.Decoder(Orders), msgspec.json.Decoder(Feeds)
_names, _bool = msgspec.json.Decoder(Names), msgspec.json.Decoder(bool)


class SupervisorDoor:
    """Answers agents and webapis. `leads`: by shard, while their term lasts."""

    def __init__(self, leads: Mapping[int, Lead], keys: Sequence[bytes], clock: Clock) -> None:
        self._leads = leads
        self._keys = keys
        self._clock = clock
        self._reflector = Reflector()

    @property
    def terminals(self) -> int:
        """Of sessions that are open."""
        return self._reflector.count

    async def handle(self, request: Request, response: Response) -> None:
        """mobula.wire.http_server.Handler."""
        try:
            verify(self._keys, request.headers.get(HEADER), request.method, SUBJECT, None, now_s=self._clock.now_s())
            if request.method == "GET":
                await self._attach(request, response)
                return
            body = await self._answer(request, await request.body(BODY_BYTES_MAX))
        except CapabilityRefused as error:
            await response.send_error(403, "AuthorizationFailed", str(error))
        except msgspec.MsgspecError as error:
            await response.send_error(400, "BadRequestError", f"the body is not understood: {error}")
        except Taken as error:
            await response.send_error(409, "EntityAlreadyExists", str(error))
        except NotFound as error:
            await response.send_error(404, "ResourceNotFound", str(error))
        except MetadataError as error:
            await response.send_error(503, "ServiceUnavailable", str(error))
        else:
            await response.send(200 if body else 204, [("Content-Type", "application/json")] if body else (), body)

    async def _answer(self, request: Request, body: bytes) -> bytes:
        lead, verb, more = self._asked(request)
        if verb == "orders":
            return await _order(lead, _ask.decode(body))
        if verb == "results":
            told = _results.decode(body)
            await lead.results(told.agent, told.results, told.lost)
        elif verb == "made":
            names = _names.decode(body)
            return msgspec.json.encode(await lead.made(names.attempt, names.after, names.made))
        elif verb == "feed":
            wanted = _more.decode(body)
            feeds, whole = await lead.feed(wanted.job, wanted.phase, wanted.reducer, wanted.after, wanted.limit)
            return msgspec.json.encode(Feeds(tuple(feeds), whole))
        elif verb == "wake":
            lead.wake(msgspec.convert(more[0], uuid.UUID))
        else:
            raise NotFound(f"{verb!r} is nothing that a supervisor does")
        return b""

    def _asked(self, request: Request) -> tuple[Lead, str, Sequence[str]]:
        """Who leads the shard, the verb, and what follows it. Raises Unavailable."""
        _, _, shard, verb, *more = [*request.path.decode("latin-1").split("/"), "", "", "", ""]
        lead = self._leads.get(int(shard)) if shard.isdecimal() else None
        if lead is None or not lead.leads:
            raise Unavailable(f"nobody leads the jobs of shard {shard!r} here")
        return lead, verb, more

    async def _attach(self, request: Request, response: Response) -> None:
        """Raises Taken, MetadataError, msgspec.MsgspecError."""
        lead, verb, more = self._asked(request)
        if verb != "attach" or not websocket.is_asked_for(request.headers):
            raise NotFound("what can be got from a supervisor is a websocket to a job's terminal")
        job, side = msgspec.convert(more[0], uuid.UUID), msgspec.convert(more[1], Side)
        await self._reflector.attach(job, side, request, response, lambda: lead in self._leads.values())


async def _order(lead: Lead, ask: Ask) -> bytes:
    strangers = lead.strangers(ask.agent, ask.held) if ask.held is not None else []
    orders = [] if strangers else await lead.orders(ask.agent, ask.slots, ask.held, most=ask.most)
    jobs = {order.job.id: order.job for order in orders}
    return msgspec.json.encode(Orders(tuple(order.task for order in orders), tuple(jobs.values()), tuple(strangers)))


class HttpSupervisor:
    """Of one shard, over the wire: what `agent.Work` and `runner.Feeder` ask. `where` says who leads it now, None: nobody."""

    def __init__(
        self,
        shard: int,
        where: Callable[[], Address | None],
        client: HttpClient,
        *,
        key: bytes,
        me: Agent,
        clock: Clock,
    ) -> None:
        self._shard = shard
        self._where = where
        self._client = client
        self._key = key
        self._me = me
        self._clock = clock

    async def orders(
        self, slots: int, held: Sequence[Attempt] | None, most: int = 0
    ) -> tuple[Sequence[Order], Sequence[Attempt]]:
        """Work, for which it waits; and what this agent has and should not."""
        ask = Ask(self._me, slots, None if held is None else tuple(held), most)
        told = _orders.decode(await self._post("orders", ask))
        jobs = {job.id: job for job in told.jobs}
        return [Order(task, jobs[task.attempt.job], self._shard) for task in told.tasks], told.strangers

    async def results(self, results: Sequence[Result], lost: Sequence[Attempt]) -> None:
        """Returns once they are decided."""
        await self._post("results", Results(self._me, tuple(results), tuple(lost)))

    async def made(self, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        """`posting.Keeper`."""
        return _bool.decode(await self._post("made", Names(attempt, after, tuple(made))))

    async def feed(
        self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int
    ) -> tuple[Sequence[Feed], bool]:
        """`runner.Feeder`."""
        told = _feeds.decode(await self._post("feed", More(job, phase, reducer, after, limit)))
        return told.feeds, told.whole

    async def _post(self, verb: str, message: object) -> bytes:
        """Raises Unavailable."""
        where = self._where()
        if where is None:
            raise Unavailable(f"nobody leads the jobs of shard {self._shard}")
        headers = [permission(self._key, self._me.host, self._clock), ("Content-Type", "application/json")]
        target = f"/jobs/{self._shard}/{verb}"
        try:
            reply = await self._client.request(
                where, "POST", target, headers=headers, body=msgspec.json.encode(message), repeatable=True
            )
            body = await reply.body(BODY_BYTES_MAX)
        except RequestFailed as error:
            raise Unavailable(f"ask the supervisor of shard {self._shard}: {error}") from error
        if reply.status not in (200, 204):
            raise Unavailable(
                f"ask the supervisor of shard {self._shard}: {reply.status} {body[:200].decode(errors='replace')}"
            )
        return body
