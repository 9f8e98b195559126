"""`mobula audit`, the asking: streams from each shard's primary and each storage host, merged for `audit` to judge, twice.

The rows are read first, in one snapshot for each shard, and the files afterwards: copies are on disk before their entry is written, and
the collector keeps dropped bytes for much longer than an audit takes. So a client's PUT or DELETE meanwhile is no suspect at all, and the
second look, in the same order, is for what else may move.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mobula.metadata.shard_map import ShardMap, ShardMapError, decode
from ops.audit import Broken, File, Judge, Placement, Record, Report, Row, Stray, Tally, conclude, merged, units
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Host, Region
from ops.remote import Remote, RemoteError

FACTS = Path(__file__).parent / "facts"
OBJECT_FILES = (FACTS / "object_files.py").read_text()
OBJECT_ROWS = (FACTS / "object_rows.py").read_text()
SHARD_MAP = (FACTS / "shard_map.py").read_text()
SILENCE_S = 120.0
"""a source that says nothing for so long is given up"""
ASK_TIMEOUT_S = 30.0
LEADER_BOUND_S = 20.0
LEADER_POLL_S = 1.0
"""a shard without a leased primary has one again after a failover"""
TELL_PERIOD_S = 5.0
STRAYS_MAX = 1000

# Nobody answers for a standby; the function reads an unlogged table, which a standby can't.
LEASE = "COPY (SELECT coalesce(CASE WHEN NOT pg_is_in_recovery() THEN fence.leased()::text END, '')) TO STDOUT;"
# The lease is asked for before and after, outside the transaction: its snapshot would show an old row. `object_rows` sorts.
ROWS = """
COPY (SELECT 'lease', coalesce(fence.leased()::text, '')) TO STDOUT;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
COPY (SELECT 'group', id, servers FROM metadata.placement_group) TO STDOUT;
COPY (
  SELECT 'stray', vnode, path FROM (
    SELECT vnode, directory || '/' || name AS path FROM metadata.entry WHERE kind = 'directory'
    UNION SELECT vnode, path FROM metadata.directory) d
  WHERE {strays} ORDER BY path LIMIT {strays_max}) TO STDOUT;
COPY (
  SELECT 'entry', coalesce(object_id::text, ''), account, size, encode(md5, 'hex'), group_id, copies, vnode, directory, name,
         coalesce(lost = object_id, false)
  FROM metadata.entry WHERE kind = 'object' AND {only}) TO STDOUT;
COPY (
  SELECT 'garbage', object_id, account, size, encode(md5, 'hex'), group_id, copies, vnode, '', ''
  FROM metadata.garbage WHERE {only}) TO STDOUT;
COPY (
  SELECT 'released', object_id, account, size, encode(md5, 'hex'), group_id, copies, vnode, '', ''
  FROM metadata.released WHERE {only}) TO STDOUT;
COMMIT;
COPY (SELECT 'lease', coalesce(fence.leased()::text, '')) TO STDOUT;
"""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class _Server(msgspec.Struct):
    """What is needed of a server in a placement group."""

    id: str
    az: str


READ_SERVERS = msgspec.json.Decoder(list[_Server])
"""made here, by one thread: msgspec crashes when several are the first to decode a type"""


class Said(Exception):
    """A source said something that can't be."""


def rows_sql(shard: int, shard_map: ShardMap | None, only: Collection[str] | None) -> str:
    """What a shard's primary is asked: all its rows, or those of some objects ('' stands for rows without an object id)."""
    strays = wanted = "true"
    if shard_map is None:
        strays = "false"
    else:
        for first, last, owner in shard_map.ranges:
            strays += f" AND vnode NOT BETWEEN {first} AND {last}" if owner == shard else ""
    if only is not None:
        # A storage host said these ids: nothing but a uuid goes into a statement.
        ids = ",".join(sorted(filter(_UUID.fullmatch, only)))
        wanted = f"(object_id = ANY ('{{{ids}}}'){' OR object_id IS NULL' if '' in only else ''})"
    return ROWS.format(strays=strays, strays_max=STRAYS_MAX, only=wanted)


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def unescaped(field: str) -> str:
    """A field of COPY's text format; NULL is the empty string."""
    if "\\" not in field:
        return field
    if field == "\\N":
        return ""
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), field)


