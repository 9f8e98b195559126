"""Administration of a region's data: `mobula.metadata.admin` run on an api host, JSON in and out."""

from __future__ import annotations

import json
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
        why = f"region {self._region.name!r} has no api hosts; run ./mobula up"
        for host in self._region.pool("api"):
            try:
                done = SshRemote(self._region, host.address).run(
                    [*ARGV, verb], stdin=json.dumps(payload), timeout_s=TIMEOUT_S, check=False
                )
            except RemoteError as error:
                why = str(error)
                continue
            if done.exit_code:
                kind = BadInput if done.exit_code == BadInput.exit_code else OperatorError
                raise kind(
                    done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{verb}: exit {done.exit_code}"
                )
            try:
                answer: dict[str, Any] = json.loads(done.stdout)
            except ValueError as error:
                raise OperatorError(
                    f"{verb} on {host.name}: it answered {done.stdout[:200]!r}, which is not JSON"
                ) from error
            return answer
        raise OperatorError(f"{verb}: {why}")
