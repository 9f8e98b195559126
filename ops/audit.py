"""`mobula audit`, the judging: is every copy where the metadata says, and does every file have a name? Pure; `audit_region` asks.

Each source, a shard's primary or a storage host, is a stream of records sorted by object id. Merged, everything that is known of one
object stands together: a *unit*, judged alone. So memory holds one unit, the placement groups and the suspects, however many objects
there are. Rules:

* A source that breaks off says so with `Broken` at the id that it had reached: from there on nothing is concluded from its silence.
  No copy is missing on a silent host, and no file is an orphan while a shard is silent. Such an audit is never clean.
* Units without an object id (groups, strays, files with foreign names) sort first and are judged one by one.
* The sources are read at slightly different times, so what a unit is suspected of counts only if a second look says so too. Its counts
  are those of the last look: a unit is counted once.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import Any

import msgspec

from mobula.metadata.model import COMMIT_DEADLINE_S
from mobula.metadata.shard_map import ShardMap, vnode_of

SUSPECTS_MAX = 10_000
"""units kept for the second look; more are only counted, by kind"""
UPLOADS = "tmp/"
"""where a storage host keeps uploads that are on their way"""


class Row(msgspec.Struct, frozen=True, gc=False):
    """An object's entry, or (`dropped`) a garbage row; one that is `released` says that one of several names of the bytes went."""

    object_id: str
    shard: int
    dropped: bool
    account: str
    size_bytes: int
    md5: str
    group: int
    copies: int
    vnode: int
    directory: str
    name: str
    released: bool = False
    lost: bool = False
    """a repair found no copy: clients are answered 410"""

    @property
    def file(self) -> str:
        """What each of its copies is called."""
        return f"{self.account}/{self.object_id}.{self.size_bytes}.{self.md5}"

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"

    @property
    def source(self) -> str:
        return f"shard {self.shard}"


class File(msgspec.Struct, frozen=True, gc=False):
    """A file of a storage host. Without an object id: its name is no object's."""

    object_id: str
    host: str
    path: str
    size_bytes: int
    age_s: int
    content: str = ""
    """MD5 of its bytes if they were read; ``!why`` if they can't be"""

    @property
    def source(self) -> str:
        return self.host


class Placement(msgspec.Struct, frozen=True, gc=False):
    """A placement group as a shard has it: host and AZ of each server."""

    shard: int
    id: int
    servers: tuple[tuple[str, str], ...]
    object_id: str = ""
    path: str = ""

    @property
    def source(self) -> str:
        return f"shard {self.shard}"


class Stray(msgspec.Struct, frozen=True, gc=False):
    """A directory (its entry or its own row) on a shard that does not own its vnode."""

    shard: int
    vnode: int
    path: str
    object_id: str = ""

    @property
    def source(self) -> str:
        return f"shard {self.shard}"


class Broken(msgspec.Struct, frozen=True, gc=False):
    """A source that says no more from here on."""

    object_id: str
    source: str
    why: str
    path: str = ""


Record = Row | File | Placement | Stray | Broken
Unit = Sequence[Record]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. `path`: the object's name, or the file's below the host's data directory."""

    kind: str
    object: str
    path: str
    host: str
    what: str
    do: str
    file: str = ""
    """of a copy that another one can be brought back from: what it is called on every host"""
    group: int = 0
    """whose servers have it; 0: another one may have it, too"""


class Counts(msgspec.Struct, gc=False):
    """What was seen."""

    objects: int = 0
    """entries with bytes"""
    copies: int = 0
    """files that are as their entry says"""
    bytes: int = 0
    """in these copies"""
    empty: int = 0
    lost: int = 0
    """objects of which a repair found no copy; clients know"""
    garbage_rows: int = 0
    garbage_files: int = 0
    in_flight: int = 0
    """files so young that their entry may still come"""
    unseen_copies: int = 0
    """on hosts that could not be asked"""
    unjudged_files: int = 0
    """of which what was silent would have to say more"""

    def add(self, other: Counts) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Verdict(msgspec.Struct, gc=False):
    """What is to be said of one unit."""

    counts: Counts
    findings: list[Finding]


