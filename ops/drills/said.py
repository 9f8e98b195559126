"""A run's outcome as text for a terminal. Pure."""

from __future__ import annotations

from ops.drills.engine import Recorded
from ops.drills.findings import Verdict
from ops.drills.judge import Judged

EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 2}


def text(record: Recorded, judged: Judged) -> str:
    """What was done, how long what was away, what was found, the verdict."""
    expect = record.act.expect
    begun = [o for o in record.history if record.injected_s <= o.began_s <= record.healed_s]
    failed = sum(o.failed for o in begun)
    lines = [
        f"drill {record.drill.name} ({record.variant}), seed {record.seed}",
        *(f"  fault      {fault.text()}" for fault in record.act.faults),
        *(f"  proof      {sentence}{'' if so else '  (NOT SO)'}" for sentence, so in record.proof),
        f"  operations {len(record.history):,}, {len(begun):,} begun during the fault, {failed:,} of those failed",
        f"  reads      away {judged.worst_s(writes=False, served=expect.served):.1f} s at most during the fault",
        f"  writes     away {judged.worst_s(writes=True, served=expect.served):.1f} s at most during the fault",
        f"  healed     away {judged.worst_after_s():.1f} s at most; all well {record.settled_s - record.healed_s:.0f} s after",
        f"  takeovers  {', '.join(f'shard {n}: {count}' for n, count in judged.takeovers.items())}",
    ]
    if judged.out_of_dns_s:
        named = judged.out_of_dns_s.values()
        slowest = [s for s in named if s is not None]
        how_long = f"for {max(slowest):.0f} s" if len(slowest) == len(named) else "to the end of the fault"
        lines.append(f"  DNS        named {len(named)} lost hosts {how_long}")
    for checked in judged.checked:
        if checked.verdict is not Verdict.PASS:
            lines.append(f"{checked.verdict.upper():8} {checked.check}")
            for finding in checked.findings[:5]:
                lines += [f"  {finding.what}", *(f"    {line}" for line in finding.lines(record.began_s)[:6])]
    return "\n".join([*lines, f"verdict: {judged.verdict}"])
