"""What the conformance suite's pytest says becomes progress, a report and an exit code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ops import check
from ops.check import Checked, Found, Reading, Report, argv_of, read, ssh_config
from ops.errors import BadInput, OperatorError
from ops.progress import Progress
from ops.region import Host, Region

HOST = Host("lab-a-api-01", "a", "api", 1, "10.77.1.21", 0, 0)
FOUND = Found("test_units[lab-a-api-01]", HOST.name, "unit x is inactive", "./mobula up starts it", "CL-25")
BROKEN = Checked("names are right", "lab-a-nameservice-01", "broken", "OSError: no route")


def event(kind: str, **values: Any) -> str:
    return json.dumps({"event": kind, **values}) + "\n"


def checked(name: str, of: str, outcome: str, message: str = "") -> str:
    return event("checked", check=name, of=of, outcome=outcome, message=message)


def finding(found: Found) -> str:
    return event("finding", **{f: getattr(found, f) for f in found.__struct_fields__})


EVENTS = [
    event("collected", checks=4),
    event("looked", host=HOST.name, seconds=1.25),
    checked("units run", "h1", "passed"),
    finding(FOUND),
    checked("units run", "h2", "failed"),
    checked("units run", "h3", "broken", "OSError: no route"),
    event("compared", seconds=20.4),
    checked(BROKEN.check, BROKEN.of, BROKEN.outcome, BROKEN.message),
]


def test_events_become_a_line_per_host_and_per_kind_of_check() -> None:
    said: list[str] = []
    reading = Reading(said.append, hosts=3)
    read(EVENTS, reading)
    assert said == [
        "4 checks on 3 hosts",
        "lab-a-api-01 read in 1.2 s (1 of 3)",
        "compared with what this clone renders in 20 s",
        "units run: 1 ok, 1 with findings, 1 not made",
        "names are right: 1 not made",
    ]
    assert (reading.checks, reading.findings, [b.of for b in reading.broken]) == (4, (FOUND,), ["h3", BROKEN.of])


def test_a_report_names_finding_claim_and_what_to_do() -> None:
    report = Report("lab", 3, 4, 41.2, (FOUND,), (BROKEN,))
    assert report.text().splitlines() == [
        "region lab  3 hosts  4 checks  41 s  2 findings",
        "",
        "! lab-a-api-01: unit x is inactive (CL-25)",
        "  -> ./mobula up starts it",
        "",
        "! lab-a-nameservice-01: could not be checked whether names are right: OSError: no route",
        "  -> run it again; ./mobula status says whether the region is well",
    ]
    assert not report.ok
    same = Report("lab", 3, 4, 41.2, (), (BROKEN, Checked("units run", "h3", "broken", BROKEN.message)))
    assert "whether names are right (and 1 checks more): OSError: no route" in same.text()
    found = report.as_json()
    assert (found["ok"], found["findings"][0]["claim"], found["broken"][0]["of"]) == (False, "CL-25", BROKEN.of)
    assert json.loads(json.dumps(found)) == found
    well = Report("lab", 3, 4, 41.2, (), ())
    assert (well.ok, well.text()) == (True, "region lab  3 hosts  4 checks  41 s  ok")


@pytest.fixture
def region(tmp_path: Path) -> Region:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ssh-hosts.key.pub").write_text("ssh-ed25519 AAAAhost hosts of lab\n")
    return Region("lab", "mobula.test", "10.77.0.0/16", 18443, tmp_path, tmp_path, {HOST.name: HOST}, "small")


def test_ssh_is_led_by_the_regions_files_alone(region: Region) -> None:
    text = ssh_config(region).read_text()
    run = region.state_dir / "run"
    for line in (
        f"IdentityFile {region.secrets}/ssh.key",
        f"UserKnownHostsFile {run}/known_hosts",
        f"ControlPath {run}/cp/%C",
    ):
        assert f"  {line}\n" in text
    assert (run / "known_hosts").read_text() == "10.77.1.21 ssh-ed25519 AAAAhost\n"


def test_pytest_runs_in_the_management_network_on_what_was_chosen(region: Region) -> None:
    argv = argv_of(region, [HOST.name], "units or firewall", Path("config"), 7)
    assert argv[:2] == ["nsenter", "--net=/run/netns/lab-op"]
    assert {"--region=lab", f"--machine={HOST.name}", "--events=7", "--ssh-config=config"} <= set(argv)
    assert argv[-3:-1] == ["-k", "units or firewall"]


@pytest.mark.parametrize(
    ("code", "expression", "wanted"),
    [
        (5, "nonsense", BadInput("choose checks by 'nonsense': no check's name matches")),
        (4, "a or", BadInput("choose checks by 'a or': it can't be read")),
        (4, None, OperatorError("pytest ended with 4: the end of its log")),
        (1, None, OperatorError("pytest ended with 1")),
        (-9, None, OperatorError("pytest ended with -9")),
    ],
)
def test_a_pytest_that_checked_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, region: Region, code: int, expression: str | None, wanted: OperatorError
) -> None:
    monkeypatch.setattr(check, "_run", lambda *_: (code, "the end of its log"))
    with pytest.raises(OperatorError) as raised:
        check.check(region, [], expression, Progress(quiet=True))
    assert str(wanted) in str(raised.value)
    assert type(raised.value) is type(wanted)


def test_a_region_whose_networks_are_gone_is_not_asked(region: Region) -> None:
    gone = dataclasses.replace(region, name="nowhere")
    with pytest.raises(OperatorError, match=r"management network is not there; run \./mobula up"):
        check.check(gone, [], None, Progress(quiet=True))


def test_an_unknown_host_is_bad_input_and_a_region_that_is_not_up_an_error(region: Region) -> None:
    with pytest.raises(BadInput, match="find host 'nobody' in region 'lab': it has lab-a-api-01"):
        check.check(region, ["nobody"], None, Progress(quiet=True))
    empty = Region("lab", "mobula.test", "10.77.0.0/16", 18443, region.state_dir, region.state_dir, {}, None)
    with pytest.raises(OperatorError, match=r"it is not up; run \./mobula up"):
        check.check(empty, [], None, Progress(quiet=True))