def merged(sources: Iterable[Iterator[Record]]) -> Iterator[Record]:
    """All records in the order of their object ids; a source out of order is broken off there."""
    return heapq.merge(*(_ordered(source) for source in sources), key=attrgetter("object_id"))


def _ordered(source: Iterator[Record]) -> Iterator[Record]:
    last = ""
    for record in source:
        if record.object_id < last:
            yield Broken(last, record.source, f"it said {record.object_id!r} after {last!r}, which is out of order")
            return
        last = record.object_id
        yield record


def units(records: Iterable[Record]) -> Iterator[tuple[str, Unit]]:
    """What belongs together, and the key by which a second look finds it again."""
    for object_id, unit in itertools.groupby(records, key=attrgetter("object_id")):
        if object_id:
            yield object_id, list(unit)
        else:
            for record in unit:
                yield f"{record.source} {record.path}", [record]


class Judge:
    """Judges units in the order of their ids. `azs`: the AZ of each storage host that was asked; no map: vnodes are not judged."""

    def __init__(self, azs: Mapping[str, str], shard_map: ShardMap | None) -> None:
        self._azs = azs
        self._map = shard_map
        self._groups: dict[tuple[int, int], Placement] = {}
        self._places: dict[tuple[int, int, int], tuple[tuple[str, ...], str]] = {}
        self.silent: dict[str, str] = {}
        """sources that broke off, and why"""

    def judge(self, unit: Unit) -> Verdict:
        """One unit."""
        verdict = Verdict(Counts(), [])
        entries: list[Row] = []
        garbage: list[Row] = []
        files: list[File] = []
        for record in unit:
            match record:
                case File():
                    files.append(record)
                case Row():
                    (garbage if record.dropped else entries).append(record)
                case Placement():
                    self._groups[record.shard, record.id] = record
                case Broken():
                    self.silent[record.source] = record.why
                case Stray():
                    verdict.findings.append(_stray(record, self._map))
        verdict.counts.garbage_rows = len(garbage)
        if entries:
            self._judge_entries(entries, garbage, files, verdict)
        else:
            self._judge_unnamed(garbage, files, verdict)
        return verdict

    def _judge_entries(
        self, entries: Sequence[Row], garbage: Sequence[Row], files: Sequence[File], verdict: Verdict
    ) -> None:
        row, counts = entries[0], verdict.counts
        counts.empty = sum(1 for entry in entries if not entry.size_bytes)
        counts.objects = len(entries) - counts.empty
        for entry in entries:
            verdict.findings += self._vnode_findings(entry)
            if (entry.file, entry.group, entry.copies) != (row.file, row.group, row.copies):
                what = f"its entry does not say of the bytes what that of {row.path} says"
                verdict.findings.append(_of(entry, "entry", entry.source, what, "find out which of the two is right"))
        doomed = next((dropped for dropped in garbage if not dropped.released), None)
        if doomed is not None:
            what = "a garbage row names its bytes although an entry does: they would be collected"
            verdict.findings.append(_of(row, "doomed", doomed.source, what, "remove that garbage row"))
        if not row.size_bytes:
            self._judge_surplus(row, files, "an empty object has no copies", verdict)
            return
        if row.lost:
            counts.lost = counts.objects
            self._judge_surplus(row, files, "a repair said that no copy is left", verdict)
            return
        hosts, why = self._hosts(row)
        if not hosts:
            verdict.findings.append(_of(row, "group", row.source, why, "find its copies, then mend group or entry"))
            return
        if why:
            do = "store the object again; mend the group before it takes more"
            verdict.findings.append(_of(row, "spread", row.source, why, do))
        self._judge_copies(row, hosts, files, verdict)

    def _vnode_findings(self, row: Row) -> Iterator[Finding]:
        vnode = vnode_of(row.directory)
        if row.vnode != vnode:
            what = f"its entry says vnode {row.vnode}, its directory has {vnode}: no request finds it"
            yield _of(row, "vnode", row.source, what, "mend the row's vnode, on the shard that owns it")
        elif self._map is not None and self._map.shard_of(vnode) != row.shard:
            what = f"its entry is here, its vnode {vnode} belongs to shard {self._map.shard_of(vnode)}: no request finds it"
            yield _of(row, "shard", row.source, what, "move the row there, or mend the shard map")

    def _hosts(self, row: Row) -> tuple[tuple[str, ...], str]:
        """Where its copies should be, and what is wrong with that; nowhere if nobody can say."""
        if not row.object_id:
            return (), "its entry has no object id"
        key = (row.shard, row.group, row.copies)
        if key not in self._places:
            self._places[key] = self._placed(row)
        return self._places[key]

    def _placed(self, row: Row) -> tuple[tuple[str, ...], str]:
        group = self._groups.get((row.shard, row.group))
        if row.copies < 1:
            return (), f"its entry asks for {row.copies} copies"
        if group is None:
            return (), f"its group {row.group} is not known on shard {row.shard}"
        if len(group.servers) < row.copies:
            return (), f"it has {row.copies} copies, its group {row.group} has {len(group.servers)} servers"
        servers = group.servers[: row.copies]
        azs = {self._azs.get(host, az) for host, az in servers}
        wanted = min(row.copies, 3)
        why = f"its {row.copies} copies are in {len(azs)} AZs, wanted are {wanted}" if len(azs) < wanted else ""
        return tuple(host for host, _ in servers), why

    def _judge_copies(self, row: Row, hosts: Sequence[str], files: Sequence[File], verdict: Verdict) -> None:
        """Each host has exactly its copy, whole; what else there is of the object has no business there."""
        name = row.file
        exact = {file.host: file for file in files if file.path == name}
        rest = [file for file in files if file.path != name or file.host not in hosts]
        good, wrong, missing = [], [], []
        for host in hosts:
            file = exact.get(host)
            if file is None:
                missing.append(host)
            elif fault := _fault(row, file):
                wrong.append((host, *fault))
            else:
                good.append(host)
        verdict.counts.copies = len(good)
        verdict.counts.bytes = len(good) * row.size_bytes
        if not (missing or wrong or rest):
            return
        elsewhere = [file for file in rest if file.path == name and file.host not in hosts and not _fault(row, file)]
        whole = [*good, *(file.host for file in elsewhere)]
        unseen = [host for host in missing if host in self.silent]
        for host in missing:
            if host in self.silent:
                verdict.counts.unseen_copies += 1
                continue
            other = _first(file for file in rest if file.host == host) or _first(f for f in elsewhere if f in rest)
            if other is not None:
                rest.remove(other)
                verdict.findings.append(_mislaid(row, host, other))
            else:
                known = "its copy is not there" if host in self._azs else "its copy's host is none of this region"
                wrong.append((host, "missing", known))
        for host, kind, what in wrong:
            finding = _of(row, kind, host, what, _mend(row, whole, unseen))
            verdict.findings.append(
                replace(finding, file=row.file, group=row.group if good else 0) if whole else finding
            )
        if unseen:
            # It may be the only good copy: nobody should be told to remove it.
            verdict.counts.unjudged_files += sum(1 for file in rest if file in elsewhere)
            rest = [file for file in rest if file not in elsewhere]
        self._judge_surplus(row, rest, "neither its entry nor its group asks for this file", verdict)

    def _judge_surplus(self, row: Row, files: Iterable[File], what: str, verdict: Verdict) -> None:
        for file in files:
            if _young(file):
                verdict.counts.in_flight += 1
            else:
                verdict.findings.append(_of(row, "surplus", file.host, f"{what}: {file.path}", _remove(file)))

    def _judge_unnamed(self, garbage: Sequence[Row], files: Sequence[File], verdict: Verdict) -> None:
        """Files that no entry names: garbage if a row says so where the collector will look, in flight if young, else orphans."""
        blind = any(source not in self._azs for source in self.silent)
        for file in files:
            hosts = [self._hosts(row)[0] for row in garbage if row.file == file.path]
            if any(file.host in found or not found for found in hosts):
                verdict.counts.garbage_files += 1
            elif _young(file):
                verdict.counts.in_flight += 1
            elif blind and file.object_id and not file.path.startswith(UPLOADS):
                verdict.counts.unjudged_files += 1
            else:
                verdict.findings.append(_orphan(file, garbage=bool(garbage)))


