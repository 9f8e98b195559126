"""What `mobula audit` asks the hosts, how it reads their answers, what it makes of those that don't answer; the hosts' scripts run here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.metadata.model import COMMIT_DEADLINE_S
from mobula.metadata.shard_map import even, vnode_of
from ops import audit_region
from ops.audit import Broken, File, Placement, Report, Row, Stray
from ops.audit_region import (
    LEASE,
    OBJECT_FILES,
    OBJECT_ROWS,
    Said,
    audit,
    files_of,
    read_shard_map,
    rows_of,
    rows_sql,
    unbroken,
    unescaped,
)
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Host, Region
from ops.remote import RemoteError, Result

ACCOUNT = "aaaaaaaa-0000-4000-8000-000000000000"
IDS = [f"{n}0000000-0000-4000-8000-000000000000" for n in range(5)]
MD5 = hashlib.md5(b"bytes").hexdigest()  # noqa: S324
DIRECTORY = f"/{ACCOUNT}/stor/a"
VNODE = vnode_of(DIRECTORY)
MAP = even(1)


def entry_line(number: int, group: int = 1) -> str:
    return f"entry\t{IDS[number]}\t{ACCOUNT}\t5\t{MD5}\t{group}\t2\t{VNODE}\t{DIRECTORY}\to{number}"


def file_line(number: int, age_s: int = 9) -> str:
    return f"{IDS[number]}\t{ACCOUNT}/{IDS[number]}.5.{MD5}\t5\t{age_s}\t"


GROUP_LINE = 'group\t1\t[{"id": "lab-a-storage-01", "az": "a", "port": 8060}, {"id": "lab-b-storage-01", "az": "b", "port": 8060}]'


# Lines and statements


ESCAPED = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


@given(st.text(st.sampled_from([*ESCAPED, "n", "t", "N", "ü", "0"])))
def test_a_field_is_what_copy_escaped(text: str) -> None:
    assert unescaped("".join(ESCAPED.get(c, c) for c in text)) == text


def test_a_field_that_is_null_is_empty() -> None:
    assert unescaped("\\N") == ""


def test_a_shards_lines_are_records() -> None:
    lines = [
        "lease\t3", GROUP_LINE, "", f"stray\t7\t{DIRECTORY}\\tb", "lease\t3", entry_line(1),
        f"garbage\t{IDS[2]}\t{ACCOUNT}\t5\t{MD5}\t1\t2\t7\t\t",
    ]  # fmt: skip
    assert list(rows_of(lines, 2)) == [
        Placement(2, 1, (("lab-a-storage-01", "a"), ("lab-b-storage-01", "b"))),
        Stray(2, 7, f"{DIRECTORY}\tb"),
        Row(IDS[1], 2, False, ACCOUNT, 5, MD5, 1, 2, VNODE, DIRECTORY, "o1"),
        Row(IDS[2], 2, True, ACCOUNT, 5, MD5, 1, 2, 7, "", ""),
    ]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["lease\t", "lease\t", entry_line(1)], "did not have the lease all the time"),
        (["lease\t3", "lease\t", entry_line(1)], "did not have the lease all the time"),
        (["lease\t3", "lease\t4", entry_line(1)], "did not have the lease all the time"),
        (["lease\t3", entry_line(1)], "did not have the lease all the time"),
        (["lease\t3"], "did not have the lease all the time"),
        ([], "did not have the lease all the time"),
        (["lease\t3", "lease\t3", "entry\tfew"], "it said 'entry\\tfew': not enough values"),
        (["lease\t3", "group\t1\t{}"], "Expected `array`"),
        (["nonsense"], "it said 'nonsense'"),
    ],
)
def test_a_shard_that_may_be_wrong_is_not_believed(lines: list[str], says: str) -> None:
    with pytest.raises(Said) as caught:
        list(rows_of(lines, 1))
    assert says in str(caught.value)


def test_a_storage_hosts_lines_are_records() -> None:
    assert list(files_of(["", file_line(1), "", f"{file_line(2)}!no"], "h")) == [
        File(IDS[1], "h", f"{ACCOUNT}/{IDS[1]}.5.{MD5}", 5, 9, ""),
        File(IDS[2], "h", f"{ACCOUNT}/{IDS[2]}.5.{MD5}", 5, 9, "!no"),
    ]
    with pytest.raises(Said, match="it said 'what'"):
        list(files_of(["what"], "h"))


def test_a_failure_is_a_record_where_it_happened() -> None:
    def lines() -> Iterator[str]:
        yield file_line(1)
        raise RemoteError("run python3 on 10.77.1.41: silent for 120 s")

    *_, last = unbroken(files_of(lines(), "h"), "h")
    assert last == Broken(IDS[1], "h", "run python3 on 10.77.1.41: silent for 120 s")


def test_a_shard_is_asked_for_strays_outside_its_ranges_and_for_nothing_that_a_host_made_up() -> None:
    sql = rows_sql(2, even(2), {IDS[1], "", "') ; DROP TABLE metadata.entry; --"})
    assert "WHERE true AND vnode NOT BETWEEN 2048 AND 4095" in sql
    assert f"(object_id = ANY ('{{{IDS[1]}}}') OR object_id IS NULL)" in sql
    assert "DROP" not in sql
    assert "WHERE false" in rows_sql(1, None, None)
    assert "kind = 'object' AND true" in rows_sql(1, None, None)


# The scripts, as a host's python3 runs them


def on_host(script: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/python3", "-c", script, *argv], input=stdin, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A storage host's files: three objects, an upload, a segment of the log, and what does not belong there."""
    root = tmp_path / "objects"
    for folder in (ACCOUNT, "tmp", "log", "lost+found"):
        (root / folder).mkdir(parents=True)
    (root / "log" / "1").touch()
    for number in (3, 1, 2):
        (root / ACCOUNT / f"{IDS[number]}.5.{MD5}").write_bytes(b"bytes" if number != 2 else b"bytez")
    (root / "tmp" / IDS[4]).write_bytes(b"on its way")
    (root / ACCOUNT / f"{IDS[0]}.5.{MD5}").symlink_to("/etc/passwd")
    (root / ACCOUNT / "new\nline\tand tab").touch()
    os.utime(root / ACCOUNT / f"{IDS[1]}.5.{MD5}", (0, 0))
    (tmp_path / "storage.json").write_text(json.dumps({"data_dir": str(root)}))
    return root


