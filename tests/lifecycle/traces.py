"""What of this machine a region may change, looked at without the project's own code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

SYSCTLS = (
    "fs/inotify/max_user_instances",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "vm/overcommit_memory",
)
Traces = dict[str, list[str]]


def run(*argv: str) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def of_machine(region: str, state: Path) -> Traces:
    """Everything that `region` (with its state below `state`) could leave behind, by kind; sorted lines, fit to be compared."""
    cgroups = Path("/sys/fs/cgroup")
    return {
        "namespaces": sorted(p.name for p in Path("/run/netns").glob("*")) if Path("/run/netns").exists() else [],
        "interfaces": sorted(link["ifname"] for link in json.loads(run("ip", "-json", "link"))),
        "routes": sorted(run("ip", "-4", "route", "show", "table", "all").splitlines()),
        "rules": run("ip", "rule").splitlines(),
        "nft": run("nft", "list", "ruleset").splitlines(),
        "sysctls": [f"{name} = {(Path('/proc/sys') / name).read_text().strip()}" for name in SYSCTLS],
        "mounts": sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        "cgroups": sorted(str(p) for depth in ("", "*/", "*/*/") for p in cgroups.glob(f"{depth}mobula*")),
        "processes": _processes(region, state),
        "listeners": sorted(filter(_is_fixed, (line.split()[3] for line in run("ss", "-Htln").splitlines()))),
        "files": sorted(p.name for p in state.parent.glob(f"{region}*")),
    }


def _is_fixed(listener: str) -> bool:
    """A port that somebody chose: the kernel hands the others out, to anybody on the machine."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return int(listener.rpartition(":")[2]) < first_given


def _processes(region: str, state: Path) -> list[str]:
    """Processes that name the region's state, live in its cgroups, or in a network that is not this one."""
    ours, found = Path("/proc/self/ns/net").readlink(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            in_cgroup = bool(re.search(rf"/mobula(-{region}|_{region}\.slice)/", (entry / "cgroup").read_text()))
            elsewhere = (entry / "ns/net").readlink() != ours
        except OSError:  # it ended meanwhile
            continue
        if command and (in_cgroup or elsewhere or f"{state}/" in command):
            found.append(command)
    return sorted(found)


def left(before: Traces, after: Traces) -> Traces:
    """What is there after and was not before, and what was before and is not any more (marked ``-``); empty when nothing is."""
    return {
        kind: [x for x in after[kind] if x not in before[kind]]
        + [f"-{x}" for x in before[kind] if x not in after[kind]]
        for kind in before
        if set(before[kind]) != set(after[kind])
    }
