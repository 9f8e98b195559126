"""What is looked at on the machines when a drill is over: copies against metadata, both ways (O4, O8)."""

from __future__ import annotations

from ops.audit_region import audit
from ops.drills.findings import Finding, Verdict
from ops.progress import Progress
from ops.region import Region
from ops.remote import SshRemote

YOUNG = frozenset({"orphan"})
"""what an upload that ended badly leaves, and the sweeper removes when it is old enough"""


def look(region: Region, progress: Progress) -> list[Finding]:
    """Findings of the audit."""
    with progress.step("audit: every copy of every object"):
        report = audit(
            region, {h.name: SshRemote(region, h.address) for h in region.hosts.values()}, read=False, progress=progress
        )
    found = [
        Finding("O4", Verdict.FAIL, f"{f.kind} {f.host} {f.object} {f.path}: {f.what}")
        for f in report.findings
        if f.kind not in YOUNG
    ]
    found += [
        Finding("O4", Verdict.UNKNOWN, f"{source} could not be asked: {why}") for source, why in report.unknown.items()
    ]
    return found