def rows_of(lines: Iterable[str], shard: int) -> Iterator[Record]:
    """A shard's answer (`facts/object_rows.py` run with `rows_sql`), as records.

    Raises:
        Said: it has no lease, it lost it meanwhile, or a line can't be read.
    """
    leases: list[str] = []
    for line in filter(None, lines):
        kind, *fields = line.split("\t")
        try:
            if kind in ("entry", "garbage", "released"):
                _check_lease(leases)
                yield _row(kind, [unescaped(field) for field in fields], shard)
            elif kind == "lease":
                leases.append(fields[0])
            elif kind == "group":
                servers = READ_SERVERS.decode(unescaped(fields[1]))
                yield Placement(shard, int(fields[0]), tuple((server.id, server.az) for server in servers))
            elif kind == "stray":
                yield Stray(shard, int(fields[0]), unescaped(fields[1]))
            else:
                raise Said(f"it said {line[:100]!r}")
        except (ValueError, IndexError, msgspec.MsgspecError) as error:
            raise Said(f"it said {line[:100]!r}: {error}") from error
    _check_lease(leases)


def _check_lease(leases: Sequence[str]) -> None:
    """Before and after the rows were read: the same one, else they may be what a deposed primary believes."""
    if len(leases) != 2 or not leases[0] or leases[0] != leases[1]:
        raise Said("its primary did not have the lease all the time")


def _row(kind: str, fields: Sequence[str], shard: int) -> Row:
    object_id, account, size, md5, group, copies, vnode, directory, name, *lost = fields
    return Row(
        object_id, shard, kind != "entry", account, int(size), md5, int(group), int(copies), int(vnode), directory, name,
        kind == "released", lost == ["t"],
    )  # fmt: skip


def files_of(lines: Iterable[str], host: str) -> Iterator[Record]:
    """A storage host's answer (`facts/object_files.py`), as records.

    Raises:
        Said: a line can't be read.
    """
    for line in filter(None, lines):
        try:
            object_id, path, size, age_s, content = line.split("\t")
            yield File(object_id, host, path, int(size), int(age_s), content)
        except ValueError as error:
            raise Said(f"it said {line[:100]!r}: {error}") from error


def unbroken(records: Iterator[Record], source: str) -> Iterator[Record]:
    """The same, a failure told as a record where it happened."""
    reached = ""
    try:
        for record in records:
            yield record
            reached = record.object_id
    except (RemoteError, Said) as error:
        yield Broken(reached, source, str(error))