def listed(data_dir: Path, *, read: bool = False, only: Sequence[str] | None = None) -> list[File]:
    wanted = {"config": str(data_dir.parent / "storage.json"), "read": read, "only": only is not None}
    said = on_host(OBJECT_FILES, json.dumps(wanted), stdin="\n".join(only or ()))
    assert (said.returncode, said.stderr) == (0, "")
    return [file for file in files_of(said.stdout.split("\n"), "h") if isinstance(file, File)]


def test_a_storage_host_lists_its_files_in_the_order_of_their_ids(data_dir: Path) -> None:
    found = listed(data_dir)
    assert [(f.object_id, f.path) for f in found] == [
        ("", f"{ACCOUNT}/{IDS[0]}.5.{MD5}"),
        ("", f"{ACCOUNT}/new\\nline\\tand tab"),
        ("", "lost+found"),
        *((IDS[n], f"{ACCOUNT}/{IDS[n]}.5.{MD5}") for n in (1, 2, 3)),
        (IDS[4], f"tmp/{IDS[4]}"),
    ]
    assert [f.size_bytes for f in found if f.object_id] == [5, 5, 5, 10]
    assert found[3].age_s > COMMIT_DEADLINE_S > found[4].age_s
    assert {f.content for f in found} == {""}


def test_a_storage_host_that_reads_says_the_md5_of_the_bytes(data_dir: Path) -> None:
    contents = {f.object_id: f.content for f in listed(data_dir, read=True)}
    assert contents[IDS[1]] == contents[IDS[3]] == MD5
    assert contents[IDS[2]] == hashlib.md5(b"bytez").hexdigest()  # noqa: S324
    assert contents[""] == ""


