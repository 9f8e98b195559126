"""A run for other programs: a journal with Chaos Toolkit's keys, JUnit's XML; and many runs as a table. Pure. (`page.py`: for people.)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from ops.drills.findings import Checked, Finding, Verdict
from ops.drills.record import FaultRun, Proof, Run


def journal(run: Run) -> dict[str, Any]:
    """What Chaos Toolkit's readers know at the top (a broken promise is a deviation), and the whole record as `mobula`."""
    steady = {"before": _steady(run.before), "after": _steady(run.after)}
    return {
        "experiment": {"title": run.drill, "description": run.doc, "tags": list(run.claims)},
        "status": _status(run),
        "deviated": run.verdict is Verdict.FAIL,
        "steady_states": {**steady, "during": []},
        "run": [_activity(run, f, "inject", f.injected_s, f.proofs) for f in run.faults],
        "rollbacks": [_activity(run, f, "heal", f.healed_s, f.reverted) for f in run.faults],
        "start": run.started,
        "end": _at(run, run.took_s),
        "duration": run.took_s,
        "mobula": msgspec.to_builtins(run),
    }


def _status(run: Run) -> str:
    if run.interrupted:
        return "interrupted"
    return {Verdict.PASS: "completed", Verdict.FAIL: "failed", Verdict.UNKNOWN: "aborted"}[run.verdict]


def _at(run: Run, at_s: float) -> str:
    return (datetime.fromisoformat(run.started) + timedelta(seconds=at_s)).isoformat()


def _steady(proofs: Sequence[Proof]) -> dict[str, Any]:
    met = bool(proofs) and all(p.so for p in proofs)
    return {"steady_state_met": met, "probes": [{"activity": {"name": p.what}, "tolerance_met": p.so} for p in proofs]}


def _activity(run: Run, fault: FaultRun, verb: str, at_s: float | None, proofs: Sequence[Proof]) -> dict[str, Any]:
    done = at_s is not None and all(p.so for p in proofs)
    when = {} if at_s is None else {"start": _at(run, at_s)}
    return {
        "activity": {"type": "action", "name": f"{verb} {fault.name}", "background": False},
        "status": "succeeded" if done else "failed",
        "output": [f"{p.what}{'' if p.so else ': not so'}" for p in proofs],
        **when,
    }


def junit(run: Run) -> str:
    """A suite: a case for each check. What is unknown is an error: it must not pass unseen."""
    counts = {verdict: sum(c.verdict is verdict for c in run.checked) for verdict in Verdict}
    suite = ET.Element("testsuite", {
        "name": _plain(f"drill.{run.drill}"),
        "tests": str(len(run.checked)),
        "failures": str(counts[Verdict.FAIL]),
        "errors": str(counts[Verdict.UNKNOWN]),
        "skipped": "0",
        "time": f"{run.took_s:.3f}",
        "timestamp": run.started,
        "hostname": _plain(run.region),
    })  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("profile", run.profile),
        ("seed", str(run.seed)),
        ("claims", " ".join(run.claims)),
        ("verdict", run.verdict.value),
    ):
        ET.SubElement(properties, "property", {"name": name, "value": _plain(value)})
    for checked in run.checked:
        _case(suite, run, checked)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, run: Run, checked: Checked) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": _plain(f"drill.{run.drill}"), "name": _plain(checked.check), "time": "0"}
    )
    if checked.verdict is not Verdict.PASS:
        tag = "failure" if checked.verdict is Verdict.FAIL else "error"
        first = checked.findings[0].what if checked.findings else "no reason was given"
        ET.SubElement(case, tag, {"message": _plain(first), "type": checked.verdict.value}).text = _plain(
            "\n".join(line for finding in checked.findings for line in _lines(run, finding))
        )


def _lines(run: Run, finding: Finding) -> list[str]:
    return [f"{finding.verdict}: {finding.what}", *finding.lines(run.origin_s)]


def _plain(text: str) -> str:
    """Without what XML can't hold."""
    return "".join(
        c if c in "\t\n" or (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000 and ord(c) & 0xFFFE != 0xFFFE) else "\ufffd"
        for c in text
    )


def summary(runs: Iterable[Run]) -> str:
    """Many runs in Markdown, a row for each drill and profile. RTO: the longest outage of any class while the fault held."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.drill, run.profile), []).append(run)
    lines = [
        "| drill | profile | runs | RTO reads, s: min / median / max | RTO writes, s: min / median / max | failed operations | verdicts |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for (drill, profile), found in sorted(grouped.items()):
        total, failed = sum(r.total for r in found), sum(r.failed for r in found)
        share = f"{failed:,} of {total:,} ({failed / total:.2%})" if total else "-"
        counts = [f"{n} {verdict}" for verdict in Verdict if (n := sum(r.verdict is verdict for r in found))]
        cells = [
            _cell(drill),
            _cell(profile),
            str(len(found)),
            *(_spread(found, writes=w) for w in (False, True)),
            share,
            ", ".join(counts),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(runs: Sequence[Run], *, writes: bool) -> str:
    found = [s for run in runs if (s := run.rto_s(writes=writes)) is not None]
    return f"{min(found):.1f} / {median(found):.1f} / {max(found):.1f}" if found else "-"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
