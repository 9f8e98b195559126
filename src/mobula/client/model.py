"""Values that operations take and give."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mobula.client.errors import MobulaError

CHUNK_BYTES = 256 * 1024


class Entry(NamedTuple):
    """One entry of a directory. `kind` is ``object`` or ``directory``; the last five are an object's. `fields`: as the service sent it."""

    name: str
    kind: str
    mtime: dt.datetime
    fields: Mapping[str, Any]
    etag: str = ""
    size_bytes: int = 0
    content_type: str = ""
    content_md5: str = ""
    copies: int = 0

    @property
    def is_directory(self) -> bool:
        return self.kind == "directory"


class Info(NamedTuple):
    """What HEAD tells. `headers`: all of them, names in lower case. `entries`: of a directory, how many it has."""

    path: str
    kind: str
    headers: Mapping[str, str]
    size_bytes: int = 0
    etag: str = ""
    content_type: str = ""
    content_md5: str = ""
    mtime: dt.datetime | None = None
    entries: int | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind == "directory"


class Stored(NamedTuple):
    """What a PUT made. `md5` is base64, as the service computed it."""

    etag: str
    md5: str
    mtime: dt.datetime | None


class FileChunks:
    """The content of a file, as often as it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


Source = bytes | Path | Iterable[bytes] | AsyncIterable[bytes]
"""what can be put: bytes, a file, or a stream of chunks (an asynchronous one with the AsyncClient)"""


class Body:
    """A request's body. `repeatable`: it can be sent again from its beginning; `begun`: some of it may have been read.

    `watch` is told of each chunk before it is sent; None begins anew.
    """

    def __init__(
        self,
        chunks: Iterable[bytes] | AsyncIterable[bytes],
        size_bytes: int | None,
        *,
        repeatable: bool,
        watch: Callable[[bytes | None], None] = lambda _: None,
    ) -> None:
        self.size_bytes = size_bytes
        self.repeatable = repeatable
        self.begun = False
        self.watch = watch
        self._chunks = chunks
        self._passed_bytes = 0

    @classmethod
    def of(cls, source: Source, *, size_bytes: int | None = None) -> Body:
        """The body that a source makes; `size_bytes` is a stream's, if it is known. Raises OSError."""
        if isinstance(source, bytes | bytearray | memoryview):
            return cls([bytes(source)], len(source), repeatable=True)
        if isinstance(source, Path):
            status = source.stat()
            regular = source.is_file()
            return cls(FileChunks(source), status.st_size if regular else None, repeatable=regular)
        return cls(source, size_bytes, repeatable=False)

    @property
    def sendable(self) -> bool:
        return self.repeatable or not self.begun

    def chunks(self) -> Iterator[bytes]:
        """For a thread. Raises MobulaError (BodyChanged), and TypeError: the source is asynchronous."""
        if not isinstance(self._chunks, Iterable):
            raise TypeError("put a stream: an asynchronous one needs the AsyncClient")
        self._begin()
        for chunk in self._chunks:
            self._pass(chunk)
            yield chunk
        self._end()

    async def chunks_async(self) -> AsyncGenerator[bytes]:
        """For a coroutine. Raises MobulaError (BodyChanged)."""
        self._begin()
        if isinstance(self._chunks, Iterable):
            for chunk in self._chunks:
                self._pass(chunk)
                yield chunk
        else:
            async for chunk in self._chunks:
                self._pass(chunk)
                yield chunk
        self._end()

    def _begin(self) -> None:
        self.begun = True
        self._passed_bytes = 0
        self.watch(None)

    def _pass(self, chunk: bytes) -> None:
        self._passed_bytes += len(chunk)
        if self.size_bytes is not None and self._passed_bytes > self.size_bytes:
            raise MobulaError(
                "BodyChanged", f"send a body: it is longer than the {self.size_bytes} bytes that were announced"
            )
        self.watch(chunk)

    def _end(self) -> None:
        if self.size_bytes is not None and self._passed_bytes < self.size_bytes:
            raise MobulaError(
                "BodyChanged",
                f"send a body: it ended after {self._passed_bytes} of the {self.size_bytes} bytes that were announced",
            )


class Request(NamedTuple):
    """A request before it is signed. `path` is as people write it, not encoded; `repeatable`: doing it twice is doing it once."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Body | None = None
    repeatable: bool = True


class Answer(NamedTuple):
    """The head of a response; header names in lower case. `repeated`: an earlier try may have been carried out."""

    status: int
    headers: Mapping[str, str]
    repeated: bool = False