def _first[T](values: Iterable[T]) -> T | None:
    return next(iter(values), None)


def _young(file: File) -> bool:
    """Its PUT may still be committed. A time in the future is no younger: clocks of one region differ by less than that."""
    return abs(file.age_s) <= COMMIT_DEADLINE_S


def _fault(row: Row, file: File) -> tuple[str, str] | None:
    """Kind and description of what is wrong with a copy of the right name."""
    if file.size_bytes != row.size_bytes:
        return "size", f"its copy has {file.size_bytes} bytes, wanted are {row.size_bytes}"
    if file.content.startswith("!"):
        return "unreadable", f"its copy can't be read: {file.content[1:]}"
    if file.content and file.content != row.md5:
        return "content", f"its copy's bytes have MD5 {file.content}, wanted is {row.md5}"
    return None


def _of(row: Row, kind: str, host: str, what: str, do: str) -> Finding:
    return Finding(kind, row.object_id, row.path, host, what, do)


def _mislaid(row: Row, host: str, other: File) -> Finding:
    if other.host == host:
        what = f"its copy is called {other.path}, wanted is {row.file}"
        return _of(row, "name", host, what, "see whose bytes these are; rename the file, or mend the entry")
    what = f"its copy {row.file} is here, its group says {host}"
    return _of(row, "misplaced", other.host, what, f"move the file to {host}, owner mobula, with its times")


