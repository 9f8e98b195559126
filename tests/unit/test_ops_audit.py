"""Every copy where the metadata says, every file with a name: the judging, against damage done one at a time and against a naive model."""

from __future__ import annotations

import json
import multiprocessing
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.metadata.model import COMMIT_DEADLINE_S
from mobula.metadata.shard_map import even, vnode_of
from ops import audit
from ops.audit import (
    Broken,
    Counts,
    File,
    Finding,
    Judge,
    Placement,
    Record,
    Row,
    Stray,
    Tally,
    conclude,
    merged,
    units,
)

ACCOUNT = "aaaaaaaa-0000-4000-8000-000000000000"
OTHER_ACCOUNT = "bbbbbbbb-0000-4000-8000-000000000000"
AZS = {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "c"}
GROUPS = {
    1: ("a-1", "b-1", "c-1", "a-2"),
    2: ("b-1", "c-1", "a-2"),
    3: ("a-1", "a-2", "b-1"),
    4: ("b-1",),
    5: ("a-1", "z-9"),
}
"""3 has its first two in one AZ, 4 is short, 5 names a host that the region has not; 9 is not known"""
MD5, OTHER_MD5 = "0" * 32, "f" * 32
OLD_S = COMMIT_DEADLINE_S + 1
MAP = even(2)
DIRECTORY = f"/{ACCOUNT}/stor/a"
VNODE = vnode_of(DIRECTORY)
SHARD = MAP.shard_of(VNODE)


def object_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def row(number: int, *, dropped: bool = False, size: int = 5, group: int = 1, copies: int = 2, name: str = "") -> Row:
    group, copies = (group, copies) if size else (0, 0)
    return Row(
        object_id(number), SHARD, dropped, ACCOUNT, size, MD5, group, copies, VNODE, DIRECTORY, name or f"o{number}"
    )  # fmt: skip


@dataclass
class World:
    """What lies where. `breaks`: at which object id a source breaks off."""

    rows: list[Row] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    strays: list[Stray] = field(default_factory=list)
    breaks: dict[str, str] = field(default_factory=dict)

    def sources(self) -> list[Iterator[Record]]:
        """As the shards and the hosts say it."""
        groups = [
            Placement(s, n, tuple((h, AZS.get(h, "z")) for h in hosts)) for s in (1, 2) for n, hosts in GROUPS.items()
        ]
        said: dict[str, list[Record]] = {f"shard {n}": [] for n in (1, 2)} | {host: [] for host in AZS}
        for record in [*groups, *self.strays, *self.rows, *self.files]:
            said[record.source].append(record)
        return [
            iter(self._until_broken(source, sorted(found, key=lambda r: r.object_id))) for source, found in said.items()
        ]

    def _until_broken(self, source: str, found: list[Record]) -> list[Record]:
        if source not in self.breaks:
            return found
        end = self.breaks[source]
        return [*(r for r in found if r.object_id <= end), Broken(end, source, "the cable was cut")]

    def file(self, host: str, path_of: Row) -> File:
        """The copy on that host."""
        return next(f for f in self.files if (f.host, f.path) == (host, path_of.file))

    def replace(self, file: File, **values: object) -> None:
        """Change a file."""
        known = {name: getattr(file, name) for name in file.__struct_fields__}
        self.files[self.files.index(file)] = File(**{**known, **values})


def no_id() -> Row:
    return Row("", SHARD, False, ACCOUNT, 5, MD5, 1, 2, VNODE, DIRECTORY, "no id")


def copies_of(entry: Row) -> list[File]:
    return [
        File(entry.object_id, host, entry.file, entry.size_bytes, 9, MD5)
        for host in GROUPS[entry.group][: entry.copies]
    ]


def healthy() -> World:
    """Objects with one to four copies, empty ones, garbage with and without its files, an upload on its way."""
    rows = [row(1), row(2, group=2, copies=3), row(3, size=0), row(4, copies=1), row(5, copies=4), row(6, dropped=True)]
    files = [file for each in rows if each.size_bytes for file in copies_of(each)]
    return World(
        [*rows, row(7, dropped=True)],
        [*files, File(object_id(8), "a-1", f"tmp/{object_id(8)}", 3, 1), File(object_id(8), "b-1", row(8).file, 5, 2)],
    )


