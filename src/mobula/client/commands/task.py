"""What commands say to a task's own storage API: that an object is an output of the task, and for which reducer.

Source: the compute contract, sections "In-sandbox HTTP server" and "Tools inside the sandbox".
"""

from __future__ import annotations

import argparse
import contextlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mobula.client.commands.command import UsageError
from mobula.client.model import CHUNK_BYTES


def reducer_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-r", "--reducer", type=int, metavar="N", help="for that reducer of the next phase; the first is 0"
    )


def output_headers(reducer: int | None) -> dict[str, str]:
    """Headers of a PUT whose object is an output. Pure."""
    headers = {"x-manta-stream": "stdout"}
    if reducer is not None:
        headers["x-manta-reducer"] = str(reducer)
    return headers


def new_name(environment: Mapping[str, str]) -> str:
    """A name for an output that has none. Raises UsageError: this is no task."""
    base = environment.get("MANTA_OUTPUT_BASE")
    if not base:
        raise UsageError("name an output: MANTA_OUTPUT_BASE is not set, as it is in a task; give a path")
    return f"{base}{uuid.uuid4()}"


@contextlib.contextmanager
def kept(stream: BinaryIO) -> Iterator[Path]:
    """All that a stream has, in a file while the block runs: a put of it can be tried again. Raises OSError."""
    import shutil  # noqa: PLC0415 (with tempfile 15 ms, which a command that is given a file does without)
    import tempfile  # noqa: PLC0415

    with tempfile.NamedTemporaryFile(prefix="mobula-") as file:
        shutil.copyfileobj(stream, file, CHUNK_BYTES)
        file.flush()
        yield Path(file.name)