def primed(sources: Collection[Iterator[Record]]) -> list[Iterator[Record]]:
    """Begin all of them at once: each one's first record is there, and so is its snapshot."""
    with ThreadPoolExecutor(max_workers=max(1, len(sources))) as pool:
        firsts = list(pool.map(lambda source: next(source, None), sources))
    return [
        itertools.chain([first], source) if first is not None else iter(())
        for first, source in zip(firsts, sources, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """A region's hosts, and how to reach them."""

    region: Region
    remotes: Mapping[str, Remote]
    shard_map: ShardMap | None
    read: bool

    def records(self, only: Collection[str] | None) -> Iterator[Record]:
        """Everything, or what concerns the objects of these ids ('' for what has none): rows first, then files, merged."""
        peers: dict[int, list[Host]] = {}
        for host in self.region.pool("metadata"):
            peers.setdefault(host.shard, []).append(host)
        for number in self.shard_map.shards if self.shard_map else ():
            peers.setdefault(number, [])
        shards = primed([unbroken(self._rows(n, hosts, only), f"shard {n}") for n, hosts in sorted(peers.items())])
        storages = [unbroken(self._files(host, only), host.name) for host in self.region.pool("storage")]
        return merged([*shards, *primed(storages)])

    def _rows(self, shard: int, peers: Sequence[Host], only: Collection[str] | None) -> Iterator[Record]:
        remote = self.remotes[self._leader(peers).name]
        sql = rows_sql(shard, self.shard_map, only)
        argv = ["python3", "-c", OBJECT_ROWS]
        yield from rows_of(remote.lines(argv, stdin=sql, timeout_s=SILENCE_S), shard)

    def _leader(self, peers: Sequence[Host]) -> Host:
        """The peer that has the lease; during a failover there is none for some seconds."""
        end, why = time.monotonic() + LEADER_BOUND_S, "no peer of it is known"
        while True:
            for host in peers:
                try:
                    argv = ["python3", "-c", OBJECT_ROWS]
                    if self.remotes[host.name].run(argv, stdin=LEASE, timeout_s=ASK_TIMEOUT_S).stdout.strip():
                        return host
                    why = "none of its peers has the lease"
                except RemoteError as error:
                    why = str(error)
            if not peers or time.monotonic() > end:
                raise Said(why)
            time.sleep(LEADER_POLL_S)

    def _files(self, host: Host, only: Collection[str] | None) -> Iterator[Record]:
        wanted = {"config": "/etc/mobula/storage.json", "read": self.read, "only": only is not None}
        argv = ["python3", "-c", OBJECT_FILES, json.dumps(wanted)]
        lines = self.remotes[host.name].lines(argv, stdin="\n".join(only or ()), timeout_s=SILENCE_S)
        return files_of(lines, host.name)


def read_shard_map(region: Region, remotes: Mapping[str, Remote]) -> ShardMap | str:
    """The map as ZooKeeper has it, by whichever api host answers; or why there is none."""
    why = "the region has no api hosts"
    argv = ["/opt/mobula/current/bin/python", "-", "/etc/mobula/webapi.json"]
    for host in region.pool("api"):
        try:
            return decode(remotes[host.name].run(argv, stdin=SHARD_MAP, timeout_s=ASK_TIMEOUT_S).stdout.encode())
        except (RemoteError, ShardMapError) as error:
            why = str(error)
    return why


def audit(region: Region, remotes: Mapping[str, Remote], *, read: bool, progress: Progress) -> Report:
    """Look at every object of the region.

    Raises:
        OperatorError: the region is not up.
    """
    if not region.pool("storage"):
        raise OperatorError(f"audit region {region.name!r}: it is not up; run ./mobula up")
    shard_map = read_shard_map(region, remotes)
    unknown = {"the shard map": shard_map} if isinstance(shard_map, str) else {}
    asked = Asked(region, remotes, None if isinstance(shard_map, str) else shard_map, read)
    progress(f"ask {len(region.pool('storage'))} storage hosts and the shards{', reading every byte' if read else ''}")
    first, silent = _pass(asked, None, progress)
    unknown |= silent
    again: Tally | None = None
    if first.suspects:
        progress(f"look again at {len(first.suspects):,} suspects")
        again, silent = _pass(asked, first.suspects, progress)
        if silent:
            again, unknown = None, unknown | silent
    return conclude(first, again, unknown, elapsed_s=progress.elapsed_s, read=read)


def _pass(asked: Asked, suspects: Mapping[str, Any] | None, progress: Progress) -> tuple[Tally, dict[str, str]]:
    """All units, or the suspects as they are now; and who fell silent."""
    judge = Judge({host.name: host.az for host in asked.region.pool("storage")}, asked.shard_map)
    tally = Tally()
    # A key that is no object id stands for something without one.
    only = None if suspects is None else {key if " " not in key else "" for key in suspects}
    records = asked.records(only)
    told = time.monotonic()
    for seen, (key, unit) in enumerate(units(records), 1):
        verdict = judge.judge(unit)
        if suspects is None or key in suspects:
            tally.take(key, verdict)
        if time.monotonic() - told > TELL_PERIOD_S:
            told = time.monotonic()
            c = tally.counts
            progress(f"{seen:,} seen: {c.objects:,} objects, {c.copies:,} copies, {len(tally.suspects):,} suspects")
    return tally, judge.silent
