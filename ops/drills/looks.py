"""What is looked at on the machines when a drill is over: every copy of its objects (O4)."""

from __future__ import annotations

from ops.audit_region import audit
from ops.drills.findings import Finding, Verdict
from ops.progress import Progress
from ops.region import Region
from ops.remote import SshRemote


def look(region: Region, folder: str, progress: Progress) -> list[Finding]:
    """Findings of the audit about the objects below `/stor/drills/<folder>`: the region may have had others before."""
    with progress.step("audit: every copy of every object"):
        report = audit(
            region, {h.name: SshRemote(region, h.address) for h in region.hosts.values()}, read=False, progress=progress
        )
    found = [
        Finding("O4", Verdict.FAIL, f"{f.kind} {f.host} {f.object} {f.path}: {f.what}")
        for f in report.findings
        if f"/stor/drills/{folder}/" in f.path
    ]
    found += [
        Finding("O4", Verdict.UNKNOWN, f"{source} could not be asked: {why}") for source, why in report.unknown.items()
    ]
    return found
