"""`mobula usage`: the usage reports of an hour, made right now by `mobula.workers.usage` on an api host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mobula.core.hours import parse, path_of
from ops.accounts import ask_api_host
from ops.errors import BadInput
from ops.region import Region

TIMEOUT_S = 2400.0
"""more than the job of the reports may take"""
ARGV = ("/opt/mobula/current/bin/python", "-m", "mobula.workers.usage", "--config", "/etc/mobula/worker.json", "--hour")


@dataclass(frozen=True, slots=True)
class Report:
    """What was made."""

    hour: str
    answer: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**self.answer, "path": path_of(parse(self.hour))}

    def text(self) -> str:
        """For people."""
        so_far = "" if self.answer["final"] else " so far"
        return (
            f"usage of {self.hour}{so_far}: {self.answer['accounts']} accounts as shards count them, job {self.answer['job']}\n"
            f"the reports: /LOGIN/reports/usage/{{storage,requests,compute}}/{path_of(parse(self.hour))}"
        )


def make(region: Region, hour: str) -> Report:
    """Every account's reports of an hour.

    Raises:
        BadInput: it is no hour, or one of which nothing is known.
        OperatorError: no api host could be reached, or they could not be made.
    """
    try:
        parse(hour)
    except ValueError as error:
        raise BadInput(str(error)) from error
    return Report(hour, ask_api_host(region, "usage", [*ARGV, hour], "", TIMEOUT_S))
