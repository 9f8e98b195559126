"""What every fault is: a value that can be written down before it is done, and healed by whoever reads it; and how it gets at hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import msgspec

from mobula.lab import machines
from mobula.lab.network import NotThere
from ops.catalog import services_of
from ops.region import Region
from ops.remote import SshRemote

SSH_S = 20.0


class Fault(msgspec.Struct, frozen=True):
    """`inject` and `heal` are thin over `mobula.lab` and SSH. `heal` may be called for a fault that was injected by half, not at all, or by
    a process that is gone, and for machines that are gone for good.
    """

    mends: ClassVar[str] = ""
    """what becomes right by itself while the fault stands, which is waited for; "" for nothing"""

    def text(self) -> str:
        """What is done, for people."""
        raise NotImplementedError

    def inject(self, region: Region) -> None:
        """Do it."""
        raise NotImplementedError

    def heal(self, region: Region) -> None:
        """Undo it; nothing, when systemd does, or when there is nothing to undo."""

    def bit(self, region: Region) -> list[tuple[str, bool]]:  # noqa: ARG002 (for those who look)
        """What shows that the fault did something, and whether it did."""
        return []

    def unaided(self, region: Region) -> list[str]:  # noqa: ARG002 (for those who look)
        """What of `mends` did not become right, before anything is healed."""
        return []

    def left(self, region: Region) -> list[str]:  # noqa: ARG002 (for those who look)
        """What is not as it was, once it is healed, the region is well and clients have written again."""
        return []


def each(hosts: Sequence[str], do: Callable[[str], object], *, at_once: int = 64) -> None:
    """For all hosts, by default at the same time; the first error is raised once all are done."""
    with ThreadPoolExecutor(max(1, min(at_once, len(hosts)))) as pool:
        for done in [pool.submit(do, host) for host in hosts]:
            done.result()


def existing(region: Region, hosts: Iterable[str]) -> list[str]:
    """Those whose machines exist. Of one that is gone for good nothing is left to heal, and it must not stand in the way for ever."""
    found = []
    for host in hosts:
        with contextlib.suppress(NotThere):
            machines.load(region.state_dir, host)
            found.append(host)
    return found


def remote_of(region: Region, host: str) -> SshRemote:
    """A host's shell."""
    return SshRemote(region, region.hosts[host].address)


def unit_of(region: Region, host: str, service: str) -> str:
    """Of a service, by the name in its description."""
    return {s.name: s.unit for s in services_of(region.hosts[host].pool)}[service]
