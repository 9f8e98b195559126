"""A small Manta in the test process: directories, objects, listings in memory, as the HTTP contract has them; and faults on demand.

It serves on a loop in a thread of its own, so that blocking clients can be used beside asynchronous ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from mobula.core import signature
from mobula.core.dates import http_date, iso_ms
from mobula.core.media import is_directory_type, is_link_type
from mobula.core.paths import parse
from mobula.core.ranges import parse_range
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer

LISTING_TYPE = "application/x-json-stream; type=directory"


@dataclass
class Thing:
    """An object, or a directory (`data` None)."""

    data: bytes | None
    headers: dict[str, str]
    mtime: dt.datetime
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))


class Manta:
    """State, and what it was asked. `faults` are taken one by one: each may answer a request in place of the service."""

    def __init__(self, public_pem: str | None = None) -> None:
        self.things: dict[str, Thing] = {}
        self.seen: list[tuple[str, bytes]] = []
        self.faults: list[Callable[[Request, Response], object]] = []
        self.cut_after_bytes: list[int] = []
        """of the next answers with a body: break the connection after so many bytes"""
        self.url = ""
        self._pem = public_pem
        self._lock = threading.Lock()

    def directory(self, path: str) -> None:
        self.things[path] = Thing(None, {}, dt.datetime.now(dt.UTC))

    def object(self, path: str, data: bytes, mtime: dt.datetime | None = None) -> None:
        self.things[path] = Thing(data, {"content-type": "text/plain"}, mtime or dt.datetime.now(dt.UTC))

    async def handle(self, request: Request, response: Response) -> None:
        with self._lock:
            self.seen.append((request.method, request.target))
            fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            done = fault(request, response)
            if asyncio.iscoroutine(done):
                await done
            return
        await self.serve(request, response)

    async def serve(self, request: Request, response: Response) -> None:
        """Answer, without a fault."""
        path = str(parse(request.path))
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        if self._pem is not None and not self._signed(request):
            await response.send_error(403, "InvalidSignature", "the signature does not match")
        elif request.method == "PUT":
            await self._put(request, response, path, query)
        elif path.count("/") > 2 and path not in self.things:
            await response.send_error(404, "ResourceNotFound", f"{path} was not found")
        elif request.method == "DELETE":
            await self._delete(response, path)
        else:
            await self._show(request, response, path, query)

    def _signed(self, request: Request) -> bool:
        found = signature.parse(request.headers.get("authorization") or "Signature ")
        text = signature.signing_string(found, request.method, request.target.decode(), "1.1", request.headers.get)
        return signature.verify(found, text, self._pem or "")

    async def _put(self, request: Request, response: Response, path: str, query: dict[str, str]) -> None:
        parent = path.rpartition("/")[0]
        if parent.count("/") > 2 and parent not in self.things:
            await response.send_error(404, "DirectoryDoesNotExist", f"{parent} does not exist")
            return
        kind = request.headers.get("content-type")
        kept = {
            n.lower(): v
            for n, v in request.headers
            if n.lower().startswith(("m-", "content-type", "role-tag", "x-dur"))
        }
        if request.headers.get("if-match") in {"", '""'} and path in self.things:
            await response.send_error(412, "PreconditionFailed", "something is there")
            return
        if query.get("metadata"):
            assert request.content_length is None
            self.things[path].headers = kept
            thing = self.things[path]
            await request.body(10)
        elif is_directory_type(kind):
            self.things.setdefault(path, Thing(None, kept, dt.datetime.now(dt.UTC)))
            await response.send(204)
            return
        elif is_link_type(kind):
            source = self.things[str(parse((request.headers.get("location") or "").encode()))]
            thing = self.things[path] = Thing(source.data, source.headers, source.mtime, source.etag)
        elif path in self.things and self.things[path].data is None:
            await response.send_error(
                400, "OperationNotAllowedOnDirectory", f"this operation is not allowed on directory {path}"
            )
            return
        else:
            data = await request.body(1 << 30)
            wanted = request.headers.get("content-md5")
            if wanted not in {None, md5(data)}:
                await response.send_error(400, "ContentMD5Mismatch", "MD5 differs")
                return
            thing = self.things[path] = Thing(data, kept, dt.datetime.now(dt.UTC))
        answer = [
            ("Etag", thing.etag),
            ("Last-Modified", http_date(thing.mtime)),
            ("Computed-MD5", md5(thing.data or b"")),
        ]
        await response.send(204, answer)

    async def _delete(self, response: Response, path: str) -> None:
        if any(p.startswith(f"{path}/") for p in self.things):
            await response.send_error(400, "DirectoryNotEmpty", f"{path} is not empty")
            return
        self.things.pop(path, None)
        await response.send(204)

    async def _show(self, request: Request, response: Response, path: str, query: dict[str, str]) -> None:
        thing = self.things.get(path)
        if thing is None or thing.data is None:
            await self._list(response, path, query)
            return
        data, status = thing.data, 200
        headers = [("Etag", thing.etag), ("Last-Modified", http_date(thing.mtime)), *thing.headers.items()]
        if request.headers.get("if-match") not in {None, thing.etag}:
            await response.send_error(412, "PreconditionFailed", "the object has changed")
            return
        wanted = request.headers.get("range")
        if wanted:
            part = parse_range(wanted, len(data))
            headers.append(("Content-Range", part.content_range(len(data))))
            data, status = data[part.first : part.last + 1], 206
        else:
            headers.append(("Content-MD5", md5(data)))
        if request.method != "HEAD" and self.cut_after_bytes:
            await response.start(status, headers, content_length=len(data))
            await response.write(data[: self.cut_after_bytes.pop(0)])
            return  # unfinished: the server breaks the connection
        await response.send(status, headers, data)

    async def _list(self, response: Response, path: str, query: dict[str, str]) -> None:
        names = [p.rpartition("/")[2] for p in self.things if p.rpartition("/")[0] == path]
        by_mtime = query.get("sort") == "mtime"

        def key(name: str) -> tuple[str, bytes]:
            return (iso_ms(self.things[f"{path}/{name}"].mtime) if by_mtime else "", name.encode())

        names.sort(key=key, reverse=by_mtime)
        marker = query.get("marker")
        if marker is not None:
            names = [n for n in names if (key(n)[0] <= marker if by_mtime else n.encode() >= marker.encode())]
        lines = [
            json.dumps(self._line(f"{path}/{name}", name)) + "\n" for name in names[: int(query.get("limit", "256"))]
        ]
        await response.send(
            200, [("Content-Type", LISTING_TYPE), ("Result-Set-Size", str(len(names)))], "".join(lines).encode()
        )

    def _line(self, path: str, name: str) -> dict[str, object]:
        thing = self.things[path]
        value: dict[str, object] = {
            "name": name,
            "mtime": iso_ms(thing.mtime),
            "type": "directory" if thing.data is None else "object",
        }
        if thing.data is not None:
            value |= {
                "etag": thing.etag,
                "size": len(thing.data),
                "contentType": "text/plain",
                "contentMD5": md5(thing.data),
                "durability": 2,
            }
        return value


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@contextlib.contextmanager
def serving(manta: Manta, tls: ssl.SSLContext | None = None) -> Iterator[Manta]:
    """The service on a port of its own while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> HttpServer:
        server = HttpServer(manta.handle, identity=[("Server", "Manta")])
        port = await server.listen("127.0.0.1", 0, tls=tls)
        manta.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield manta
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(1.0), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