def look(world: World) -> tuple[list[Finding], Counts]:
    judge, findings, counts = Judge(AZS, MAP), [], Counts()
    for _, unit in units(merged(world.sources())):
        verdict = judge.judge(unit)
        findings += verdict.findings
        counts.add(verdict.counts)
    return findings, counts


def test_a_region_in_which_all_is_well_has_no_findings_and_counts_everything() -> None:
    assert look(healthy()) == (
        [], Counts(objects=4, copies=10, bytes=50, empty=1, garbage_rows=2, garbage_files=2, in_flight=2)
    )  # fmt: skip


FIRST = row(1)


Harm = Callable[[World], object]
OTHER_SHARD = 3 - SHARD
HERE = f"shard {SHARD}"
THERE = f"shard {OTHER_SHARD}"
COPY_B = f"./mobula audit --mend has it brought back from b-1: {FIRST.file}"
LOOK = "look at it, then remove it from"


def copy_on_a(**values: object) -> Harm:
    """Another copy than there should be."""
    return lambda world: world.replace(world.file("a-1", FIRST), **values)


def entry(**values: object) -> Harm:
    """Another entry than there should be."""
    known = {name: getattr(FIRST, name) for name in FIRST.__struct_fields__}
    return lambda world: world.rows.__setitem__(0, Row(**{**known, **values}))


def file(number: int, host: str, path: str, *, size: int = 5, age_s: int = OLD_S) -> Harm:
    """One file more than there should be."""
    return lambda world: world.files.append(File(object_id(number) if number else "", host, path, size, age_s))


@pytest.mark.parametrize(
    ("kind", "host", "harm", "what", "do"),
    [
        ("missing", "a-1", lambda w: w.files.remove(w.file("a-1", FIRST)), "its copy is not there", COPY_B),
        ("size", "a-1", copy_on_a(size_bytes=4), "its copy has 4 bytes, wanted are 5", COPY_B),
        ("content", "a-1", copy_on_a(content=OTHER_MD5), f"its copy's bytes have MD5 {OTHER_MD5}, wanted is {MD5}", COPY_B),
        ("unreadable", "a-1", copy_on_a(content="!Input/output error"), "its copy can't be read: Input/output error", COPY_B),
        ("misplaced", "a-2", copy_on_a(host="a-2"), "is here, its group says a-1", "move the file to a-1"),
        ("misplaced", "a-2", copy_on_a(host="a-2", age_s=OLD_S), "is here, its group says a-1", "move the file to a-1"),
        ("name", "a-1", copy_on_a(path=FIRST.file.replace(MD5, OTHER_MD5)), f"wanted is {FIRST.file}", "see whose bytes"),
        ("name", "a-1", copy_on_a(path=FIRST.file.replace(ACCOUNT, OTHER_ACCOUNT)), f"wanted is {FIRST.file}", "see whose"),
        ("surplus", "c-1", file(1, "c-1", FIRST.file), "neither its entry nor its group asks for this file", f"{LOOK} c-1"),
        ("surplus", "a-1", file(1, "a-1", FIRST.file.replace(".5.", ".6."), size=6), "neither its entry", f"{LOOK} a-1"),
        ("surplus", "a-1", file(3, "a-1", row(3, size=0).file, size=0), "an empty object has no copies", f"{LOOK} a-1"),
        ("orphan", "c-1", file(9, "c-1", row(9).file), "no entry and no garbage row names this file", f"{LOOK} c-1"),
        ("orphan", "c-1", file(9, "c-1", row(9).file, age_s=-OLD_S), "no entry and no garbage row", f"{LOOK} c-1"),
        ("orphan", "c-1", file(9, "c-1", f"tmp/{object_id(9)}"), "an upload left this file behind", "a restart"),
        ("orphan", "c-1", file(0, "c-1", "lost+found"), "its name is no object file's", f"{LOOK} c-1"),
        ("orphan", "c-1", file(6, "c-1", row(6).file), "names another file or other hosts", f"{LOOK} c-1"),
        ("doomed", HERE, lambda w: w.rows.append(row(1, dropped=True)), "would be collected", "remove that garbage row"),
        ("group", HERE, entry(group=9), f"its group 9 is not known on {HERE}", "mend group or entry"),
        ("group", HERE, entry(group=4), "it has 2 copies, its group 4 has 1 servers", "mend group or entry"),
        ("group", HERE, entry(copies=0), "its entry asks for 0 copies", "mend group or entry"),
        ("group", HERE, lambda w: w.rows.append(no_id()), "its entry has no object id", "mend group or entry"),
        ("vnode", HERE, entry(vnode=VNODE + 1), f"says vnode {VNODE + 1}, its directory has {VNODE}", "mend the row's"),
        ("shard", THERE, entry(shard=OTHER_SHARD), f"its vnode {VNODE} belongs to {HERE}", "move the row there"),
        ("shard", THERE, lambda w: w.strays.append(Stray(OTHER_SHARD, VNODE, DIRECTORY)), f"belongs to {HERE}", "move"),
        ("entry", HERE, lambda w: w.rows.append(row(1, copies=3, name="z")), f"what that of {FIRST.path} says", "find out"),
    ],
)  # fmt: skip
def test_one_harm_is_one_finding_with_host_and_object(kind: str, host: str, harm: Harm, what: str, do: str) -> None:
    world = healthy()
    harm(world)
    (found,), _ = look(world)
    assert (found.kind, found.host) == (kind, host)
    assert what in found.what
    assert do in found.do
    assert found.path