def _mend(row: Row, whole: Sequence[str], unseen: Sequence[str]) -> str:
    if whole:
        return f"./mobula audit --mend has it brought back from {whole[0]}: {row.file}"
    if unseen:
        return f"audit again when {unseen[0]} answers: it may have a good copy"
    return "no good copy is left: get the bytes from elsewhere and store the object again"


def _remove(file: File) -> str:
    return f"look at it, then remove it from {file.host}"


def _orphan(file: File, *, garbage: bool) -> Finding:
    what, do = "no entry and no garbage row names this file", _remove(file)
    if garbage:
        what = "the garbage row of this object names another file or other hosts, so nobody will collect this one"
    elif file.path.startswith(UPLOADS):
        what, do = "an upload left this file behind", "a restart of mobula-storage removes it"
    elif not file.object_id:
        what = "its name is no object file's"
    return Finding("orphan", file.object_id, file.path, file.host, what, do)


def _stray(record: Stray, shard_map: ShardMap | None) -> Finding:
    owner = f"shard {shard_map.shard_of(record.vnode)}" if shard_map else "another shard"
    what = f"this directory's row is here, its vnode {record.vnode} belongs to {owner}: no request finds it"
    return Finding("shard", "", record.path, record.source, what, "move the row there, or mend the shard map")


