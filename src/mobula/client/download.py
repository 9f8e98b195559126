"""Getting an object: its bytes, checked, across connections that break.

What has arrived is kept: after a break the rest is asked for by `Range`, with `If-Match` so that it is the rest of the same object.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mobula.client.effects import PAUSE_S, TRIES_MAX, Emit, Operation, Pause, Stream, ask, read
from mobula.client.errors import MobulaError
from mobula.client.model import Info, Request
from mobula.client.operations import NO_FIELDS, Fields, pairs, read_info
from mobula.core.ranges import ByteRange
from mobula.wire.http_failures import RequestFailed

Begun = Callable[[Info], None]


class Partial(NamedTuple):
    """What an earlier call got of an object: what `info` said of it, and its first bytes."""

    found: Info
    chunks: Iterable[bytes]


def get(
    path: str, *, headers: Fields = NO_FIELDS, begun: Begun = lambda _: None, had: Partial | None = None
) -> Stream[bytes]:
    """The content of an object in chunks. `begun` is told what it is before the first one. With a `Range` among `headers`, that part.

    With `had` only the rest, of the same object; the MD5 at the end is that of the whole. `headers` and `begun` are of no use then.

    Raises:
        MobulaError: also BodyDamaged: at the end, length or MD5 are not what was announced; NotObject: a directory; PreconditionFailed:
            the object that was `had` is another one now.
    """
    return Stream(_get(path, headers, begun) if had is None else _get_rest(path, had))


def _get(path: str, headers: Fields, begun: Begun) -> Operation[None]:
    request = Request("GET", path, headers=(("Accept", "*/*"), *pairs(headers)))
    answer = yield from ask(request)
    found = read_info(path, answer)
    if found.is_directory:
        raise MobulaError("NotObject", f"get {path!r}: it is a directory; list it instead", status=answer.status)
    if "content-length" not in answer.headers:
        raise MobulaError("InvalidAnswer", f"get {path!r}: the answer does not say its length", status=answer.status)
    begun(found)
    yield from _receive(found, 0, hashlib.md5(usedforsecurity=False), whole=answer.status == 200)


def _get_rest(path: str, had: Partial) -> Operation[None]:
    digest, got_bytes = hashlib.md5(usedforsecurity=False), 0
    for chunk in had.chunks:
        digest.update(chunk)
        got_bytes += len(chunk)
    if got_bytes < had.found.size_bytes:
        yield from _go_on(path, had.found, got_bytes)
    yield from _receive(had.found, got_bytes, digest, whole=True)


def _receive(found: Info, got_bytes: int, digest: hashlib._Hash, *, whole: bool) -> Operation[None]:
    """Emit what comes, after so many bytes of that MD5, and check all of it together."""
    path, failures = found.path, 0
    while True:
        broken = None
        try:
            while chunk := (yield from read()):
                digest.update(chunk)
                got_bytes += len(chunk)
                failures = 0
                yield Emit(chunk)
        except RequestFailed as error:
            broken = error
        if got_bytes >= found.size_bytes:
            break
        failures += 1
        if not (whole and found.etag) or failures == TRIES_MAX:
            why = broken or f"the answer ended after {got_bytes} of {found.size_bytes} bytes"
            raise MobulaError("ConnectionFailed", f"get {path!r}: {why}") from broken
        yield Pause(PAUSE_S * 2 ** (failures - 1))
        yield from _go_on(path, found, got_bytes)
    _check(found, got_bytes, base64.b64encode(digest.digest()).decode() if whole else "")


def _go_on(path: str, found: Info, got_bytes: int) -> Operation[None]:
    """Ask for the rest; its bytes are the next to be read."""
    rest = ByteRange(got_bytes, found.size_bytes - 1)
    headers = (("Accept", "*/*"), ("Range", f"bytes={rest.first}-{rest.last}"), ("If-Match", found.etag))
    answer = yield from ask(Request("GET", path, headers=headers))
    if answer.status != 206 or answer.headers.get("content-range") != rest.content_range(found.size_bytes):
        raise MobulaError(
            "InvalidAnswer", f"get {path!r}: the rest from byte {got_bytes} was asked for, something else came"
        )


def _check(found: Info, got_bytes: int, md5: str) -> None:
    if got_bytes != found.size_bytes:
        raise MobulaError(
            "BodyDamaged", f"get {found.path!r}: {got_bytes} bytes came, {found.size_bytes} were announced"
        )
    if md5 and found.content_md5 and md5 != found.content_md5:
        raise MobulaError(
            "BodyDamaged", f"get {found.path!r}: the MD5 of what came is {md5}, {found.content_md5} was announced"
        )
