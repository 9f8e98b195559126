"""The lab's networks, done: look at what is there, run what is missing."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mobula.lab import topology
from mobula.lab.topology import Argv, Interface, Seen, Topology

NETNS = Path("/run/netns")


class LabError(Exception):
    """The machine under the lab did not do what was asked: one sentence."""


class NotThere(LabError):
    """What was asked names something that is not there; nothing was changed."""


def run(argv: Sequence[str], *, stdin: str | None = None) -> str:
    """Standard output of a command.

    Raises:
        LabError: it ended with another code than 0.
    """
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"run {' '.join(argv)!r}: exit {done.returncode}, {done.stderr.strip()[-300:] or 'no message'}")
    return done.stdout


def look(namespaces: Iterable[str]) -> dict[str, Seen]:
    """What is there in those of the namespaces that exist."""
    return {name: _look(name) for name in namespaces if (NETNS / name).exists()}


def _look(name: str) -> Seen:
    interfaces = {
        link["ifname"]: Interface(
            frozenset(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"),
            "UP" in link["flags"],
        )
        for link in json.loads(run(["ip", "-n", name, "-json", "addr"]) or "[]")
        if link
    }
    routes = json.loads(run(["ip", "-n", name, "-json", "route"]) or "[]")
    return Seen(interfaces, frozenset((r["dst"], r["gateway"]) for r in routes if "gateway" in r))


def ensure(wanted: Topology) -> list[Argv]:
    """Make what is missing; answers what was run.

    Raises:
        LabError: a command failed, or a namespace of that name is somebody else's.
    """
    _drop_dead_names(wanted.namespaces)
    todo = topology.commands(wanted, _look_at(wanted))
    for argv in todo:
        run(argv)
    return todo


def _drop_dead_names(namespaces: Iterable[str]) -> None:
    # A crash between the two halves of `ip netns add` leaves a file that is no namespace.
    for name in namespaces:
        path = NETNS / name
        if path.exists() and not path.is_mount():
            path.unlink()


def missing(wanted: Topology) -> list[Argv]:
    """What `ensure` would run, cheap commands that it always runs left out.

    Raises:
        LabError: a namespace of that name is somebody else's.
    """
    return [argv for argv in topology.commands(wanted, _look_at(wanted)) if "master" not in argv]


def _look_at(wanted: Topology) -> dict[str, Seen]:
    """What is there in the namespaces that `wanted` touches, refused if one of its own is not ours."""
    seen = look({*wanted.namespaces, *(end.namespace for link in wanted.links for end in (link.a, link.b))})
    for name, interface in topology.foreign(wanted, seen):
        raise LabError(
            f"use network namespace {name!r}: its interface {interface!r} is not ours; if nobody needs it, ip netns delete {name}"
        )
    return seen


def ensure_region(region: str, cidr: str, nameservers: Sequence[str], loadbalancers: Sequence[str]) -> None:
    """All networks of a region but its machines', its edges' allow-lists, and the host's blackhole route."""
    ensure(topology.of_region(region, cidr))
    rules = topology.edge_rules(nameservers, loadbalancers)
    for zone in topology.ZONES:
        nft(f"{region}-r{zone}", rules)
    run(["ip", "route", "replace", "blackhole", cidr])


def region_is_whole(region: str, cidr: str) -> bool:
    """Every namespace, link and route of the region is there."""
    return not missing(topology.of_region(region, cidr)) and cidr in run(["ip", "route", "show", "type", "blackhole"])


def nft(namespace: str, script: str) -> None:
    """Apply an nft script in a namespace, as a whole or not at all."""
    run(["nsenter", f"--net={NETNS / namespace}", "nft", "-f", "-"], stdin=script)


def drops(namespace: str, table: str) -> dict[str, int]:
    """What a table of this name drops on a router: the rule's comment -> packets dropped so far."""
    done = subprocess.run(
        ["nsenter", f"--net={NETNS / namespace}", "nft", "list", "table", "inet", table], capture_output=True, text=True, check=False
    )  # fmt: skip
    found = re.findall(r'counter packets (\d+) bytes \d+ drop comment "([^"]*)"', done.stdout)
    return {comment: int(packets) for packets, comment in found}


def remove_namespaces(prefix: str) -> list[str]:
    """Remove every namespace whose name begins so; answers their names."""
    names = [p.name for p in NETNS.glob(f"{prefix}*")] if NETNS.exists() else []
    for name in names:
        # Deletion of a namespace is asynchronous: the router's ends go by hand, or the next start says "File exists".
        for link in look([name]).get(name, Seen({}, frozenset())).interfaces:
            if link != "lo":
                subprocess.run(["ip", "-n", name, "link", "del", link], check=False, capture_output=True)
    for name in names:
        if (NETNS / name).is_mount():
            run(["ip", "netns", "del", name])
        else:
            (NETNS / name).unlink(missing_ok=True)
    return names


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.05) -> None:
    """Wait for a state. `every_s`: how long to wait before it is looked for again.

    Raises:
        LabError: it does not hold within the bound; `what` says what was tried.
    """
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise LabError(f"{what}: not done within {timeout_s:.0f} s")
        threading.Event().wait(every_s)


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread's new sockets belong to the namespace (setns is per thread).

    Raises:
        LabError: there is no such namespace.
    """
    try:
        there = os.open(NETNS / namespace, os.O_RDONLY)
    except OSError as error:
        raise LabError(f"enter network namespace {namespace!r}: {error.strerror}") from error
    here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise LabError(f"enter network namespace {namespace!r}: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        _libc.setns(here, _CLONE_NEWNET)
        os.close(there)
        os.close(here)


def wait_for_banner(namespace: str, address: str, timeout_s: float) -> None:
    """Wait until sshd at the address greets, seen from the namespace.

    Raises:
        LabError: not within the bound.
    """
    end = time.monotonic() + timeout_s
    why = "nothing tried"
    while time.monotonic() < end:
        with inside(namespace):
            probe = socket.socket()
        with probe:
            probe.settimeout(2)
            try:
                probe.connect((address, 22))
                if probe.recv(4) == b"SSH-":
                    return
                why = "it does not greet"
            except OSError as error:
                why = str(error)
        threading.Event().wait(0.1)
    raise LabError(f"reach sshd at {address}: {why} for {timeout_s:.0f} s")
