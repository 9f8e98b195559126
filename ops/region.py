"""A region as the operator's command sees it: where its values and its state lie, and what Terraform last said of it."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.errors import BadInput, OperatorError

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("MOBULA_CACHE", "/var/cache/mobula"))
STATE = Path(os.environ.get("MOBULA_STATE", "/var/lib/mobula"))
SHAPE = 1


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the region, as Terraform's output names it."""

    name: str
    az: str
    pool: str
    index: int
    address: str
    shard: int
    disks: int


@dataclass(frozen=True, slots=True)
class Region:
    """A region's values (from its tfvars) and, once Terraform has run, its hosts by name."""

    name: str
    domain: str
    cidr: str
    relay_port: int
    state_dir: Path
    terraform_dir: Path
    hosts: Mapping[str, Host]
    profile: str | None
    drillable: bool = False
    """drills may harm it: Terraform said so when it last ran, and the region's tfvars don't deny it"""

    @property
    def zone(self) -> str:
        """The region's public name."""
        return f"{self.name}.{self.domain}"

    @property
    def secrets(self) -> Path:
        """Folder of the region's keys, certificates and passwords."""
        return self.state_dir / "secrets"

    @property
    def zones(self) -> dict[str, int]:
        """Numbers of the AZs by letter: the third part of their hosts' addresses."""
        return {h.az: int(h.address.split(".")[2]) for h in self.hosts.values()}

    def pool(self, name: str) -> list[Host]:
        """The hosts of one pool, in order of their names."""
        return sorted((h for h in self.hosts.values() if h.pool == name), key=lambda h: h.name)


def names() -> list[str]:
    """Regions that this clone describes."""
    return sorted(p.parent.name for p in REPO.glob("terraform/regions/*/region.auto.tfvars.json"))


def profiles() -> list[str]:
    """Profiles that this clone describes."""
    return sorted(p.name.removesuffix(".tfvars.json") for p in REPO.glob("terraform/profiles/*.tfvars.json"))


def _is_private_16(value: object) -> bool:
    try:
        network = ipaddress.IPv4Network(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return network.prefixlen == 16 and network.is_private


_VALUES: tuple[tuple[str, str, Callable[[object], bool]], ...] = (
    ("name", "the name of its folder", lambda v: isinstance(v, str)),
    ("domain", "a DNS name", lambda v: isinstance(v, str) and bool(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", v))),
    ("cidr", "a private IPv4 network of 16 bits, as 10.77.0.0/16", _is_private_16),
    ("relay_port", "a TCP port from 1024 to 65535", lambda v: type(v) is int and 1023 < v < 65536),
    ("drillable", "true or false", lambda v: type(v) is bool),
)
"""what a region's values are called, what they must be, and whether they are"""
_OPTIONAL = frozenset({"drillable"})
"""values for which Terraform has a default"""


def load(name: str) -> Region:
    """Read what is known of region `name`.

    Raises:
        BadInput: no such region, or its tfvars can't be read.
        OperatorError: the state on disk is of another shape than this version knows.
    """
    directory = REPO / "terraform" / "regions" / name
    if "/" in name or not directory.is_dir():
        raise BadInput(f"find region {name!r}: terraform/regions/ has only {', '.join(names())}; name one of these")
    values = _json_object(directory / "region.auto.tfvars.json")
    for key, wanted, is_right in _VALUES:
        if key in _OPTIONAL and key not in values:
            continue
        if not is_right(values.get(key)) or (key == "name" and values[key] != name):
            raise BadInput(
                f"read region {name!r} from {directory.relative_to(REPO)}/region.auto.tfvars.json: "
                f"{key!r} {f'is {values[key]!r}' if key in values else 'is missing'}; it must be {wanted}"
            )
    state_dir = STATE / name
    known = read_output(state_dir)
    profile = state_dir / "profile"
    return Region(
        name=name, domain=values["domain"], cidr=values["cidr"], relay_port=values["relay_port"], state_dir=state_dir,
        terraform_dir=directory, profile=profile.read_text().strip() if profile.exists() else None,
        hosts={n: Host(**{f: h[f] for f in Host.__slots__}) for n, h in known.get("hosts", {}).items()},
        drillable=known.get("drillable") is True and values.get("drillable") is not False,
    )  # fmt: skip


def load_standing(name: str) -> Region:
    """As `load`, for whoever takes a region down: what stands counts, whatever has become of the files that it was made from.

    Raises:
        BadInput, OperatorError: as `load`, when nothing stands.
    """
    try:
        return load(name)
    except BadInput:
        known = read_output(STATE / name) if "/" not in name else {}
        if not known:
            raise
    return Region(
        name=name, domain=known["domain"], cidr=known["cidr"], relay_port=known["relay_port"], state_dir=STATE / name,
        terraform_dir=REPO / "terraform" / "regions" / name, hosts={}, profile=None,
    )  # fmt: skip


def read_output(state_dir: Path) -> dict[str, Any]:
    """Terraform's output `region` as of the last apply; {} before the first one."""
    path = state_dir / "terraform" / "region.json"
    if not path.exists():
        return {}
    output = _json_object(path)
    if output.get("shape") != SHAPE:
        raise OperatorError(
            f"read {str(path)!r}: shape is {output.get('shape')!r}, this version knows {SHAPE}; "
            "use the version of mobula that made the region"
        )
    return output


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"read {str(path)!r}: {error.strerror}; put the file back") from error
    except ValueError as error:
        raise BadInput(f"read {str(path)!r}: it is no JSON ({error}); mend the file") from error
    if not isinstance(value, dict):
        raise BadInput(f"read {str(path)!r}: it holds no JSON object; mend the file")
    return value


_held: set[str] = set()
"""regions whose lock this process has"""


@contextlib.contextmanager
def lock(region: Region, verb: str) -> Iterator[None]:
    """Hold the region's lock, across clones; within what holds it already it is held anyway.

    The lock is the kernel's: it ends with its holder, however that ends.

    Raises:
        OperatorError: somebody else holds it; says who, since when and for what.
    """
    region.state_dir.parent.mkdir(parents=True, exist_ok=True)
    if region.name in _held:
        yield  # a drill that heals by `up`
        return
    # Beside the state, not in it: `down` removes the state while it holds the lock.
    path = region.state_dir.parent / f"{region.name}.lock"
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not path.samefile(f"/proc/self/fd/{handle.fileno()}"):
                raise BlockingIOError  # its last holder has just removed it, and the region
        except BlockingIOError as error:
            handle.seek(0)
            raise OperatorError(
                f"{verb} region {region.name!r}: {handle.read().strip() or 'another command'} holds its lock; "
                "wait until it has ended, or end it"
            ) from error
        handle.truncate(0)
        handle.write(f"`{verb}` (pid {os.getpid()}, since {time.strftime('%H:%M:%S')}, from {str(REPO)!r})")
        handle.flush()
        # Children (ssh masters, machines) must not inherit the lock: it would outlive us.
        os.set_inheritable(handle.fileno(), False)
        _held.add(region.name)
        try:
            yield
        finally:
            _held.discard(region.name)
            handle.truncate(0)
            if not region.state_dir.exists():
                path.unlink(missing_ok=True)
