"""What is looked at on the machines when a drill is over: every copy of its objects, what healed faults have left (O4), what crashed, and
what still stands (O10)."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mobula.lab import faults
from mobula.lab.network import LabError
from ops.audit_region import audit
from ops.drills.fault import Fault
from ops.drills.findings import Finding, Verdict
from ops.errors import OperatorError
from ops.progress import Progress
from ops.region import Host, Region
from ops.remote import RemoteError, SshRemote

CRASH = r"Traceback|PANIC:|code=dumped|terminated by signal (4|6|7|8|11)\b|segfault"
"""in a journal: an error that nobody foresaw, a process that ended itself or was ended by the kernel; a drill's own kills are signal 9"""
SHOWN_MAX = 3
JOURNAL_TIMEOUT_S = 30.0
LOOKERS = 6


def look(region: Region, folder: str, since_s: float, done: Iterable[Fault], progress: Progress) -> list[Finding]:
    """All of it: objects below `/stor/drills/<folder>` (the region may have had others before), journals from `since_s` on (wall clock),
    what the faults that were `done`, and are healed, have left.
    """
    with progress.step("audit: every copy of every object"):
        found = copies(region, folder, progress)
        for fault in done:
            found += left(region, fault)
    with progress.step("what crashed, what still stands"):
        with ThreadPoolExecutor(LOOKERS) as pool:
            for crashed in pool.map(lambda host: crashes(region, host, since_s), region.hosts.values()):
                found += crashed
        return [*found, *reverted(faults.standing(region.name, region.zones, region.state_dir))]


def copies(region: Region, folder: str, progress: Progress) -> list[Finding]:
    """Findings of the audit."""
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


def left(region: Region, fault: Fault) -> list[Finding]:
    """What can't be seen is unknown, and no reason to lose what the audit has found."""
    try:
        return [Finding("O4", Verdict.FAIL, what) for what in fault.left(region)]
    except (LabError, OperatorError, OSError) as error:
        return [Finding("O4", Verdict.UNKNOWN, f"what is left of {fault.text()!r} can't be seen: {error}")]


def crashes(region: Region, host: Host, since_s: float) -> list[Finding]:
    """Of one host."""
    argv = [
        "journalctl", "--quiet", "--no-pager", f"--since=@{since_s:.0f}", "--output=cat", f"--grep={CRASH}", f"--lines={SHOWN_MAX}",
    ]  # fmt: skip
    try:
        # Exit code 1: nothing was found.
        said = SshRemote(region, host.address).run(argv, timeout_s=JOURNAL_TIMEOUT_S, check=False)
    except RemoteError as error:
        return [Finding("O10", Verdict.UNKNOWN, f"{host.name}: its journal could not be read: {error}")]
    if said.exit_code not in (0, 1):
        return [Finding("O10", Verdict.UNKNOWN, f"{host.name}: its journal could not be read: {said.stderr.strip()}")]
    return [Finding("O10", Verdict.FAIL, f"{host.name}: {line[:400]}") for line in said.stdout.splitlines() if line]


def reverted(standing: Iterable[tuple[str, str, str]]) -> list[Finding]:
    """Faults of the lab that nobody has taken back."""
    return [Finding("O10", Verdict.FAIL, f"{where} {what} still; {do}") for where, what, do in standing]
