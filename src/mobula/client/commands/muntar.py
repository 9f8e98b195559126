"""muntar: put what is in a tar file."""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import IO

from mobula.client.commands.command import Call, Command, header_options, headers_of, parallel_option, positive
from mobula.client.commands.mput import type_of
from mobula.client.commands.msync import is_file_name
from mobula.client.commands.progress import Bar, Part
from mobula.client.commands.workers import Job, run_all
from mobula.client.errors import MobulaError
from mobula.client.model import CHUNK_BYTES

SMALL_BYTES = 4 << 20
"""files up to here are read whole and put in parallel; larger ones are put from the archive, one after the other"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("-f", "--file", metavar="TAR", help="this archive, compressed or not; without, standard input")
    parser.add_argument("-c", "--copies", type=positive, metavar="N", help="keep so many copies (2)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    header_options(parser)
    parallel_option(parser, 8)


def run(call: Call) -> None:
    wish = call.options
    base = call.client.session.path(wish.path)
    headers_of(wish)  # refused now, if they are to be refused
    with Bar(wish.file or "standard input", None, quiet=wish.quiet) as bar:
        if base.count("/") > 2:
            call.client.mkdir(base, parents=True)
        try:
            with tarfile.open(wish.file, "r|*", None if wish.file else sys.stdin.buffer) as archive:
                run_all(_jobs(call, archive, base, bar), wish.parallel, call.failures)
        except (tarfile.TarError, EOFError) as error:
            raise MobulaError("InvalidArchive", f"read {wish.file or 'standard input'}: {error}") from error


def _jobs(call: Call, archive: tarfile.TarFile, base: str, bar: Bar) -> Iterator[Job]:
    for member in archive:
        relative = safe_path(member.name)
        if relative is None or not (member.isreg() or member.isdir()):
            call.failures.note(f"{member.name}: passed over: {_why(member, relative)}")
            continue
        target = f"{base}/{relative}".rstrip("/")
        if member.isdir():
            yield partial(_make, call, target)
            continue
        file = archive.extractfile(member)
        if file is None:
            continue
        if member.size <= SMALL_BYTES:
            yield partial(_put, call, target, file.read(), bar)
        else:
            try:
                _put(call, target, _chunks(file), bar, member.size)
            except MobulaError as error:
                call.failures.add(error)


def _put(call: Call, target: str, source: bytes | Iterator[bytes], bar: Bar, size_bytes: int | None = None) -> None:
    headers = headers_of(call.options)
    call.client.put(
        target, source, copies=call.options.copies, content_type=type_of(source, target, headers), parents=True,
        headers=headers, size_bytes=size_bytes, progress=Part(bar).at,
    )  # fmt: skip


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _make(call: Call, target: str) -> None:
    if target.count("/") > 2:
        call.client.mkdir(target, parents=True)


def _why(member: tarfile.TarInfo, relative: str | None) -> str:
    return "its name leads elsewhere" if relative is None else f"neither file nor directory (type {member.type!r})"


def safe_path(name: str) -> str | None:
    """A member's path below the target; None if it would lead out of it. Pure."""
    names = [part for part in name.split("/") if part not in {"", "."}]
    return "/".join(names) if all(map(is_file_name, names)) else None


COMMAND = Command("PATH", "muntar -f site.tar.gz ~~/public/site", options, run)