def test_a_copy_on_a_host_that_the_region_has_not_is_missing() -> None:
    world = World([row(1, group=5)], [File(object_id(1), "a-1", FIRST.file, 5, 9)])
    (found,), _ = look(world)
    assert (found.kind, found.host, found.what) == ("missing", "z-9", "its copy's host is none of this region")


def test_copies_in_too_few_azs_are_found() -> None:
    world = World([row(1, group=3)], copies_of(row(1, group=3)))
    (found,), _ = look(world)
    assert (found.kind, found.what) == ("spread", "its 2 copies are in 1 AZs, wanted are 2")


def test_an_object_without_a_good_copy_is_lost_and_said_to_be() -> None:
    world = healthy()
    world.files = [f for f in world.files if f.object_id != FIRST.object_id]
    found, _ = look(world)
    assert [(f.kind, f.host) for f in found] == [("missing", "a-1"), ("missing", "b-1")]
    assert all("no good copy is left" in f.do for f in found)


def test_what_another_host_may_still_have_is_not_called_lost() -> None:
    world = healthy()
    world.files.remove(world.file("a-1", FIRST))
    world.breaks["b-1"] = ""
    found, counts = look(world)
    assert [(f.kind, f.host, f.do) for f in found] == [
        ("missing", "a-1", "audit again when b-1 answers: it may have a good copy")
    ]
    assert counts.unseen_copies == 3


def test_a_file_elsewhere_is_not_called_misplaced_while_its_host_is_silent() -> None:
    world = healthy()
    copy_on_a(host="a-2", age_s=OLD_S)(world)
    world.breaks["a-1"] = ""
    found, counts = look(world)
    assert (found, counts.unjudged_files) == ([], 1)


def test_a_whole_copy_elsewhere_is_named_to_mend_from() -> None:
    world = healthy()
    world.files = [f for f in world.files if f.object_id != FIRST.object_id or f.host == "b-1"]
    file(1, "c-1", FIRST.file)(world)
    world.replace(world.file("b-1", FIRST), size_bytes=4)
    found, _ = look(world)
    assert [(f.kind, f.host) for f in found] == [("misplaced", "c-1"), ("size", "b-1")]
    assert found[1].do == f"./mobula audit --mend has it brought back from c-1: {FIRST.file}"


def test_a_broken_file_elsewhere_is_no_copy_to_move_back() -> None:
    world = healthy()
    copy_on_a(host="a-2", size_bytes=4, age_s=OLD_S)(world)
    found, _ = look(world)
    assert [(f.kind, f.host, f.do) for f in found] == [
        ("missing", "a-1", COPY_B),
        ("surplus", "a-2", f"{LOOK} a-2"),
    ]


def test_nothing_is_an_orphan_while_a_shard_is_silent() -> None:
    world = healthy()
    world.files.append(File(object_id(9), "c-1", row(9).file, 5, OLD_S))
    world.breaks[THERE] = ""
    found, counts = look(world)
    assert (found, counts.unjudged_files, counts.copies) == ([], 1, 10)
    world.breaks[HERE] = ""
    found, counts = look(world)
    assert (found, counts.unjudged_files, counts.in_flight) == ([], 1, 14)


