"""`mobula check`: run tests/conformance on a standing region, inside its management network; say what happens and what was found.

pytest writes what happens as JSON lines to a pipe; its own output matters only when it ends without having checked anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mobula.lab.network import NETNS
from ops.ansible import known_hosts
from ops.errors import BadInput, OperatorError
from ops.progress import Progress
from ops.region import REPO, Region

SUITE = REPO / "tests" / "conformance"
NOTHING_CHOSEN, WRONG_USE = 5, 4
"""pytest's exit codes that speak of our input"""


class Collected(msgspec.Struct, frozen=True, tag_field="event", tag="collected"):
    checks: int


class Looked(msgspec.Struct, frozen=True, tag_field="event", tag="looked"):
    host: str
    seconds: float


class Compared(msgspec.Struct, frozen=True, tag_field="event", tag="compared"):
    seconds: float


class Found(msgspec.Struct, frozen=True, tag_field="event", tag="finding"):
    """A finding of one check."""

    check: str
    host: str
    what: str
    do: str
    claim: str


class Checked(msgspec.Struct, frozen=True, tag_field="event", tag="checked"):
    """A check that has ended. `outcome`: passed, failed (it found something), broken (it could not be made; `message` says why)."""

    check: str
    of: str
    outcome: str
    message: str


Event = Collected | Looked | Compared | Found | Checked


@dataclass(frozen=True, slots=True)
class Report:
    """What a region was checked for, and what was found."""

    region: str
    hosts: int
    checks: int
    elapsed_s: float
    findings: tuple[Found, ...]
    broken: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Every check was made, and found nothing."""
        return not self.findings and not self.broken

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "region": self.region, "ok": self.ok, "hosts": self.hosts, "checks": self.checks, "elapsed_s": round(self.elapsed_s, 1),
            "findings": [{f: getattr(found, f) for f in found.__struct_fields__} for found in self.findings],
            "broken": [{"check": b.check, "of": b.of, "message": b.message} for b in self.broken],
        }  # fmt: skip

    def _reasons(self) -> dict[str, list[Checked]]:
        """Checks that could not be made, by the reason: one reason keeps many from being made."""
        found: dict[str, list[Checked]] = {}
        for check in self.broken:
            found.setdefault(check.message, []).append(check)
        return found

    def text(self) -> str:
        """For people."""
        verdict = "ok" if self.ok else f"{len(self.findings) + len(self._reasons())} findings"
        lines = [f"region {self.region}  {self.hosts} hosts  {self.checks} checks  {self.elapsed_s:.0f} s  {verdict}"]
        for found in self.findings:
            lines += ["", f"! {found.host}: {found.what} ({found.claim})", f"  -> {found.do}"]
        for message, checks in self._reasons().items():
            first, more = checks[0], len(checks) - 1
            others = f" (and {more} checks more)" if more else ""
            lines += ["", f"! {first.of or self.region}: could not be checked whether {first.check}{others}: {message}"]
            lines += ["  -> run it again; ./mobula status says whether the region is well"]
        return "\n".join(lines)


@dataclass
class Reading:
    """The events so far: progress goes out, findings stay."""

    say: Callable[[str], None]
    hosts: int
    checks: int = 0
    looked: int = 0
    group: str = ""
    outcomes: tuple[str, ...] = ()
    findings: tuple[Found, ...] = ()
    broken: tuple[Checked, ...] = ()

    def take(self, event: Event) -> None:
        """One event."""
        match event:
            case Collected(checks):
                self.checks = checks
                self.say(f"{checks} checks on {self.hosts} hosts")
            case Looked(host, seconds):
                self.looked += 1
                self.say(f"{host} read in {seconds:.1f} s ({self.looked} of {self.hosts})")
            case Compared(seconds):
                self.say(f"compared with what this clone renders in {seconds:.0f} s")
            case Found():
                # Two checks may see the same, as the same name asked from two networks.
                if (event.host, event.what) not in {(f.host, f.what) for f in self.findings}:
                    self.findings = (*self.findings, event)
            case Checked():
                self._checked(event)

    def _checked(self, event: Checked) -> None:
        if event.check != self.group:
            self.end_group()
            self.group = event.check
        self.outcomes = (*self.outcomes, event.outcome)
        if event.outcome == "broken":
            self.broken = (*self.broken, event)

    def end_group(self) -> None:
        """Say how the checks of one kind went."""
        if self.outcomes:
            words = {"passed": "ok", "failed": "with findings", "broken": "not made"}
            counts = [f"{self.outcomes.count(o)} {words[o]}" for o in words if o in self.outcomes]
            self.say(f"{self.group}: {', '.join(counts)}")
        self.outcomes = ()


def read(lines: Iterable[str], reading: Reading) -> None:
    """Take every event of pytest's pipe."""
    for line in lines:
        reading.take(msgspec.json.decode(line, type=Event))
    reading.end_group()


