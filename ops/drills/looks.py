"""What is looked at on the machines when a drill is over: every copy of its objects, and who takes copies (O4)."""

from __future__ import annotations

from collections.abc import Iterable

from mobula.lab.network import LabError
from ops.audit_region import audit
from ops.drills.faults import Fault, Full, RotDisk
from ops.drills.findings import Finding, Verdict
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Region
from ops.remote import SshRemote


def look(region: Region, folder: str, faults: Iterable[Fault], progress: Progress) -> list[Finding]:
    """Findings of the audit about the objects below `/stor/drills/<folder>` (the region may have had others before), and what the faults
    have left although they are healed.
    """
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
    for fault in faults:
        if isinstance(fault, Full | RotDisk):
            found += _left(region, fault)
    return found


def _left(region: Region, fault: Full | RotDisk) -> list[Finding]:
    """What can't be seen is unknown, and no reason to lose what the audit has found."""
    try:
        return [Finding("O4", Verdict.FAIL, what) for what in fault.left(region)]
    except (LabError, OperatorError, OSError) as error:
        return [Finding("O4", Verdict.UNKNOWN, f"what is left of {fault.text()!r} can't be seen: {error}")]