@dataclass(slots=True)
class Tally:
    """What a pass over all units has come to: counts, units to look at again, findings beyond those by kind."""

    counts: Counts = field(default_factory=Counts)
    suspects: dict[str, Verdict] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)

    def take(self, key: str, verdict: Verdict) -> None:
        """Count a unit, or keep it for a second look."""
        if verdict.findings and len(self.suspects) < SUSPECTS_MAX:
            self.suspects[key] = verdict
            return
        self.counts.add(verdict.counts)
        self.beyond.update(finding.kind for finding in verdict.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `unknown`: what could not be asked, and why; `beyond`: findings that were only counted."""

    counts: Counts
    findings: Sequence[Finding]
    beyond: Mapping[str, int]
    unknown: Mapping[str, str]
    rechecked: int
    withdrawn: int
    """suspicions that the second look did not confirm"""
    elapsed_s: float
    read: bool

    @property
    def ok(self) -> bool:
        """Every copy was seen where it should be, and nothing else."""
        return not (self.findings or self.beyond or self.unknown)

    @property
    def mendable(self) -> list[tuple[str, str, int]]:
        """Copies that workers can bring back: host, file, group."""
        return [(finding.host, finding.file, finding.group) for finding in self.findings if finding.file]

    @property
    def kinds(self) -> dict[str, int]:
        """How many findings of each kind."""
        return dict(sorted((Counter(f.kind for f in self.findings) + Counter(self.beyond)).items()))

    def as_json(self, limit: int) -> dict[str, Any]:
        """What `--json` prints, with at most `limit` findings."""
        return {
            "ok": self.ok, **msgspec.to_builtins(self.counts), "read": self.read, "kinds": self.kinds,
            "unknown": [{"source": source, "why": why} for source, why in sorted(self.unknown.items())],
            "findings": [asdict(finding) for finding in self.findings[:limit]],
            "findings_total": sum(self.kinds.values()), "rechecked": self.rechecked, "withdrawn": self.withdrawn,
            "elapsed_s": round(self.elapsed_s, 1),
        }  # fmt: skip

    def text(self, limit: int) -> str:
        """For people: each finding and what to do, then what was seen, then the verdict."""
        lines = []
        for finding in self.findings[:limit]:
            lines += [f"! {finding.kind}  {finding.host}  {finding.object}  {finding.path}", f"  {finding.what}"]
            lines += [f"  -> {finding.do}", ""]
        total = sum(self.kinds.values())
        if total > len(self.findings[:limit]):
            lines += [f"... {total - len(self.findings[:limit]):,} more findings; --limit shows more", ""]
        return "\n".join([*lines, *_summary(self), _sentence(self, total)])


def _summary(report: Report) -> Iterator[str]:
    c = report.counts
    how = "each read and hashed" if report.read else "by name and size; --read also reads them"
    yield f"{c.objects:,} objects in {c.copies:,} copies ({c.bytes:,} bytes, {how}), {c.empty:,} empty objects"
    if c.lost:
        yield f"{c.lost:,} of these objects are lost: a repair found no copy, and they answer 410 ObjectLost"
    yield f"{c.garbage_rows:,} garbage rows with {c.garbage_files:,} files, {c.in_flight:,} files in flight"
    if report.rechecked:
        yield f"{report.rechecked:,} suspects looked at again, {report.withdrawn:,} of them withdrawn"
    if report.beyond:
        yield f"{sum(report.beyond.values()):,} findings beyond the first {SUSPECTS_MAX:,} were not looked at again"
    for source, why in sorted(report.unknown.items()):
        yield f"UNKNOWN: {source}: {why}"
    if report.unknown:
        yield f"so {c.unseen_copies:,} copies were not seen and {c.unjudged_files:,} files not judged"


def _sentence(report: Report, total: int) -> str:
    took = f"({report.elapsed_s:.1f} s)"
    if report.ok:
        return f"clean: every copy is where the metadata says, and every file has a name {took}"
    found = f"NOT OK: {total:,} findings" if total else "NOT OK: no findings"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.kinds.items())
    unknown = f"; {len(report.unknown)} unknown" if report.unknown else ""
    return f"{found}{f' ({kinds})' if kinds else ''}{unknown} {took}"


def conclude(first: Tally, again: Tally | None, unknown: Mapping[str, str], *, elapsed_s: float, read: bool) -> Report:
    """The report of a pass and of the second look at its suspects; None: there was none, so the first suspicions stand."""
    suspects = first.suspects if again is None else again.suspects
    counts = Counts()
    for seen in (first.counts, *([again.counts] if again else []), *(verdict.counts for verdict in suspects.values())):
        counts.add(seen)
    findings = [finding for verdict in suspects.values() for finding in verdict.findings]
    return Report(
        counts, sorted(findings, key=attrgetter("object", "host", "path", "kind")), first.beyond, unknown,
        rechecked=len(first.suspects) if again else 0, withdrawn=len(first.suspects) - len(suspects),
        elapsed_s=elapsed_s, read=read,
    )  # fmt: skip
