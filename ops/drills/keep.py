"""From what the engine recorded and the judge said to what is kept of a run (`record.Run`), and its files. The files are its only I/O."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from ops.drills import page, record, report
from ops.drills.engine import Recorded
from ops.drills.judge import FINAL, Judged
from ops.drills.record import FaultRun, Happened, Proof, Run, Sample

JOURNAL, JUNIT, PAGE, RECORD = "journal.json", "junit.xml", "report.html", "run.json"


def run_of(recorded: Recorded, judged: Judged, region: str, profile: str) -> Run:
    """All that a report needs."""
    history = [o for o in recorded.history if o.client != FINAL]
    since = recorded.began_s
    faults = tuple(
        FaultRun(
            type(fault).__name__, fault.text(), at_s - since, recorded.healed_s - since,
            tuple(Proof(*proof) for proof in recorded.proof) if number == 0 else (),
            tuple(Proof(trouble, so=False) for trouble in recorded.troubles) if number == 0 else (),
        )
        for number, (fault, at_s) in enumerate(zip(recorded.act.faults, recorded.fault_at_s, strict=False))
    )  # fmt: skip
    samples = tuple(
        Sample(peer.at_s - since, f"shard {peer.shard}", peer.host, bool(peer.kind))
        for peer in (recorded.watch.peers if recorded.watch else [])
        if peer.role == "primary"
    )
    return Run(
        drill=f"{recorded.drill.name} ({recorded.variant})", doc=recorded.drill.runbook, claims=recorded.drill.claims,
        region=region, profile=profile, seed=recorded.seed,
        started=dt.datetime.fromtimestamp(recorded.wall_s, dt.UTC).isoformat(timespec="seconds"),
        took_s=recorded.ended_s - since, origin_s=since, verdict=judged.verdict, checked=tuple(judged.checked), faults=faults,
        before=(Proof("every host and service was well", so=True),),
        after=(Proof("every host and service was well again", so=not recorded.troubles),),
        recovered=tuple(judged.during), healed=tuple(judged.after), series=record.series(history, since),
        samples=tuple(sorted(samples, key=lambda s: s.at_s)), operations=record.operations(history),
        errors=record.errors(history), events=tuple(Happened(at_s - since, what) for at_s, what in recorded.events),
    )  # fmt: skip


def write(run: Run, folder: Path) -> None:
    """Record, journal, JUnit and page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_bytes(record.encode(run))
    (folder / JOURNAL).write_text(json.dumps(report.journal(run), indent=1))
    (folder / JUNIT).write_text(report.junit(run))
    (folder / PAGE).write_text(page.html(run))
