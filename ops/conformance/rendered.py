"""What Ansible would change, as findings. Its check mode is the one place that knows every file, folder, link and unit of a machine."""

from __future__ import annotations

from collections.abc import Iterator

from ops.ansible import Outcome
from ops.conformance.model import Finding

JUDGED_ELSEWHERE = (" enabled", " started")
"""a unit that is stopped or disabled is said once, by `machine.units`"""


def differences(host: str, found: Outcome) -> Iterator[Finding]:
    """What differs on one host from what this clone renders."""
    for failure in found.failures:
        if failure.host == host:
            yield Finding(
                host, f"can't be compared with what this clone renders: {' '.join(failure.message.split())[-300:]}",
                "mend that, then look again", "CL-100",
            )  # fmt: skip
    for change in found.changes:
        items = [item for item in change.items if not item.endswith(JUDGED_ELSEWHERE)]
        if change.host == host and (items or not change.items):
            what = ", ".join(items) or change.task
            yield Finding(
                host, f"is not what this clone renders; ./mobula up would change {what}",
                "./mobula up, or take the change over into the roles", "CL-100",
            )  # fmt: skip