def test_several_entries_of_the_same_bytes_are_objects_that_share_their_copies() -> None:
    world = healthy()
    world.rows.append(row(1, name="link"))
    found, counts = look(world)
    assert (found, counts.objects, counts.copies) == ([], 5, 10)


def test_a_source_out_of_order_is_broken_off() -> None:
    records = [
        File(object_id(2), "a-1", "x", 1, 0),
        File(object_id(1), "a-1", "y", 1, 0),
        File(object_id(3), "a-1", "z", 1, 0),
    ]
    said = list(merged([iter(records)]))
    assert said[0] == records[0]
    assert isinstance(said[1], Broken)
    assert said[1].source == "a-1"
    assert len(said) == 2


# The naive model: everything at hand at once, as sets.

Seen = tuple[str, str, str]
NUMBERS = st.integers(1, 4)
ROWS = st.builds(
    row, NUMBERS, dropped=st.booleans(), size=st.sampled_from([0, 5]), group=st.sampled_from([1, 2, 3, 4, 5, 9]), copies=st.integers(0, 4)
)  # fmt: skip


def a_file(*, number: int, host: str, account: str, size: int, actual: int, age_s: int, content: str) -> File:
    path = f"tmp/{object_id(number)}" if account == "tmp" else f"{account}/{object_id(number)}.{size}.{MD5}"
    return File(object_id(number), host, path, actual, age_s, content)


FILES = st.builds(
    a_file, number=NUMBERS, host=st.sampled_from(sorted(AZS)), account=st.sampled_from([ACCOUNT, ACCOUNT, OTHER_ACCOUNT, "tmp"]),
    size=st.sampled_from([5, 5, 6, 0]), actual=st.sampled_from([5, 5, 4]), age_s=st.sampled_from([0, OLD_S]),
    content=st.sampled_from(["", MD5, OTHER_MD5, "!no"]),
)  # fmt: skip
BREAKS = st.dictionaries(
    st.sampled_from(["shard 1", "shard 2", *AZS]), st.builds(object_id, st.integers(0, 5)), max_size=2
)
WORLDS = st.builds(
    World,
    st.lists(ROWS, max_size=6, unique_by=lambda r: (r.object_id, r.dropped)),
    st.lists(FILES, max_size=12, unique_by=lambda f: (f.host, f.path)),
    st.just([]),
    BREAKS,
)


def servers_of(entry: Row) -> tuple[str, ...] | None:
    servers = GROUPS.get(entry.group, ())[: entry.copies]
    return servers if entry.copies and len(servers) == entry.copies else None


def model_of_entry(entry: Row, files: set[File], silent: set[str]) -> set[Seen]:
    """What is wrong with the copies of an object."""
    hosts = servers_of(entry) if entry.size_bytes else ()
    if hosts is None:
        return {("group", entry.object_id, entry.source)}
    seen: set[Seen] = set()
    if len({AZS.get(host, "z") for host in hosts}) < min(3, entry.copies):
        seen.add(("spread", entry.object_id, entry.source))
    right = {f for f in files if f.host in hosts and f.path == entry.file} if entry.size_bytes else set()
    for file in right:
        if file.size_bytes != 5:
            seen.add(("size", entry.object_id, file.host))
        elif file.content not in ("", MD5):
            seen.add(("unreadable" if file.content[0] == "!" else "content", entry.object_id, file.host))
    lacking = [host for host in hosts if host not in {f.host for f in right} | silent]
    extra = files - right
    renamed = {host: next(f for f in extra if f.host == host) for host in lacking if any(f.host == host for f in extra)}
    elsewhere = sorted(
        (f for f in extra if f.path == entry.file and f.host not in hosts and is_whole(f)), key=lambda f: f.host
    )
    nowhere = [host for host in lacking if host not in renamed]
    mislaid = elsewhere[: len(nowhere)]
    seen |= {("name", entry.object_id, host) for host in renamed}
    seen |= {("misplaced", entry.object_id, file.host) for file in mislaid}
    seen |= {("missing", entry.object_id, host) for host in nowhere[len(mislaid) :]}
    left = extra - set(mislaid if silent.isdisjoint(set(hosts) - {f.host for f in right}) else elsewhere)
    for host in set(hosts) & {f.host for f in left}:
        # One of those on the host stands for the copy of another name, so the rest is surplus.
        there = [f for f in left if f.host == host]
        if host in renamed:
            left -= {first_as_judged(there)}
    return seen | {("surplus", entry.object_id, f.host) for f in left if f.age_s == OLD_S}


