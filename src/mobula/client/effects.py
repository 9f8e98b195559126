"""How an operation is written down: a generator that yields what it wants done and is sent what came of it.

An operation does no I/O. The drivers (`sync`, `asynchronous`) do what it asks for, one effect after the other, each in its own way:

    Send(request)     -> the Answer, its body unread; or RequestFailed is thrown in
    READ              -> the next chunk of that body, empty at its end; or RequestFailed is thrown in
    Pause(seconds)    -> None, later
    Emit(value)       -> None; whoever iterates over the operation has been given the value
    Together([...])   -> the results of operations that ran at the same time; a failure of one of them is thrown in

The helpers below give these their types; what stands here of retries stands nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, cast

from mobula.client.errors import MobulaError
from mobula.client.model import Answer, Request
from mobula.wire.http_failures import ConnectFailed, NotTrusted, RequestFailed

TRIES_MAX = 4
PAUSE_S = 0.5
"""before the second try; each further pause is twice as long"""
RETRY_AFTER_S_MAX = 30.0
BODY_BYTES_MAX = 64 << 20
"""of an answer that is held whole: a page of 1024 entries with long names and types"""
PARALLEL = 16


class Send(NamedTuple):
    request: Request


class Read(NamedTuple):
    pass


READ = Read()


class Pause(NamedTuple):
    seconds: float


class Emit(NamedTuple):
    value: Any


class Together(NamedTuple):
    operations: Sequence[Operation[Any]]
    parallel: int


Effect = Send | Read | Pause | Emit | Together
type Operation[T] = Generator[Effect, Any, T]
"""gives T in the end; emits nothing"""


class Stream[T]:
    """An operation that emits values of type T on its way."""

    def __init__(self, operation: Operation[None]) -> None:
        self.operation = operation


def read() -> Operation[bytes]:
    """The next chunk of the body; empty at its end."""
    return cast(bytes, (yield READ))


def together[T](operations: Sequence[Operation[T]], parallel: int = PARALLEL) -> Operation[list[T]]:
    """The results of operations that run at the same time, in their order."""
    if not operations:
        return []
    return cast(list[T], (yield Together(operations, parallel)))


def settled[T](operations: Sequence[Operation[T]], parallel: int = PARALLEL) -> Operation[list[T | MobulaError]]:
    """Likewise, but of one that fails the failure is its result, and the others go on."""
    return (yield from together([_settled(operation) for operation in operations], parallel))


def _settled[T](operation: Operation[T]) -> Operation[T | MobulaError]:
    try:
        return (yield from operation)
    except MobulaError as error:
        return error


def send(request: Request) -> Operation[Answer]:
    """The answer to a request, whatever its status; asked again where that is safe, after a pause that grows.

    Again: when nothing was sent; when the connection broke before an answer and the request may be repeated; when the service said 503
    with Retry-After, which it says of what it has not done. Never: when a body was begun that can't be read again.

    Raises:
        MobulaError: ConnectionFailed.
    """
    repeated = False
    for attempt in range(1, TRIES_MAX + 1):
        pause_s = PAUSE_S * 2 ** (attempt - 1)
        try:
            answer = cast(Answer, (yield Send(request)))
        except RequestFailed as error:
            if attempt == TRIES_MAX or not _may_repeat(request, error):
                raise _failed(error) from error
            repeated = repeated or not isinstance(error, ConnectFailed)
        else:
            wanted_s = _retry_after_s(answer)
            if wanted_s is None or attempt == TRIES_MAX or not _body_left(request):
                return answer._replace(repeated=repeated)
            pause_s = max(pause_s, wanted_s)
        yield Pause(pause_s)
    raise AssertionError("unreachable")


def _failed(error: RequestFailed) -> MobulaError:
    if isinstance(error, NotTrusted):
        return MobulaError(
            "NotTrusted", f"{error}; name its CA in MANTA_CA_FILE, or set MANTA_TLS_INSECURE=1 to trust anybody"
        )
    return MobulaError("ConnectionFailed", str(error))


def _may_repeat(request: Request, error: RequestFailed) -> bool:
    if isinstance(error, NotTrusted):
        return False
    return _body_left(request) and (request.repeatable or isinstance(error, ConnectFailed))


def _body_left(request: Request) -> bool:
    return request.body is None or request.body.sendable


def _retry_after_s(answer: Answer) -> float | None:
    """How long the service asks to wait before trying again; None if it doesn't, or for too long."""
    text = answer.headers.get("retry-after", "")
    if answer.status != 503 or not (text.isascii() and text.isdigit()):
        return None
    return float(text) if float(text) <= RETRY_AFTER_S_MAX else None


def body() -> Operation[bytes]:
    """The whole body of an answer that is small.

    Raises:
        MobulaError: ConnectionFailed, InvalidAnswer.
    """
    parts, size = [], 0
    try:
        while chunk := (yield from read()):
            parts.append(chunk)
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                raise MobulaError("InvalidAnswer", f"read an answer: more than {BODY_BYTES_MAX} bytes")
    except RequestFailed as error:
        raise MobulaError("ConnectionFailed", str(error)) from error
    return b"".join(parts)


def ask(request: Request) -> Operation[Answer]:
    """The answer to a request, if it is a good one. Raises MobulaError."""
    answer = yield from send(request)
    if answer.status >= 300:
        raise (yield from refusal(request, answer))
    return answer


def refusal(request: Request, answer: Answer) -> Operation[MobulaError]:
    """What an answer that is an error says. A HEAD's has no body: the status has to do."""
    text = b"" if request.method == "HEAD" else (yield from body())
    return read_refusal(request, answer, text)


_USUAL = {
    304: ("NotModified", "{path} has not changed"),
    403: ("AuthorizationFailed", "access to {path} is refused"),
    404: ("ResourceNotFound", "{path} was not found"),
    412: ("PreconditionFailed", "{path}: a condition of the request does not hold"),
    503: ("ServiceUnavailable", "the service can't decide this now; try again"),
}
"""for answers without a body"""


def read_refusal(request: Request, answer: Answer, text: bytes) -> MobulaError:
    """The error in an answer's JSON. Pure."""
    code, message = _USUAL.get(
        answer.status, (f"Status{answer.status}", f"{request.method} {{path}} answered {answer.status}")
    )
    message = message.format(path=request.path)
    try:
        found = json.loads(text)
        code, message = str(found["code"]), str(found["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return MobulaError(code, message, status=answer.status, request_id=answer.headers.get("x-request-id", ""))
