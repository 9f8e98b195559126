"""The two ends of a job's terminal, `mlogin`'s and its agent's: websockets, which the job's supervisor pairs (`jobs.reflector`).

Source: the compute contract, section "mlogin / medusa".
"""

from __future__ import annotations

import uuid

import msgspec

from mobula.core.errors import ApiError, unavailable
from mobula.metadata.jobs import State
from mobula.webapi.context import Context, JobsOfRegion
from mobula.webapi.jobs import live_job
from mobula.wire import websocket
from mobula.wire.http_client import ClientResponse
from mobula.wire.http_failures import RequestFailed

SIDES = ("master", "slave")


async def handle(context: Context, jobs: JobsOfRegion) -> None:
    """Answer ``GET /:login/medusa/attach/:job/(master|slave)``, whose caller may do so; returns when the websocket has ended.

    Raises:
        ApiError: as the contract says.
    """
    match context.path.names[1:]:
        case "attach", text, side if side in SIDES:
            job = _id(context, text)
        case _:
            raise ApiError.of("ResourceNotFound", path=context.path)
    if context.request.method != "GET":
        raise ApiError.of(
            "MethodNotAllowedError", method=context.request.method, path=context.path, headers=(("Allow", "GET"),)
        )
    row = await live_job(context, jobs.door, job)
    if row.state is State.DONE:
        raise ApiError.of("InvalidJobState", job=job, state=row.state)
    if not websocket.is_asked_for(context.request.headers):
        raise ApiError.of(
            "InvalidArgumentError", why=f"{context.path} is a websocket: send the headers that ask for one (RFC 6455)"
        )
    try:
        reply = await jobs.attach(job, side, websocket.asked_on(context.request.headers))
        if reply.status != websocket.SWITCHING:
            raise await _refusal(context, reply)
    except RequestFailed as error:
        raise unavailable(f"the supervisor of job {job} can't be asked: {error}") from error
    await websocket.pass_on(reply, context.response)


def _id(context: Context, text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise ApiError.of("ResourceNotFound", path=context.path) from error


async def _refusal(context: Context, reply: ClientResponse) -> ApiError:
    """Raises RequestFailed."""
    body = await reply.body()
    if reply.status == 409:
        return ApiError("EntityAlreadyExists", f"{context.path} is there already: a job has one session at a time")
    try:
        why = str(msgspec.json.decode(body)["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        why = f"it answered {reply.status}"
    return unavailable(f"the supervisor of job {context.path.names[2]}: {why}")