def is_whole(file: File) -> bool:
    return file.size_bytes == 5 and file.content in ("", MD5)


def first_as_judged(files: list[File]) -> File:
    return min(files, key=ORDER.__getitem__)


ORDER: dict[File, int] = {}


def model(world: World) -> set[Seen]:
    seen: set[Seen] = set()
    ORDER.clear()
    ORDER.update({file: number for number, file in enumerate(world.files)})
    shards_end = min((end for source, end in world.breaks.items() if source.startswith("shard")), default="~")
    rows = [r for r in world.rows if r.object_id <= world.breaks.get(r.source, "~")]
    files = {f for f in world.files if f.object_id <= world.breaks.get(f.host, "~")}
    for number in {r.object_id for r in rows} | {f.object_id for f in files}:
        silent = {source for source, end in world.breaks.items() if end <= number}
        here = {f for f in files if f.object_id == number}
        entries = [r for r in rows if r.object_id == number and not r.dropped]
        garbage = [r for r in rows if r.object_id == number and r.dropped]
        for entry in entries:
            seen |= model_of_entry(entry, here, silent)
            seen |= {("doomed", number, r.source) for r in garbage}
        if not entries:
            named = {f for f in here for r in garbage if f.path == r.file and f.host in (servers_of(r) or AZS)}
            for file in here - named:
                if file.age_s == OLD_S and (number < shards_end or file.path.startswith("tmp/")):
                    seen.add(("orphan", number, file.host))
    return seen


@given(WORLDS)
def test_the_merged_streams_say_what_a_naive_model_says(world: World) -> None:
    found, _ = look(world)
    assert {(f.kind, f.object, f.host) for f in found} == model(world)


@given(WORLDS)
def test_every_file_is_counted_once_or_part_of_a_finding(world: World) -> None:
    found, counts = look(world)
    said = sum(1 for f in world.files if f.object_id <= world.breaks.get(f.host, "~"))
    of_files = sum(
        1 for f in found if f.kind in ("size", "content", "unreadable", "name", "misplaced", "surplus", "orphan")
    )
    assert (
        counts.copies + counts.garbage_files + counts.in_flight + counts.unjudged_files + of_files + lost(world) == said
    )


def lost(world: World) -> int:
    """Files of objects whose place nobody can say: one finding stands for all of them."""
    rows = [r for r in world.rows if r.object_id <= world.breaks.get(r.source, "~") and not r.dropped]
    nowhere = {r.object_id for r in rows if r.size_bytes and servers_of(r) is None}
    return sum(1 for f in world.files if f.object_id in nowhere and f.object_id <= world.breaks.get(f.host, "~"))


# Two looks, and what is said at the end.


def passed(world: World, only: set[str] | None = None) -> Tally:
    judge, tally = Judge(AZS, MAP), Tally()
    for key, unit in units(merged(world.sources())):
        verdict = judge.judge(unit)
        if only is None or key in only:
            tally.take(key, verdict)
    return tally


def test_a_suspicion_that_the_second_look_does_not_share_is_withdrawn_and_its_object_counted_once() -> None:
    before, after = healthy(), healthy()
    before.files.remove(before.file("a-1", FIRST))
    first = passed(before)
    report = conclude(first, passed(after, set(first.suspects)), {}, elapsed_s=1.0, read=False)
    assert report.ok
    assert (report.counts.objects, report.counts.copies) == (4, 10)
    assert (report.rechecked, report.withdrawn) == (1, 1)
    assert "1 suspects looked at again, 1 of them withdrawn" in report.text(9)
    assert report.text(9).endswith("clean: every copy is where the metadata says, and every file has a name (1.0 s)")


def test_a_suspicion_stands_when_the_second_look_breaks_off() -> None:
    world = healthy()
    world.files.remove(world.file("a-1", FIRST))
    report = conclude(passed(world), None, {"b-1": "gone"}, elapsed_s=1.0, read=False)
    assert [f.kind for f in report.findings] == ["missing"]
    assert (report.ok, report.rechecked) == (False, 0)


