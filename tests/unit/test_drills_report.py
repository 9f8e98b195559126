"""Reports of a run: complete, escaped, readable by those who read them."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from ops.drills import record
from ops.drills.findings import Checked, Finding, Verdict
from ops.drills.outages import Recovery
from ops.drills.page import html
from ops.drills.record import FaultRun, Happened, Proof, Run, Sample, Second
from ops.drills.report import journal, junit, summary
from tests.drills import get, put

EVIL = "<script>alert('1')</script>&\"\x00\ud800|"


def invented() -> Run:
    """Ten minutes, of which the AZ of a primary is lost for four."""
    source = random.Random(7)  # noqa: S311
    series = []
    for at in range(600):
        down, weak = 181 <= at < 206, 180 <= at < 420
        reads, writes = (int(source.gauss(mean, 6)) for mean in (90 if not weak else 62, 40 if not weak else 27))
        errors: dict[str, int] = {}
        if down:
            writes, errors = 9, {"503": source.randint(5, 9)}
        if 180 <= at < 184 or 420 <= at < 422:
            errors = {**errors, "0": source.randint(2, 12)}
        p50 = 0.004 * math.exp(source.gauss(0, 0.15)) * (2 if weak else 1)
        p99 = p50 * (300 if down else 6) * math.exp(source.gauss(0, 0.3))
        series.append(Second(at, max(0, reads), max(0, writes), errors, p50, p99))
    samples = []
    for at in range(0, 600, 2):
        for n, az in ((1, "b"), (2, "c")):
            primary = "lab-a-metadata-01" if at < 183 else None if at < 203 else f"lab-{az}-metadata-01"
            samples.append(Sample(at, f"shard:{n}", primary, at < 183 or at >= 204))
    stale = Finding("O3", Verdict.FAIL, "a stale read of /demo/stor/d/17: 0cc175b9 had been replaced before", (
        put("0cc175b9c0f1b6a831c399e269772661", 1180.1, 1180.2), put("92eb5ffee6ae2fec3ad71c777531578f", 1190.1, 1190.2),
        get("0cc175b9c0f1b6a831c399e269772661", 1191.0, 1191.01),
    ))  # fmt: skip
    short = Finding("gate", Verdict.UNKNOWN, "clients in c began 150 operations during the fault; 200 are needed")
    checked = [Checked(f"O{n}", Verdict.PASS, ()) for n in (1, 2, 4, 5, 6, 8, 9, 10)]
    classes = [(az, f"shard:{n}", writes) for az in "bc" for n in (1, 2) for writes in (False, True)]
    return Run(
        "az_loss", "An AZ goes dark under load: the two others go on, and nothing that was acknowledged is lost.", ("CL-01", "CL-04"),
        "lab", "lab", 42, "2026-11-27T08:00:00+00:00", 600.0, 1000.0, Verdict.FAIL,
        (*checked, Checked("O3", Verdict.FAIL, (stale,)), Checked("gate", Verdict.UNKNOWN, (short,))),
        faults=(FaultRun("AZ a lost", "power off of 9 machines", 180.0, 420.0,
            (Proof("lab-a-metadata-01 answered no ping for 240 s", True),), (Proof("all 9 machines run", True),)),),
        before=(Proof("the region is well", True), Proof("shard:1 is redundant", True)), after=(Proof("the region is well", False),),
        recovered=tuple(
            Recovery(az, group, writes, 5000, 120 * writes, 24.3 if writes else 1.2, 25.0 if writes else 0.0)
            for az, group, writes in classes
        ),
        healed=(Recovery("a", "shard:1", True, 900, 3, 2.0, None),),
        series=tuple(series), samples=tuple(samples),
        operations={"get": 48_211, "put": 20_001, "delete": 900}, errors={"503": 180, "0": 39},
        events=(Happened(180.0, "cut the power of 9 machines"), Happened(203.0, "lab-b-metadata-01 is primary of shard:1")),
    )  # fmt: skip


def empty() -> Run:
    return Run("nothing", "", (), "r", "p", 0, "2026-11-27T08:00:00+00:00", 0.0, 0.0, Verdict.UNKNOWN, ())


class Reader(HTMLParser):
    """Tags in balance, and which there were."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("run", [invented(), empty()], ids=["invented", "empty"])
def test_the_page_needs_nothing_else(run: Run) -> None:
    page = read(html(run))
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not {name for name, _ in page.attributes} & {"href", "src", "onload", "style"}
    assert "url(" not in html(run)
    assert "@import" not in html(run)
    assert ("name", "viewport") in page.attributes
    assert {"svg", "title"} <= page.tags