def ssh_config(region: Region) -> Path:
    """The file that leads ssh to the region's hosts by address; its connections are those of Ansible, and nothing of the user's is read."""
    run = region.state_dir / "run"
    (run / "cp").mkdir(parents=True, exist_ok=True, mode=0o700)
    options = {
        "User": "root", "IdentityFile": region.secrets / "ssh.key", "IdentitiesOnly": "yes",
        "UserKnownHostsFile": known_hosts(region), "StrictHostKeyChecking": "yes", "LogLevel": "ERROR", "BatchMode": "yes",
        "ControlMaster": "auto", "ControlPersist": "120s", "ControlPath": run / "cp" / "%C", "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
    }  # fmt: skip
    path = run / "ssh_config"
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in options.items()))
    new.rename(path)
    return path


def argv_of(region: Region, hosts: Sequence[str], expression: str | None, config: Path, events: int) -> list[str]:
    """pytest on the suite, in the management network."""
    return [
        "nsenter", f"--net=/run/netns/{region.name}-op", sys.executable, "-m", "pytest", "-q", "-p", "no:randomly",
        f"--rootdir={REPO}", f"--config-file={REPO / 'pyproject.toml'}", "--tb=short", f"--region={region.name}", f"--events={events}",
        f"--ssh-config={config}", *(f"--machine={host}" for host in hosts), *(["-k", expression] if expression else []), str(SUITE),
    ]  # fmt: skip


def check(region: Region, hosts: Sequence[str], expression: str | None, progress: Progress) -> Report:
    """Check `region`, or only what the named hosts take part in, or only the checks whose names `expression` (pytest's -k) matches.

    Raises:
        BadInput: an unknown host, an expression that can't be read or that chooses nothing.
        OperatorError: the region is not up, or nothing could be checked.
    """
    if not region.hosts:
        raise OperatorError(f"check region {region.name!r}: it is not up; run ./mobula up")
    for host in hosts:
        if host not in region.hosts:
            raise BadInput(f"find host {host!r} in region {region.name!r}: it has {', '.join(sorted(region.hosts))}")
    reading = Reading(progress, len(set(hosts)) or len(region.hosts))
    code, said = _run(region, hosts, expression, reading)
    if code == NOTHING_CHOSEN:
        raise BadInput(
            f"choose checks by {expression!r}: no check's name matches; -k takes words of their names, with and, or, not"
        )
    if code == WRONG_USE and expression:
        raise BadInput(
            f"choose checks by {expression!r}: it can't be read; -k takes words of their names, with and, or, not"
        )
    if code not in (0, 1) or (code == 1 and not (reading.findings or reading.broken)):
        raise OperatorError(f"check region {region.name!r}: pytest ended with {code}: {said}")
    return Report(region.name, reading.hosts, reading.checks, progress.elapsed_s, reading.findings, reading.broken)


def _run(region: Region, hosts: Sequence[str], expression: str | None, reading: Reading) -> tuple[int, str]:
    """pytest's exit code, and the end of what it said."""
    if not (NETNS / f"{region.name}-op").exists():
        raise OperatorError(f"check region {region.name!r}: its management network is not there; run ./mobula up")
    config = ssh_config(region)
    log = config.with_name("check.log")
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming) as lines, log.open("w") as out:
        argv = argv_of(region, hosts, expression, config, outgoing)
        env = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            argv, cwd=REPO, env=env, pass_fds=[outgoing], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ) as process:
            os.close(outgoing)
            read(lines, reading)
    return process.returncode, " | ".join(log.read_text().strip().splitlines()[-4:])[-500:]