def test_a_storage_host_lists_and_reads_only_what_it_is_asked_for(data_dir: Path) -> None:
    assert [f.object_id for f in listed(data_dir, read=True, only=[IDS[3], IDS[1]])] == [IDS[1], IDS[3]]
    assert [f.path for f in listed(data_dir, only=[""]) if f.object_id] == []
    assert [f.path for f in listed(data_dir, only=[])] == [f.path for f in listed(data_dir, only=[""])]


def test_a_file_that_can_not_be_read_is_told_and_one_that_is_gone_is_not_there(data_dir: Path) -> None:
    names: dict[str, Any] = {"__name__": "object_files"}
    exec(compile(OBJECT_FILES, "object_files", "exec"), names)  # noqa: S102
    signs = names["Signs"]()
    assert names["content"](f"{data_dir}/nothing", signs) is None
    assert names["content"](str(data_dir), signs) == "!Is a directory"


def test_a_storage_host_without_its_pool_is_one_sentence(data_dir: Path) -> None:
    shutil.rmtree(data_dir)
    wanted = {"config": str(data_dir.parent / "storage.json"), "read": False, "only": False}
    said = on_host(OBJECT_FILES, json.dumps(wanted))
    assert said.returncode == 1
    assert said.stderr.strip() == f"list the object files: [Errno 2] No such file or directory: '{data_dir}'"


PSQL = "import sys; sys.stdout.write(sys.stdin.read()); sys.exit({})"


def test_rows_come_sorted_after_everything_else() -> None:
    lines = ["lease\t1", entry_line(3), entry_line(1), f"garbage\t{IDS[2]}\tx", "entry\t\tno id", "lease\t1"]
    said = on_host(OBJECT_ROWS, sys.executable, "-c", PSQL.format(0), stdin="\n".join([*lines, ""]))
    assert said.returncode == 0
    assert said.stdout.splitlines() == [
        "lease\t1", "lease\t1", "entry\t\tno id", entry_line(1), f"garbage\t{IDS[2]}\tx", entry_line(3)
    ]  # fmt: skip


def test_no_row_is_told_when_the_question_failed() -> None:
    said = on_host(OBJECT_ROWS, sys.executable, "-c", PSQL.format(3), stdin=f"lease\t1\n{entry_line(3)}\n")
    assert (said.returncode, said.stdout) == (3, "lease\t1\n")


# A region of recorded hosts


def host(az: str, pool: str, shard: int = 0) -> Host:
    return Host(f"lab-{az}-{pool}-01", az, pool, 1, f"10.77.{'abc'.index(az) + 1}.41", shard, 14)


HOSTS = [
    *(host(az, "storage") for az in "abc"), *(host(az, "metadata", 1) for az in "abc"), *(host(az, "api") for az in "ab")
]  # fmt: skip
REGION = Region(
    "lab", "mobula.test", "10.77.0.0/16", 18443, Path("state"), Path("stack"), {h.name: h for h in HOSTS}, "small"
)
Answer = list[str] | RemoteError


class Recorded:
    """A host that answers what was recorded of it: the first answer first, the last one from then on."""

    def __init__(self, *answers: Answer, run: str | RemoteError = "") -> None:
        self._answers = list(answers)
        self._run = run
        self.asked: list[str | None] = []

    def run(self, *_: object, **__: object) -> Result:
        if isinstance(self._run, RemoteError):
            raise self._run
        return Result(self._run, "", 0)

    def lines(self, *_: object, stdin: str | None = None, **__: object) -> Iterator[str]:
        self.asked.append(stdin)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, RemoteError):
            raise answer
        yield from answer


