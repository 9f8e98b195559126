"""Every operation of the SDK, once, for both drivers: generators of effects (see `effects`), without any I/O.

Paths are as people write them (``/demo/stor/a b``, ``~~/stor/x``), never encoded. All raise MobulaError. Source: the HTTP contract.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import quote

from mobula.client.effects import Operation, Pause, ask, refusal, send
from mobula.client.errors import MobulaError
from mobula.client.model import Answer, Body, Info, Request, Source, Stored
from mobula.core.dates import parse_date

DIRECTORY_TYPE = "application/json; type=directory"
LISTING_TYPE = "application/x-json-stream; type=directory"
LINK_TYPE = "application/json; type=link"
CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"})
NO_ETAG = '"-"'
"""of no object: they are UUIDs"""
RACES_MAX = 4
RACE_PAUSE_S = 0.25
Fields = Mapping[str, str]
"""further headers of a request"""
NO_FIELDS: Fields = MappingProxyType({})


def pairs(headers: Fields) -> tuple[tuple[str, str], ...]:
    """Headers, checked.

    Raises:
        MobulaError: InvalidSetting: a line break, or what is not Latin-1.
    """
    for name, value in headers.items():
        text = f"{name}{value}"
        if not name or any(c in text for c in "\r\n\0") or (not text.isascii() and _not_latin(text)):
            raise MobulaError("InvalidSetting", f"send the header {name!r}: {value[:80]!r} can't be a header's value")
    return tuple(headers.items())


def _not_latin(text: str) -> bool:
    return any(ord(c) > 0xFF for c in text)


def _repeatable(headers: Fields) -> bool:
    """A conditional write that is done twice fails the second time."""
    return not any(name.lower() in CONDITIONS for name in headers)


# objects


def put(
    path: str,
    source: Source,
    *,
    copies: int | None = None,
    content_type: str | None = None,
    content_md5: str | None = None,
    size_bytes: int | None = None,
    parents: bool = False,
    headers: Fields = NO_FIELDS,
    progress: Callable[[int], None] = lambda _: None,
) -> Operation[Stored]:
    """Store an object: bytes, a file (`pathlib.Path`), or a stream of chunks (`size_bytes` if its length is known).

    `content_md5` (base64) is checked by the service before it stores anything; of bytes it is computed here. Of anything else the
    digest is taken on the way and compared with what the service says it has stored. `copies`: the durability level. With
    `parents`, missing directories are made. `progress` is told how many bytes are on their way, from 0 again with each try.
    """
    try:
        body = Body.of(source, size_bytes=size_bytes)
    except OSError as error:
        raise MobulaError("InvalidPath", f"put {path!r}: {error}") from error
    if isinstance(source, bytes) and content_md5 is None:
        content_md5 = base64.b64encode(hashlib.md5(source, usedforsecurity=False).digest()).decode()
    digest = _Digest(progress, content_md5)
    body.watch = digest.watch
    fields = {**headers}
    if copies is not None:
        fields["x-durability-level"] = str(copies)
    if content_type is not None:
        fields["Content-Type"] = content_type
    if content_md5 is not None:
        fields["Content-MD5"] = content_md5
    request = Request("PUT", path, (), pairs(fields), body, repeatable=_repeatable(headers))
    answer = yield from _with_parents(request, path, parents=parents)
    stored = _stored(answer)
    if body.begun and stored.md5 and stored.md5 != digest.base64:
        raise MobulaError(
            "BodyDamaged", f"put {path!r}: the service stored bytes of MD5 {stored.md5}, {digest.base64} were sent"
        )
    return stored


class _Digest:
    """MD5 and size of a body on its way out."""

    def __init__(self, progress: Callable[[int], None], known: str | None) -> None:
        """`known`: the MD5, if it need not be computed."""
        self._progress = progress
        self._known = known
        self._begin()

    def _begin(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size_bytes = 0

    def watch(self, chunk: bytes | None) -> None:
        if chunk is None:
            self._begin()
        else:
            if self._known is None:
                self._md5.update(chunk)
            self._size_bytes += len(chunk)
        self._progress(self._size_bytes)

    @property
    def base64(self) -> str:
        return self._known or base64.b64encode(self._md5.digest()).decode()


def _stored(answer: Answer) -> Stored:
    modified = answer.headers.get("last-modified")
    return Stored(
        answer.headers.get("etag", ""),
        answer.headers.get("computed-md5", ""),
        parse_date(modified) if modified else None,
    )


def _with_parents(request: Request, path: str, *, parents: bool) -> Operation[Answer]:
    """Ask; if the directory is missing and may be made, make it and ask again."""
    try:
        return (yield from ask(request))
    except MobulaError as error:
        left = request.body is None or request.body.sendable
        if not (parents and error.code == "DirectoryDoesNotExist" and left):
            raise
    yield from mkdir(parent_of(path), parents=True)
    return (yield from ask(request))


def info(path: str, *, headers: Fields = NO_FIELDS) -> Operation[Info]:
    """What there is at `path`: HEAD."""
    answer = yield from ask(Request("HEAD", path, headers=(("Accept", "*/*"), *pairs(headers))))
    return read_info(path, answer)


def read_info(path: str, answer: Answer) -> Info:
    """The head of a GET or HEAD as a value. Pure."""
    headers = answer.headers
    kind = "directory" if _is_listing(headers.get("content-type", "")) else "object"
    modified = headers.get("last-modified")
    value = Info(
        path, kind, headers, etag=headers.get("etag", ""), content_type=headers.get("content-type", ""),
        content_md5=headers.get("content-md5", ""), mtime=parse_date(modified) if modified else None,
    )  # fmt: skip
    if kind == "directory":
        return value._replace(entries=_number(headers.get("result-set-size")))
    return value._replace(size_bytes=_number(headers.get("content-length")) or 0)


def _is_listing(content_type: str) -> bool:
    return content_type.replace(" ", "") == LISTING_TYPE.replace(" ", "")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def delete(path: str, *, headers: Fields = NO_FIELDS) -> Operation[None]:
    """Remove an object, or a directory that is empty."""
    request = Request("DELETE", path, headers=pairs(headers), repeatable=_repeatable(headers))
    answer = yield from send(request)
    if answer.status == 404 and answer.repeated:
        return  # the first try did it, and its answer was lost
    if answer.status >= 300:
        raise (yield from refusal(request, answer))


def link(source: str, path: str, *, parents: bool = False, headers: Fields = NO_FIELDS) -> Operation[Stored]:
    """Make `path` an object with the content that `source` has now: a snaplink."""
    request = Request(
        "PUT", path, (), (("Content-Type", LINK_TYPE), ("Location", quote(source, safe="/!'()*~-_.")), *pairs(headers))
    )
    return _stored((yield from _with_parents(request, path, parents=parents)))


def refer(path: str, *, reducer: int | None = None) -> Operation[None]:
    """Have an object be an output of the task that asks, for that reducer of the next phase; its bytes stay where they are.

    Only a task's own storage API knows this request. To any other one it is the put of an empty object, so it carries a condition that
    never holds: nothing is overwritten. Source: the compute contract, section "In-sandbox HTTP server".
    """
    fields = {"x-manta-reference": "true", "If-Match": NO_ETAG}
    if reducer is not None:
        fields["x-manta-reducer"] = str(reducer)
    request = Request("PUT", path, headers=pairs(fields), repeatable=False)
    answer = yield from send(request)
    if answer.status == 412:
        raise MobulaError("NotInTask", f"emit {path}: MANTA_URL is not the storage API of a task", status=412)
    if answer.status != 204:
        raise (yield from refusal(request, answer))


def update_metadata(path: str, headers: Fields) -> Operation[Stored]:
    """Replace all headers that are kept with an entry (``m-*``, CORS, role-tag ...); its content stays as it is."""
    empty = Body([], None, repeatable=True)  # chunked: a Content-Length, even of 0, would be an update of the length
    answer = yield from ask(Request("PUT", path, (("metadata", "true"),), pairs(headers), empty))
    return _stored(answer)


# directories


def mkdir(path: str, *, parents: bool = False, headers: Fields = NO_FIELDS) -> Operation[None]:
    """Make a directory; one that is there is no error. With `parents`, those above it, too.

    The deepest is tried first: usually it works, and each level up costs a request only if it is missing.
    """
    missing = [path]
    while missing:
        try:
            yield from _mkdir(missing[-1], headers)
        except MobulaError as error:
            above = parent_of(missing[-1])
            if not parents or error.code != "DirectoryDoesNotExist" or above.count("/") < 2:
                raise
            missing.append(above)
        else:
            missing.pop()


def _mkdir(path: str, headers: Fields) -> Operation[None]:
    for attempt in range(1, RACES_MAX + 1):
        try:
            yield from ask(Request("PUT", path, (), (("Content-Type", DIRECTORY_TYPE), *pairs(headers))))
        except MobulaError as error:
            if error.code not in {"ConcurrentRequest", "ConcurrentRequestError"} or attempt == RACES_MAX:
                raise
            yield Pause(RACE_PAUSE_S * attempt)
        else:
            return


def parent_of(path: str) -> str:
    """The path of the directory above. Pure."""
    return path.rstrip("/").rpartition("/")[0]
