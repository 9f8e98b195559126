"""The services: one YAML description each (``templates/services/<name>.yml``), read here and nowhere else in Python.

From a description come the systemd unit and the SMF manifest (golden-tested), the roles' units, the firewall's ports, what
`mobula status` asks. Where the two init systems differ, the template decides, never the description.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import jinja2
import msgspec
import yaml

from ops.errors import OperatorError

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
SMF_NEEDS = {"network": "svc:/milestone/network:default"}


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port that others may reach. `source`: region (its machines) or anywhere."""

    port: int
    protocol: str
    source: str


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a service says how it is, as JSON."""

    port: int
    scheme: str
    path: str


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a registrar finds out whether the service is well. `kind`: http (2xx at `path`), tcp (accepts), dns (answers).

    `uplink`: the service is of use only while its AZ reaches the internet."""

    kind: Literal["http", "tcp", "dns"]
    port: int
    path: str = ""
    uplink: bool = False


class Restarts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service that was started so often within so many seconds stays down: who keeps crashing must not keep coming back."""

    count: int
    seconds: int


class Registered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which name and port DNS knows the service; ``@`` is the region's public name."""

    name: str
    port: int
    check: Check


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A description, every field with its default."""

    name: str
    summary: str
    pools: tuple[str, ...]
    order: int
    """starts of a host's services go by this"""
    type: str
    command: tuple[str, ...]
    before_start: tuple[str, ...] = ()
    after_start: tuple[str, ...] = ()
    user: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """ordering only"""
    ports: tuple[Port, ...] = ()
    status: Endpoint | None = None
    registered: Registered | None = None
    stop_seconds: int
    stop_signal: str = "SIGTERM"
    kill_mode: str = "control-group"
    restart_delay_seconds: float = 0.5
    max_restarts: Restarts | None = None
    """without it: again and again, for whatever others can't do without"""
    open_files: int = 16384
    environment: dict[str, str] = {}
    writable: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    release: bool
    """it runs our code: another release behind `current` is a reason to restart it"""

    @property
    def unit(self) -> str:
        """Name of its systemd unit, without the suffix."""
        return f"mobula-{self.name}"

    @property
    def config(self) -> str | None:
        """Its main config file, whose digest `/status` names."""
        return self.configs[0] if self.configs and self.release else None


class CatalogError(OperatorError):
    """A description can't be read."""


@functools.cache
def catalog() -> dict[str, Service]:
    """All services by name.

    Raises:
        CatalogError: a description is malformed; names the file and what is wrong.
    """
    found = {}
    for file in sorted((TEMPLATES / "services").glob("*.yml")):
        try:
            service = msgspec.convert(yaml.safe_load(file.read_text()), Service)
        except (yaml.YAMLError, msgspec.ValidationError) as error:
            why = " ".join(str(error).split())
            raise CatalogError(f"read templates/services/{file.name}: {why}; mend the file") from error
        if service.name != file.stem:
            raise CatalogError(
                f"read templates/services/{file.name}: it describes {service.name!r}; name the file after the service"
            )
        found[service.name] = service
    return found


def services_of(pool: str) -> tuple[Service, ...]:
    """The services on a host of that pool, in the order of their starts."""
    return tuple(sorted((s for s in catalog().values() if pool in s.pools), key=lambda s: (s.order, s.name)))


def names_of(pool: str) -> tuple[str, ...]:
    """Names under which DNS knows a host of that pool."""
    return tuple(s.registered.name for s in services_of(pool) if s.registered)


def _render(template: str, service: Service, *, escape: bool) -> str:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        autoescape=escape,  # noqa: S701 (units are not XML; manifests are escaped)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values: dict[str, Any] = {f: getattr(service, f) for f in service.__struct_fields__}
    return environment.get_template(template).render(**values, smf_needs=SMF_NEEDS)


def systemd_unit(service: Service) -> str:
    """Its systemd unit."""
    return _render("unit.service.j2", service, escape=False)


def smf_manifest(service: Service) -> str:
    """Its SMF manifest."""
    return _render("manifest.xml.j2", service, escape=True)
