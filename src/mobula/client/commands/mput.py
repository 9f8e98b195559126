"""mput: put objects, from files or from standard input."""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mobula.client.commands.command import (
    Call,
    Command,
    UsageError,
    header_options,
    headers_of,
    positive,
)
from mobula.client.commands.progress import Bar, Part
from mobula.client.commands.workers import run_all
from mobula.client.errors import MobulaError
from mobula.client.model import CHUNK_BYTES, FileChunks


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH")
    parser.add_argument(
        "-f", "--file", action="append", default=[], metavar="FILE",
        help="put this file, not standard input; several go into the directory PATH",
    )  # fmt: skip
    parser.add_argument("-c", "--copies", type=positive, metavar="N", help="keep so many copies (2)")
    parser.add_argument(
        "-m", "--md5", action="store_true", help="have it refused unless the MD5 is right (the file is read twice)"
    )
    parser.add_argument("-p", "--parents", action="store_true", help="make missing directories")
    parser.add_argument("-t", "--type", metavar="TYPE", help="content type; without, by the name's extension")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    header_options(parser)
    parser.add_argument("--parallel", type=positive, default=4, metavar="N", help="so many files at the same time (4)")


def run(call: Call) -> None:
    wish = call.options
    headers = headers_of(wish)
    files = [Path(name) for name in wish.file]
    if not files:
        if wish.md5:
            raise UsageError(
                "compute the MD5 first: standard input can be read only once; use -f, or -H 'Content-MD5: ...'"
            )
        with Bar(wish.path, None, quiet=wish.quiet) as bar:
            _put(call, wish.path, chunks_of(sys.stdin.buffer), bar, headers)
        return
    total_bytes = sum(path.stat().st_size for path in files)
    with Bar(files[0].name if len(files) == 1 else f"{len(files)} files", total_bytes, quiet=wish.quiet) as bar:
        if len(files) == 1:
            _put_file(call, files[0], wish.path, bar, headers)
        else:
            jobs = (partial(_put_file, call, p, f"{wish.path.rstrip('/')}/{p.name}", bar, headers) for p in files)
            run_all(jobs, min(wish.parallel, len(files)), call.failures)


def _put_file(call: Call, file: Path, path: str, bar: Bar, headers: Mapping[str, str]) -> None:
    """Put a file; onto a directory, into it."""
    if file.is_dir():
        raise MobulaError("InvalidPath", f"put {str(file)!r}: it is a directory; use msync")
    try:
        _put(call, path, file, bar, headers)
    except MobulaError as error:
        if error.code != "OperationNotAllowedOnDirectory":
            raise
        _put(call, f"{path.rstrip('/')}/{file.name}", file, bar, headers)


def _put(call: Call, path: str, source: Path | Iterator[bytes], bar: Bar, headers: Mapping[str, str]) -> None:
    wish = call.options
    content_type = wish.type or type_of(source, path, headers)
    content_md5 = md5_of(source) if wish.md5 and isinstance(source, Path) else None
    call.client.put(
        path, source, copies=wish.copies, content_type=content_type, content_md5=content_md5, parents=wish.parents,
        headers=headers, progress=Part(bar).at,
    )  # fmt: skip


def type_of(source: Any, path: str, headers: Mapping[str, str]) -> str | None:
    """Content type by the extension of the file's name, or of the path's; None if it is among the headers, or can't be told."""
    if any(name.lower() == "content-type" for name in headers):
        return None
    import mimetypes  # noqa: PLC0415 (reads the system's table)

    name = source.name if isinstance(source, Path) else path
    extension = name.rpartition("/")[2].rpartition(".")[2]
    return mimetypes.guess_type(f"x.{extension}", strict=False)[0] if "." in name else None


def md5_of(path: Path) -> str:
    """MD5 of a file, in base64. Raises OSError."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in FileChunks(path):
        digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()


def chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    """What a stream has, as it comes: a slow pipe is not waited for. Raises OSError."""
    while chunk := os.read(stream.fileno(), CHUNK_BYTES):
        yield chunk


COMMAND = Command("PATH", "mput -p -f one.txt ~~/stor/books/one", options, run)