def region_of(**changed: Recorded) -> dict[str, Recorded]:
    """A region of two objects, in which all is well but what is changed (by AZ and pool)."""
    rows = ["lease\t3", GROUP_LINE, "lease\t3", entry_line(1), entry_line(2)]
    hosts = {
        "a_storage": Recorded([file_line(1), file_line(2)]),
        "b_storage": Recorded([file_line(1), file_line(2)]),
        "c_storage": Recorded([]),
        "a_metadata": Recorded(RemoteError("not to be asked"), run="\n"),
        "b_metadata": Recorded(rows, run="3\n"),
        "c_metadata": Recorded(RemoteError("not to be asked"), run=RemoteError("timed out")),
        "a_api": Recorded(run=RemoteError("timed out")),
        "b_api": Recorded(run=MAP.encode().decode()),
        **changed,
    }
    return {"lab-{}-{}-01".format(*key.split("_")): remote for key, remote in hosts.items()}


def seen(**changed: Recorded) -> Report:
    return audit(REGION, region_of(**changed), read=False, progress=Progress(quiet=True))


def test_a_region_in_which_all_is_well_is_clean_although_some_peers_do_not_answer() -> None:
    report = seen()
    assert (report.ok, report.counts.objects, report.counts.copies, report.rechecked) == (True, 2, 4, 0)


def test_a_suspect_is_looked_at_again_and_by_its_id() -> None:
    storage, rows = Recorded([file_line(1)]), region_of()["lab-b-metadata-01"]
    report = seen(a_storage=storage, b_metadata=rows)
    assert [(f.kind, f.host, f.object) for f in report.findings] == [("missing", "lab-a-storage-01", IDS[2])]
    assert (report.rechecked, report.withdrawn) == (1, 0)
    assert storage.asked == ["", IDS[2]]
    assert f"'{{{IDS[2]}}}'" in str(rows.asked[1])


def test_what_moved_while_it_was_looked_at_is_no_finding() -> None:
    report = seen(a_storage=Recorded([file_line(1)], [file_line(2)]))
    assert (report.ok, report.withdrawn, report.counts.copies) == (True, 1, 4)


def test_a_host_that_does_not_answer_is_unknown_and_its_copies_are_not_missing() -> None:
    report = seen(a_storage=Recorded(RemoteError("reach 10.77.1.41 by SSH: timed out")))
    assert (report.ok, report.findings, report.counts.unseen_copies) == (False, [], 2)
    assert report.unknown == {"lab-a-storage-01": "reach 10.77.1.41 by SSH: timed out"}


def test_a_suspicion_stands_if_its_host_falls_silent_before_the_second_look() -> None:
    report = seen(a_storage=Recorded([file_line(1)], RemoteError("silent for 120 s")))
    assert [f.kind for f in report.findings] == ["missing"]
    assert report.unknown == {"lab-a-storage-01": "silent for 120 s"}


def test_a_shard_without_a_leased_primary_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_region, "LEADER_BOUND_S", 0.0)
    report = seen(
        b_metadata=Recorded([], run=""),
        a_storage=Recorded([file_line(1, age_s=10**6)]),
        c_metadata=Recorded([], run=""),
    )
    assert (report.ok, report.findings, report.counts.unjudged_files) == (False, [], 1)
    assert report.unknown == {"shard 1": "none of its peers has the lease"}


def test_without_the_shard_map_the_copies_are_judged_all_the_same() -> None:
    report = seen(b_api=Recorded(run="[]"))
    assert (report.ok, report.findings, report.counts.copies) == (False, [], 4)
    assert list(report.unknown) == ["the shard map"]


def test_a_shard_of_the_map_without_hosts_is_unknown() -> None:
    report = seen(b_api=Recorded(run=even(2).encode().decode()))
    assert report.unknown == {"shard 2": "no peer of it is known"}


def test_a_region_that_is_not_up_is_one_sentence() -> None:
    down = Region("lab", "mobula.test", "10.77.0.0/16", 18443, Path("state"), Path("stack"), {}, None)
    with pytest.raises(OperatorError, match=r"audit region 'lab': it is not up; run ./mobula up"):
        audit(down, {}, read=False, progress=Progress(quiet=True))
    assert read_shard_map(down, {}) == "the region has no api hosts"


def test_a_standby_is_never_asked_for_the_lease() -> None:
    assert "CASE WHEN NOT pg_is_in_recovery() THEN fence.leased()" in LEASE
