"""Ansible, run on a region: `ansible-playbook` of this environment, through the management network, its events as progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Failure:
    host: str
    task: str
    message: str


def read_events(lines: Iterable[str], on_progress: Callable[[str], None]) -> tuple[Recap, list[Failure], list[str]]:
    """Progress of the callback's events; the recap, the failures, and lines that are no events (warnings, crashes)."""
    recap, failures, other = Recap(0, 0, 0), [], []
    for line in lines:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            if line.strip():
                other.append(line.strip())
            continue
        if kind == "play":
            on_progress(f"ansible: {event['name']}")
        elif kind == "task":
            on_progress(f"ansible:   {event['name']}")
        elif kind == "failed":
            failures.append(Failure(event["host"], event["task"], event["message"]))
        elif kind == "recap":
            hosts = event["hosts"].values()
            recap = Recap(*(sum(h[k] for h in hosts) for k in ("ok", "changed", "failures")))
    return recap, failures, other


def environment(region: Region) -> dict[str, str]:
    """What ansible-playbook needs: the region, the way in, and homes of its own (nothing of the user's is read or written)."""
    run = region.state_dir / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / "known_hosts").write_text(
        "".join(f"{h.address} {_public(region.secrets / 'ssh-hosts.key.pub')}\n" for h in region.hosts.values())
    )
    ssh = run / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{region.name}-op ssh "$@"\n')
    ssh.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    options = [
        "-F none", "-o ControlMaster=auto", "-o ControlPersist=120s", f"-o UserKnownHostsFile={run / 'known_hosts'}",
        "-o StrictHostKeyChecking=yes", "-o LogLevel=ERROR", "-o IdentitiesOnly=yes", "-o ConnectTimeout=10",
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


def _public(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def run_playbook(
    region: Region, playbook: str, *, on_progress: Callable[[str], None], limit: str | None = None, check: bool = False
) -> Recap:
    """Run one of ``playbooks/`` on the region.

    Raises:
        OperatorError: names the first failed host, its task and message.
    """
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), str(REPO / "playbooks" / playbook)]
    argv += [f"--limit={limit}"] if limit else []
    argv += ["--check", "--diff"] if check else []
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(region),
        cwd=REPO,
    ) as process:
        assert process.stdout is not None  # noqa: S101
        recap, failures, other = read_events(process.stdout, on_progress)
    if process.returncode or failures:
        raise OperatorError(f"run {playbook} on region {region.name!r}: {_first(failures, other)}")
    on_progress(f"ansible: {recap}")
    return recap


def _first(failures: list[Failure], other: list[str]) -> str:
    if failures:
        first = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return f"{first.host}, task {first.task!r}: {' '.join(first.message.split())}{more}"
    return " ".join(other[-5:])[-600:] or "ansible-playbook ended without saying why"