def test_what_could_not_be_asked_is_never_ok_and_said_in_a_sentence() -> None:
    report = conclude(passed(healthy()), None, {"b-1": "reach 10.77.2.41 by SSH: timed out"}, elapsed_s=1.0, read=False)
    assert (report.ok, report.as_json(9)["unknown"]) == (
        False, [{"source": "b-1", "why": "reach 10.77.2.41 by SSH: timed out"}]
    )  # fmt: skip
    assert "UNKNOWN: b-1: reach 10.77.2.41 by SSH: timed out" in report.text(9)


def test_the_report_shows_as_many_findings_as_it_is_told_and_says_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "SUSPECTS_MAX", 3)
    world = World([], [File(object_id(n), "c-1", row(n).file, 5, OLD_S) for n in range(1, 6)])
    first = passed(world)
    report = conclude(first, passed(world, set(first.suspects)), {}, elapsed_s=1.0, read=False)
    said = json.loads(json.dumps(report.as_json(2)))
    assert (len(said["findings"]), said["findings_total"], said["rechecked"], said["kinds"]) == (2, 5, 3, {"orphan": 5})
    assert set(said["findings"][0]) == {"kind", "object", "path", "host", "what", "do", "file", "group"}
    assert {
        "ok",
        "objects",
        "copies",
        "empty",
        "garbage_rows",
        "garbage_files",
        "in_flight",
        "bytes",
        "elapsed_s",
    } < set(said)
    text = report.text(2)
    assert "... 3 more findings; --limit shows more" in text
    assert "2 findings beyond the first 3 were not looked at again" in text


def test_files_with_foreign_names_are_judged_one_by_one_and_found_again() -> None:
    world = World([], [File("", "c-1", f"odd-{n}", 5, OLD_S) for n in range(3)])
    first = passed(world)
    assert sorted(first.suspects) == ["c-1 odd-0", "c-1 odd-1", "c-1 odd-2"]
    world.files.pop()
    again = passed(world, set(first.suspects))
    assert conclude(first, again, {}, elapsed_s=0, read=False).withdrawn == 1


def peak_bytes(objects: int) -> int:
    """Of an audit of so many objects."""

    def rows() -> Iterator[Record]:
        for number in range(objects):
            yield row(number)

    def files(host: str) -> Iterator[Record]:
        for number in range(objects):
            yield File(object_id(number), host, row(number).file, 5, 9)

    groups = Placement(SHARD, 1, tuple((h, AZS[h]) for h in GROUPS[1]))
    judge, tally = Judge(AZS, MAP), Tally()
    tracemalloc.start()
    for key, unit in units(merged([iter([groups]), rows(), files("a-1"), files("b-1")])):
        tally.take(key, judge.judge(unit))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tally.counts.objects, tally.counts.copies, tally.suspects) == (objects, 2 * objects, {})
    return peak


def test_memory_does_not_grow_with_the_objects() -> None:
    # In a process of its own: what is measured is of all threads, and servers of other tests may run in ours.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        few, many = process.map(peak_bytes, (1000, 8000))
    # Ten thousand records of 8000 objects kept would be some megabytes; what is left is noise of the allocator.
    assert many < few + 100_000


def test_the_counts_by_kind_hold_what_was_only_counted() -> None:
    report = conclude(Tally(beyond=Counter(orphan=2)), None, {}, elapsed_s=0, read=False)
    assert (report.ok, report.kinds) == (False, {"orphan": 2})


def test_bytes_that_lost_one_of_several_names_are_not_doomed() -> None:
    world = healthy()
    gone = row(1, dropped=True)
    world.rows.append(Row(**{**{name: getattr(gone, name) for name in gone.__struct_fields__}, "released": True}))
    assert look(world)[0] == []


def test_a_lost_object_is_counted_and_no_finding() -> None:
    world = healthy()
    entry(lost=True)(world)
    world.files = [f for f in world.files if f.object_id != FIRST.object_id]
    report = conclude(passed(world), None, {}, elapsed_s=0, read=False)
    assert (report.ok, report.counts.objects, report.counts.lost, report.counts.copies) == (True, 4, 1, 8)
    assert "1 of these objects are lost" in report.text(10)


def test_a_copy_that_another_one_can_give_is_mendable() -> None:
    world = healthy()
    world.files.remove(world.file("a-1", FIRST))
    assert conclude(passed(world), None, {}, elapsed_s=0, read=False).mendable == [("a-1", FIRST.file, 1)]
    world.files.remove(world.file("b-1", FIRST))
    assert conclude(passed(world), None, {}, elapsed_s=0, read=False).mendable == []
