"""The bench's pure parts: what the rows of a run mean."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest

from ops.errors import OperatorError
from ops.progress import Progress
from tests.bench import plot, report
from tests.bench.__main__ import sizes, take
from tests.bench.fetchers import EVERY, LINE_BYTES, WORD, Errand
from tests.bench.fetchers import text as lines_with_the_word
from tests.bench.greps import BARE, CLIENTS, JOB, Grep
from tests.bench.load import percentile
from tests.bench.measure import Row
from tests.bench.plan import KIB, MIB, Plan, size_name
from tests.bench.system import CpuTimes


def row(system: str, requests_s: float, *, repetition: int = 0, other: float = 0.0, **given: object) -> Row:
    values: dict[str, object] = {
        "method": "PUT", "size_bytes": KIB, "connections": 16, "p50_ms": 10.0, "p99_ms": 20.0, "cpu_ms": 2.0, "load_cpu_ms": 0.05,
        "load_cores": 0.1, "asked": 100, "failed": 0, "answers": {"204": 100},
    }  # fmt: skip
    return Row(system=system, requests_s=requests_s, repetition=repetition, other_cores=other, **(values | given))  # type: ignore[arg-type]


def test_quiet_runs_count_and_others_do_not() -> None:
    rows = [row("mobula", 500, other=0.1), row("mobula", 700, other=0.2), row("mobula", 100, other=1.5)]
    cell = report.cells(rows)[("PUT", KIB, 16), "mobula"]
    assert (cell.requests_s, cell.runs, cell.quiet) == (500, 2, True)


def test_where_none_was_quiet_the_quietest_count_and_it_is_said() -> None:
    rows = [row("mobula", value, other=1 + value / 1000) for value in (100, 200, 300, 400)]
    cell = report.cells(rows)[("PUT", KIB, 16), "mobula"]
    assert (cell.requests_s, cell.runs, cell.quiet) == (200, 3, False)


def test_a_ratio_compares_what_was_measured_one_after_the_other() -> None:
    rows = [row("mobula", 1000, repetition=0), row("swift", 100, repetition=0)]
    rows += [row("mobula", 200, repetition=1), row("swift", 25, repetition=1), row("swift", 9999, repetition=2)]
    assert report.ratio(rows, ("PUT", KIB, 16), "swift") == 8.0
    assert report.ratio(rows, ("PUT", KIB, 16), "seaweedfs") is None


def test_targets_are_reached_missed_or_not_measured() -> None:
    rows = [row("mobula", 500, cpu_ms=2.2), row("swift", 100), row("seaweedfs", 1000)]
    found = {v.target.what: v for v in report.verdicts(rows)}
    assert found["PUT 1 KiB, against Swift"].reached
    assert not found["PUT 1 KiB, against SeaweedFS with fsync"].reached
    assert found["servers' CPU of a PUT of 1 KiB, ms"].reached
    assert found["GET 64 MiB, against Swift"].value is None


def found() -> report.Found:
    systems = [{"name": n, "version": "1", "idle_cores": 0.01} for n in ("mobula", "swift")]
    rows = [row("ceiling", 30_000), row("mobula", 500), row("swift", 100, failed=3), row("mobula", 9, size_bytes=MIB)]
    return report.Found(rows, [report.Listing("mobula", 10, 0, 0.25)], systems)


def test_the_report_tells_figures_failures_and_the_loads_ceiling() -> None:
    text = report.text(found())
    assert "PUT c=16 30000/s" in text
    assert "| PUT 1 KiB c=16 | 500 (10.0/20.0; 2.00) | 100 (10.0/20.0; 2.00) **3 failed** | 5.00 |" in text
    assert "| PUT 1 MiB c=16 | 9 MB (10.0/20.0; 2.00) | - | - |" in text
    assert "mobula 250 ms (n=1)" in text


def test_the_picture_is_whole_and_needs_nothing_else() -> None:
    picture = plot.svg(found())
    root = ET.fromstring(picture)  # noqa: S314 (our own text)
    bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill") == plot.COLOURS["mobula"]]
    assert len(bars) == 3  # its legend, two cells
    assert "href" not in picture


def test_each_system_is_first_in_its_turn() -> None:
    plan = Plan()
    assert [plan.turn(n)[0] for n in range(4)] == ["mobula", "swift", "seaweedfs", "mobula"]
    assert {count for size, count in plan.cells() if size == 64 * MIB} == {1, 4}


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("1", 1), ("4096", 4096), ("64k", 64 * KIB), ("1M", MIB), ("64MiB", 64 * MIB)]
)
def test_a_size_is_read_as_people_write_it(text: str, size_bytes: int) -> None:
    context = click.Context(click.Command("bench"))
    assert sizes(context, click.Option(["--size"]), (text,)) == (size_bytes,)


@pytest.mark.parametrize("text", ["", "0", "k", "1g", "-1k", "1 k", "2048m", "1kk1"])
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        sizes(click.Context(click.Command("bench")), click.Option(["--size"]), (text,))


def test_sizes_have_names() -> None:
    assert [size_name(n) for n in (KIB, 64 * KIB, MIB)] == ["1 KiB", "64 KiB", "1 MiB"]


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert percentile([], 0.99) == 0.0
    assert percentile(range(100), 0.99) == 99


def stat(proc: Path, pid: int, parent: int, ticks: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / f"{pid}/stat").write_text(f"{pid} (a) b) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 {ticks} 0 20 0 1 0 5\n")


def test_the_cpu_of_a_tree_counts_children_and_those_that_ended(tmp_path: Path) -> None:
    for pid, parent, ticks in ((10, 1, 100), (11, 10, 50), (12, 11, 50), (20, 1, 1000)):
        stat(tmp_path, pid, parent, ticks)
    assert CpuTimes(tmp_path).of([10]) == pytest.approx(4.0)


def test_the_machines_time_leaves_out_idling_and_waiting(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 0 100 9999 9999 10 10 0 0 0\ncpu0 1\n")
    assert CpuTimes(tmp_path).of_machine() == pytest.approx(2.2)


def greps(job_s: float, ours_s: float, swift_s: float, turn: int = 0, size_bytes: int = 4 * KIB) -> list[Grep]:
    ways = {(JOB, "mobula"): job_s, (CLIENTS, "mobula"): ours_s, (CLIENTS, "swift"): swift_s}
    return [Grep(way, name, 100, size_bytes, turn, seconds, 1.5, 0.2) for (way, name), seconds in ways.items()]


def test_a_job_is_compared_with_clients_of_the_same_turn() -> None:
    rows = [*greps(2, 1, 8), *greps(1, 1, 4, turn=1), *greps(1, 1, 100, size_bytes=4 * MIB)]
    assert report.times_as_fast(rows, 4 * KIB, "swift") == 4.0
    assert report.times_as_fast(rows, 4 * KIB, "mobula") == 0.5
    assert report.times_as_fast(rows, MIB, "swift") is None


def test_the_report_of_jobs_says_what_was_missed_and_what_a_task_costs() -> None:
    rows = [*greps(2, 1, 8), Grep(BARE, "", 100, 4 * KIB, 0, 1.0, 2.0, 0.0)]
    text = report.text(report.Found(greps=rows))
    assert "| map over 4 KiB against clients on swift | >= 3 x | 4.00 x | reached |" in text
    assert "| map over 4 KiB against clients on mobula | >= 1 x | 0.50 x | **missed** |" in text
    assert "| map over 4 MiB against clients on swift | >= 4 x | - | not measured |" in text
    assert "| job on mobula | 100 x 4 KiB | 2.00 | 20.0 | 15.0 | 0.2 |" in text
    assert "| bubblewrap, nothing stored | 100 x 4 KiB | 1.00 | 10.0 | 20.0 | 0.0 |" in text


def test_what_is_searched_has_the_word_in_some_lines() -> None:
    found = lines_with_the_word(4 * KIB)
    assert len(found) == 4 * KIB
    assert sum(WORD in line for line in found.decode().splitlines()) == 4 * KIB // LINE_BYTES // EVERY
    errand = Errand([1], "/x/", "", 9, KIB, 8, fills=True)
    assert len({errand.name(number) for number in range(errand.count)}) == 9


def test_what_the_run_says_goes_where_it_belongs() -> None:
    got, progress = report.Found(), Progress(quiet=True)
    take('{"say": "starting"}', got, progress)
    take('{"listing": {"system": "swift", "entries": 5, "repetition": 0, "seconds": 0.5}}', got, progress)
    assert got.listings == [report.Listing("swift", 5, 0, 0.5)]
    with pytest.raises(OperatorError, match="no room"):
        take('{"failed": "no room"}', got, progress)
