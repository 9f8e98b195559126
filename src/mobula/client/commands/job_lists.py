"""The lists of a job, whole: from the newest names that the service shows, or from the objects that an archived job has them in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mobula.client.commands.command import Call
from mobula.client.effects import settled
from mobula.client.errors import MobulaError, NotFound
from mobula.client.jobs import LiveList, archived_path, job_id, live_list

NOUNS = {"in": "inputs", "out": "outputs", "fail": "failures", "err": "errors"}


def look(call: Call, job: str, what: str) -> Iterator[str]:
    """All lines of a list, as `whole_list` gives them."""
    (found,) = call.client.run(settled([live_list(job, what)]))
    return whole_list(call, job, what, found)


def whole_list(call: Call, job: str, what: str, found: LiveList | MobulaError) -> Iterator[str]:
    """All lines of a list. When only the newest can be had, these, and it is noted as a failure. `found`: what `live_list` gave.

    Raises:
        MobulaError: there is no such job, or it can't be asked now.
    """
    if isinstance(found, MobulaError) and not isinstance(found, NotFound):
        raise found
    if isinstance(found, LiveList) and found.whole:
        yield from found.said
        return
    try:
        yield from lines(call.client.get(archived_path(job, what)))
    except NotFound:
        if isinstance(found, MobulaError):
            raise found from None
        yield from found.said
        call.failures.say(
            f"job {job_id(job)} has {found.total} {NOUNS[what]}, of which the newest {len(found.lines)} are shown: "
            "all of them can be had once it is archived"
        )


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text that comes in chunks, empty ones left out. Pure."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole if line)
    if rest:
        yield rest.decode(errors="replace")
