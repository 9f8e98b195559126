"""Ansible, run on a region: `ansible-playbook` of this environment, through the management network, its events as progress."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ops.errors import OperatorError
from ops.region import REPO, Region


@dataclass(frozen=True, slots=True)
class Recap:
    """Tasks by outcome, over all hosts."""

    ok: int
    changed: int
    failed: int

    def __str__(self) -> str:
        return f"ok={self.ok} changed={self.changed} failed={self.failed}"


class Play(msgspec.Struct, frozen=True, tag_field="event", tag="play"):
    name: str


class Task(msgspec.Struct, frozen=True, tag_field="event", tag="task"):
    name: str


class Changed(msgspec.Struct, frozen=True, tag_field="event", tag="changed"):
    """A task that changed a host, or in check mode would have; `items` say what."""

    host: str
    task: str
    items: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    host: str
    task: str
    message: str


class Counts(msgspec.Struct, frozen=True):
    """One host's tasks by outcome."""

    ok: int
    changed: int
    failures: int


class Hosts(msgspec.Struct, frozen=True, tag_field="event", tag="recap"):
    hosts: dict[str, Counts]


Event = Play | Task | Changed | Failure | Hosts
"""what the callback plugin `progress` says, one JSON object a line"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a playbook did; `other`: lines that are no events (warnings, crashes)."""

    recap: Recap
    changes: tuple[Changed, ...] = ()
    failures: tuple[Failure, ...] = ()
    other: tuple[str, ...] = ()


def read_events(lines: Iterable[str], on_progress: Callable[[str], None]) -> Outcome:
    """Progress of the callback's events, and what they come to."""
    recap, changes, failures, other = Recap(0, 0, 0), [], [], []
    for line in lines:
        try:
            event = msgspec.json.decode(line.encode(errors="replace"), type=Event)
        except (ValueError, RecursionError):
            if line.strip():
                other.append(line.strip())
            continue
        match event:
            case Play():
                on_progress(f"ansible: {event.name}")
            case Task():
                on_progress(f"ansible:   {event.name}")
            case Changed():
                changes.append(event)
            case Failure():
                failures.append(event)
            case Hosts():
                counts = event.hosts.values()
                recap = Recap(*(sum(getattr(c, k) for c in counts) for k in ("ok", "changed", "failures")))
    return Outcome(recap, tuple(changes), tuple(failures), tuple(other))


def environment(region: Region) -> dict[str, str]:
    """What ansible-playbook needs: the region, the way in, and homes of its own (nothing of the user's is read or written)."""
    run = region.state_dir / "run"
    known_hosts(region)
    ssh = run / "ssh"
    _keep(ssh, f'#!/bin/sh\nexec nsenter --net=/run/netns/{region.name}-op ssh "$@"\n', mode=0o755)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    options = [
        "-F none", "-o ControlMaster=auto", "-o ControlPersist=120s", f"-o UserKnownHostsFile={run / 'known_hosts'}",
        "-o StrictHostKeyChecking=yes", "-o LogLevel=ERROR", "-o IdentitiesOnly=yes", "-o ConnectTimeout=10",
        # A host that froze while its connection was kept must not hold everybody up.
        "-o ServerAliveInterval=10", "-o ServerAliveCountMax=3",
    ]  # fmt: skip
    return {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{REPO}:{REPO / 'src'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MOBULA_REGION_JSON": str(region.state_dir / "terraform" / "region.json"),
        "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(REPO / "inventory" / "region.yml"),
        "ANSIBLE_HOME": str(run / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(run / "ansible" / "tmp"),
        "ANSIBLE_SSH_EXECUTABLE": str(ssh),
        "ANSIBLE_SSH_COMMON_ARGS": "",
        "ANSIBLE_SSH_ARGS": " ".join(options),
        # Short: a socket's path has at most 108 bytes. Without it they land in the user's home.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(run / "cp"),
        "ANSIBLE_SSH_CONTROL_PATH": "%(directory)s/%%C",
        "ANSIBLE_PRIVATE_KEY_FILE": str(region.secrets / "ssh.key"),
        "ANSIBLE_STDOUT_CALLBACK": "progress",
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
        "ANSIBLE_FORCE_COLOR": "false",
        "LC_ALL": "C.UTF-8",
    }


def known_hosts(region: Region) -> Path:
    """The file that names every host's key to an SSH client."""
    path = region.state_dir / "run" / "known_hosts"
    key = _public(region.secrets / "ssh-hosts.key.pub")
    _keep(path, "".join(f"{h.address} {key}\n" for h in region.hosts.values()), mode=0o644)
    return path


def _keep(path: Path, text: str, *, mode: int) -> None:
    """Write a file unless it says that already; whole or not at all, as another command on the region may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text() == text:
        return
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)


def _public(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def run_playbook(region: Region, playbook: str, *, on_progress: Callable[[str], None]) -> Recap:
    """Run one of ``playbooks/`` on the region.

    Raises:
        OperatorError: names the first failed host, its task and message.
    """
    code, outcome = _run(region, playbook, on_progress, extra={})
    if code or outcome.failures:
        raise OperatorError(f"run {playbook} on region {region.name!r}: {_first(outcome)}")
    on_progress(f"ansible: {outcome.recap}")
    return outcome.recap


def drift(region: Region, playbook: str, hosts: Iterable[str], *, on_progress: Callable[[str], None]) -> list[str]:
    """What the playbook would change on these hosts, a line each; changes nothing.

    Raises:
        OperatorError: Ansible itself failed.
    """
    return lines_of(compare(region, playbook, hosts, on_progress=on_progress))


def compare(region: Region, playbook: str, hosts: Iterable[str], *, on_progress: Callable[[str], None]) -> Outcome:
    """What the playbook would do on these hosts; changes nothing. One that fails does not keep the others from being looked at.

    Raises:
        OperatorError: Ansible itself failed.
    """
    wanted = sorted(hosts)
    if not wanted:
        return Outcome(Recap(0, 0, 0))
    options = ("--check", f"--limit={','.join(wanted)}")
    code, outcome = _run(region, playbook, on_progress, *options, extra={"ANSIBLE_ANY_ERRORS_FATAL": "false"})
    if code and not outcome.failures:
        raise OperatorError(f"look for changes on region {region.name!r}: {_first(outcome)}")
    return outcome


def lines_of(outcome: Outcome) -> list[str]:
    """One line per thing that would change, and per host that could not be looked at or refuses."""
    lines = [f"change {c.host}: {item}" for c in outcome.changes for item in c.items or (c.task,)]
    return sorted([*lines, *(f"look at {f.host}: {' '.join(f.message.split())}" for f in outcome.failures)])


def _run(
    region: Region, playbook: str, on_progress: Callable[[str], None], *options: str, extra: Mapping[str, str]
) -> tuple[int, Outcome]:
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), str(REPO / "playbooks" / playbook), *options]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**environment(region), **extra},
        cwd=REPO,
    ) as process:
        assert process.stdout is not None  # noqa: S101
        outcome = read_events(process.stdout, on_progress)
    return process.returncode, outcome


def _first(outcome: Outcome) -> str:
    if outcome.failures:
        first = outcome.failures[0]
        more = f" (and {len(outcome.failures) - 1} more)" if len(outcome.failures) > 1 else ""
        return f"{first.host}, task {first.task!r}: {' '.join(first.message.split())}{more}"
    return " ".join(outcome.other[-5:])[-600:] or "ansible-playbook ended without saying why"
