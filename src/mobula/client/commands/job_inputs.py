"""Names from standard input to jobs: read line by line, posted in batches, several at the same time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import batched, chain, islice

from mobula.client.commands.command import Call, parallel_option
from mobula.client.commands.workers import run_all
from mobula.client.effects import Operation, settled
from mobula.client.errors import MobulaError

BATCH = 1000
BATCH_MAX = 10_000
PARALLEL = 25


def batch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-b", "--batch", type=batch_size, default=BATCH, metavar="N", help=f"so many names in one request ({BATCH})"
    )
    parallel_option(parser, PARALLEL)


def batch_size(text: str) -> int:
    """A number from 1 to 10000. Raises ValueError, as argparse wants it."""
    number = int(text)
    if not 1 <= number <= BATCH_MAX:
        raise ValueError(text)
    return number


def standard_input() -> Iterable[bytes]:
    """Its lines; of one that was closed, none."""
    return sys.stdin.buffer if sys.stdin is not None else ()


def add_all(call: Call, jobs: Sequence[str], text: Iterable[bytes]) -> int | None:
    """Add a text's names to each of the jobs. Answers how many; None: not all could be added, and it is noted why."""
    failed_before = call.failures.count
    count = 0

    def posts() -> Iterator[Callable[[], None]]:
        nonlocal count
        for batch in batched(names(text, call.client.session.settings.account), call.options.batch):
            count += len(batch)
            for job in jobs:
                yield partial(call.client.add_inputs, job, batch)

    waiting = posts()
    first = list(islice(waiting, 2))
    if len(first) == 1:  # the usual case needs no threads
        try:
            first[0]()
        except MobulaError as error:
            call.failures.add(error)
    elif first:
        run_all(chain(first, waiting), call.options.parallel, call.failures)
    return count if call.failures.count == failed_before else None


def each[T](call: Call, jobs: Sequence[str], do: Callable[[str], Operation[T]], parallel: int) -> list[tuple[str, T]]:
    """Do something with each of the jobs at the same time; those with which it could be done, in their order. What fails is noted."""
    found = call.client.run(settled([do(job) for job in jobs], parallel))
    for one in found:
        if isinstance(one, MobulaError):
            call.failures.add(one)
    return [(job, one) for job, one in zip(jobs, found, strict=True) if not isinstance(one, MobulaError)]


def names(text: Iterable[bytes], account: str) -> Iterator[bytes]:
    """The names in a text, one a line, as they were typed but for ``~~`` at the beginning: only the client knows who that is. Pure."""
    own = f"/{account}".encode()
    for line in text:
        name = line.rstrip(b"\r\n")
        if name == b"~~" or name.startswith(b"~~/"):
            name = own + name[2:]
        if name:
            yield name
