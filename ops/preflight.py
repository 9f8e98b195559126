"""What this machine must have before a lab region is started on it: looked at, not assumed, and named when missing."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from mobula.lab import machines
from ops.errors import BadInput, OperatorError
from ops.region import Region

DISK_FREE_BYTES = 6 << 30
"""a small region with its first gigabytes of objects"""
MEMORY_FREE_BYTES_PER_HOST = 200 << 20


def check(region: Region, hosts_count: int) -> None:
    """Raise OperatorError naming everything that is missing, all at once."""
    problems = [*_kernel_problems(), *_room_problems(region, hosts_count)]
    if problems:
        raise OperatorError("start a region on this machine: " + "; ".join(problems))


def check_addresses(region: Region) -> None:
    """Refuse an address range or relay port that something else on this machine uses.

    Raises:
        BadInput: the region's `cidr` or `relay_port` is taken; nothing was changed.
    """
    ours = ipaddress.ip_network(region.cidr)
    route = taken_by(region.cidr, _json_of(["ip", "-json", "-4", "route", "show", "table", "all"]))
    if route is not None:
        raise BadInput(
            f"use the addresses {region.cidr} for region {region.name!r}: {route['dst']} is in use on {route.get('dev')!r} of this "
            f"machine; set another 'cidr' in terraform/regions/{region.name}/region.auto.tfvars.json"
        )
    for other in sorted(region.state_dir.parent.glob("*/terraform/region.json")):
        values = json.loads(other.read_text())
        if values.get("name") != region.name and ours.overlaps(ipaddress.ip_network(values["cidr"])):
            raise BadInput(
                f"use the addresses {region.cidr} for region {region.name!r}: region {values['name']!r} has {values['cidr']}; "
                f"set another 'cidr' in terraform/regions/{region.name}/region.auto.tfvars.json"
            )


def taken_by(cidr: str, routes: Iterable[Mapping[str, str]]) -> Mapping[str, str] | None:
    """The first route (as ``ip -json`` has them) into the addresses `cidr`: not the default one, and no region's blackhole."""
    ours = ipaddress.ip_network(cidr)
    for route in routes:
        if route.get("dst", "default") == "default" or route.get("type") == "blackhole":
            continue
        if ours.overlaps(ipaddress.ip_network(route["dst"], strict=False)):
            return route
    return None


def check_relay_port(region: Region) -> None:
    """Refuse a relay port on which something else listens (call it only while our own relay doesn't run)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", region.relay_port))
        except OSError as error:
            raise BadInput(
                f"listen on 127.0.0.1:{region.relay_port} for region {region.name!r}: {error.strerror}; "
                f"set another 'relay_port' in terraform/regions/{region.name}/region.auto.tfvars.json"
            ) from error


def _kernel_problems() -> list[str]:
    problems = []
    if not machines.is_hybrid() and not machines.SYSTEMD_BOOTED.is_dir():
        problems.append(
            "machines are started by systemd on a host with cgroup v2, and PID 1 is not systemd (in a container?)"
        )
    if "overlay" not in Path("/proc/filesystems").read_text():
        problems.append("the kernel has no overlayfs (load the module 'overlay')")
    if not Path("/dev/fuse").exists():
        problems.append("/dev/fuse is missing (load the module 'fuse'); ZFS needs it")
    if not Path("/proc/self/ns/net").exists():
        problems.append("the kernel has no network namespaces")
    else:
        problems += _network_problems()
    return problems


def _network_problems() -> list[str]:
    """Try a bridge, a veth pair and an nft rule in a namespace that ends with the command."""
    tries = {
        "bridges": "ip link add t0 type bridge",
        "veth pairs": "ip link add t1 type veth peer name t2",
        "nftables": "nft add table inet t",
        "blackhole routes": "ip route add blackhole 192.0.2.0/24",
    }
    problems = []
    for what, command in tries.items():
        result = subprocess.run(["unshare", "--net", *command.split()], capture_output=True, text=True, check=False)
        if result.returncode:
            problems.append(
                f"this kernel can't make {what} ({(result.stderr.strip().splitlines() or ['no message'])[-1]})"
            )
    return problems


def _room_problems(region: Region, hosts_count: int) -> list[str]:
    parent = next(p for p in (region.state_dir, *region.state_dir.parents) if p.exists())
    problems = disk_problems(str(parent), shutil.disk_usage(parent).free)
    if not (region.state_dir / "machines").exists():
        problems += memory_problems(Path("/proc/meminfo").read_text(), hosts_count)
    if os.geteuid() != 0:
        problems.append("you are not root")
    return problems


def disk_problems(folder: str, free_bytes: int) -> list[str]:
    """Too little room for a region's machines."""
    if free_bytes >= DISK_FREE_BYTES:
        return []
    return [f"{free_bytes >> 20} MiB are free in {folder!r}, {DISK_FREE_BYTES >> 20} MiB are needed"]


def memory_problems(meminfo: str, hosts_count: int) -> list[str]:
    """Too little memory for so many new machines, from ``/proc/meminfo``."""
    facts = dict(line.split(":", 1) for line in meminfo.splitlines())
    available_bytes = int(facts["MemAvailable"].split()[0]) << 10
    wanted_bytes = hosts_count * MEMORY_FREE_BYTES_PER_HOST
    if available_bytes >= wanted_bytes:
        return []
    return [
        f"{available_bytes >> 20} MiB of memory are available, {hosts_count} machines want {wanted_bytes >> 20} MiB"
    ]


def _json_of(argv: list[str]) -> list[dict[str, str]]:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    listing: list[dict[str, str]] = json.loads(result.stdout or "[]")
    return listing