def test_the_page_says_what_was_found_and_when() -> None:
    words = " ".join(read(html(invented())).words.split())
    for said in (
        "az_loss \u2717 failed", "CL-01, CL-04", "24.3 s at the longest", "69,112; 219 failed (0.32%)",
        "503 Service Unavailable: ", "no answer: ", "AZ a lost 180 s \u2013 420 s", "b-metadata-01", "reads", "p99",
        "a stale read of /demo/stor/d/17", "191.0000 - 191.0100 s", "? unknown",
        "not so: the region is well", "writes of shard:2 from c", "never",
    ):  # fmt: skip
        assert said in words, said


def test_what_the_run_says_can_not_become_part_of_the_page() -> None:
    run = invented()
    finding = Finding(EVIL, Verdict.FAIL, EVIL, (replace(get("a", 1, 2), key=EVIL, client=EVIL),))
    run = replace(
        run, drill=EVIL, doc=EVIL, region=EVIL, profile=EVIL, claims=(EVIL,), checked=(Checked(EVIL, Verdict.FAIL, (finding,)),),
        faults=(FaultRun(EVIL, EVIL, 1, None, (Proof(EVIL, True),)),), events=(Happened(1, EVIL),), before=(Proof(EVIL, True),),
        samples=(Sample(0, EVIL, EVIL, True),), series=(Second(0, 1, 1, {EVIL: 1}, None, None),),
        recovered=(Recovery(EVIL, EVIL, True, 1, 1, 1, None),),
    )  # fmt: skip
    page = read(html(run))
    assert "script" not in page.tags
    assert "\x00" not in html(run)
    html(run).encode()
    suite = ET.fromstring(junit(run))  # noqa: S314 - ours
    assert suite.find("testcase/failure") is not None
    assert "|" not in re.sub(r"\\\|", "", summary([run]).splitlines()[2].replace(" | ", "").strip("| "))


def test_a_fault_that_was_never_healed_and_one_moment_are_drawn() -> None:
    run = replace(
        invented(),
        faults=(FaultRun("cut", "", 599.99, None), FaultRun("a name as long as a name can be" * 3, "", 0, 1)),
    )
    assert "never healed" in html(run)
    read(html(replace(run, series=invented().series[:1], samples=())))


def test_the_journal_has_the_keys_that_chaos_toolkit_has() -> None:
    made = journal(invented())
    assert {"status", "deviated", "steady_states", "run", "rollbacks", "start", "end"} <= made.keys()
    assert (made["status"], made["deviated"], made["end"]) == ("failed", True, "2026-11-27T08:10:00+00:00")
    assert made["steady_states"]["before"]["steady_state_met"] is True
    assert made["steady_states"]["after"]["steady_state_met"] is False
    assert [a["activity"]["name"] for a in made["run"] + made["rollbacks"]] == ["inject AZ a lost", "heal AZ a lost"]
    assert made["run"][0]["start"] == "2026-11-27T08:03:00+00:00"
    assert journal(empty())["status"] == "aborted"
    assert journal(replace(empty(), verdict=Verdict.PASS))["status"] == "completed"
    assert journal(replace(empty(), interrupted=True))["status"] == "interrupted"
    never = journal(replace(invented(), faults=(FaultRun("x", "", 1, None),)))
    assert never["rollbacks"][0]["status"] == "failed"


def test_a_record_is_read_as_it_was_written() -> None:
    assert record.decode(record.encode(invented())) == invented()
    with pytest.raises(record.BadRecord, match="no record of a run"):
        record.decode(b"{}")


def test_junit_tells_what_failed_from_what_is_unknown() -> None:
    suite = ET.fromstring(junit(invented()))  # noqa: S314 - ours
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("10", "1", "1")
    failure, error = suite.find("testcase[@name='O3']/failure"), suite.find("testcase[@name='gate']/error")
    assert failure is not None
    assert "191.0000" in str(failure.text)
    assert error is not None


def test_many_runs_are_a_table() -> None:
    run = invented()
    slow = replace(run, verdict=Verdict.PASS, recovered=tuple(replace(r, outage_s=30.0) for r in run.recovered))
    assert summary([run, slow, empty()]).splitlines()[2:] == [
        "| az_loss | lab | 2 | 1.2 / 15.6 / 30.0 | 24.3 / 27.1 / 30.0 | 438 of 138,224 (0.32%) | 1 pass, 1 fail |",
        "| nothing | p | 1 | - | - | - | 1 unknown |",
    ]


def test_a_history_becomes_a_series() -> None:
    history = [get("a", 10, 10.5), put("b", 10, 10.9, 503), get(None, 12, 12.2, 0), put("c", 12, 12.75)]
    assert record.series(history, 10) == (
        Second(0, 1, 1, {"503": 1}, 0.5, pytest.approx(0.9)), Second(1, 0, 0, {}, None, None), Second(2, 1, 1, {"0": 1}, 0.75, 0.75),
    )  # fmt: skip
    assert record.series([], 0) == ()
    assert record.errors(history) == {"0": 1, "503": 1}
    assert record.operations(history) == {"get": 2, "put": 2}
