"""Administration of a region's data: `mobula.metadata.admin` run on an api host, JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ops.errors import BadInput, OperatorError
from ops.region import Region
from ops.remote import RemoteError, SshRemote

TIMEOUT_S = 60.0
ARGV = ["/opt/mobula/current/bin/python", "-m", "mobula.metadata.admin", "--config", "/etc/mobula/webapi.json"]


class Administration:
    """Verbs of docs/architecture.md, section 9, on whichever api host answers."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def call(self, verb: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Do a verb.

        Raises:
            BadInput: the payload can't be used (the sentence is the host's).
            OperatorError: no api host could be reached, or it could not be done.
        """
        return ask_api_host(self._region, verb, [*ARGV, verb], json.dumps(payload), TIMEOUT_S)


def ask_api_host(region: Region, what: str, argv: Sequence[str], stdin: str, timeout_s: float) -> dict[str, Any]:
    """The JSON that a command of ours says on whichever api host answers; `what` names it in errors.

    Raises:
        BadInput: the input can't be used (the sentence is the host's).
        OperatorError: no api host could be reached, or it could not be done.
    """
    why = f"region {region.name!r} has no api hosts; run ./mobula up"
    for host in region.pool("api"):
        try:
            done = SshRemote(region, host.address).run(list(argv), stdin=stdin, timeout_s=timeout_s, check=False)
        except RemoteError as error:
            why = str(error)
            continue
        if done.exit_code:
            kind = BadInput if done.exit_code == BadInput.exit_code else OperatorError
            raise kind(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{what}: exit {done.exit_code}"
            )
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise OperatorError(
                f"{what} on {host.name}: it answered {done.stdout[:200]!r}, which is not JSON"
            ) from error
        return answer
    raise OperatorError(f"{what}: {why}")
