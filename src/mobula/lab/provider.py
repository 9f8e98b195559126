"""The Terraform provider `mobula/lab`: networks and machines of the lab as resources.

`create` adopts what it finds (after a killed Terraform the machine exists and the state does not know it), but only what carries our
region's label. `read` looks: a machine that is gone is reported gone, one that is stopped shows another `desired_state` than the
configuration, so `terraform plan` says exactly what is missing and `apply` heals it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tf.iface import DataSource, Provider, Resource
from tf.schema import Attribute, Schema
from tf.types import Number, String
from tf.utils import Diagnostics

from mobula.lab import host, machines, network, topology
from mobula.lab.machines import Machine
from mobula.lab.network import LabError

State = dict[str, Any]


def _text(name: str, *, replace: bool = False, computed: bool = False) -> Attribute:
    return Attribute(name, String(), required=not computed, computed=computed, requires_replace=replace)


def _number(name: str) -> Attribute:
    return Attribute(name, Number(), required=True, requires_replace=True)


class LabProvider(Provider):  # type: ignore[misc]
    """Configured with the region's name and address range, its state folder, the base image, and the folder of task images."""

    def __init__(self) -> None:
        self.region = ""
        self.cidr = ""
        self.state_dir = Path()
        self.image = Path()
        self.task_images = Path()
        self.stopping = threading.Event()

    def get_model_prefix(self) -> str:
        return "lab_"

    def full_name(self) -> str:
        return "terraform.local/mobula/lab"

    def get_provider_schema(self, diags: Diagnostics) -> Schema:  # noqa: ARG002
        names = ("region", "cidr", "state_dir", "image", "task_images")
        return Schema(version=0, attributes=[_text(name) for name in names])

    def validate_config(self, diags: Diagnostics, config: State) -> None:
        for name in ("state_dir", "image", "task_images"):
            value = config.get(name)
            if isinstance(value, str) and not value.startswith("/"):
                diags.add_error(f"{name} is {value!r}; it must be an absolute path", "", path=[name])

    def configure_provider(self, diags: Diagnostics, config: State) -> None:
        self.region, self.cidr = config["region"], config["cidr"]
        self.state_dir, self.image = Path(config["state_dir"]), Path(config["image"])
        self.task_images = Path(config["task_images"])
        for name, folder in (("image", self.image), ("task_images", self.task_images)):
            if not folder.is_dir():
                diags.add_error(f"{name} {str(folder)!r} is not there", "./mobula up builds it", path=[name])

    def get_data_sources(self) -> list[type[DataSource]]:
        return []

    def get_resources(self) -> list[type[Resource]]:
        return [Network, Server]


class _Base(Resource):  # type: ignore[misc]
    def __init__(self, provider: LabProvider) -> None:
        self.provider = provider

    def import_(self, ctx: Any, id: str) -> State | None:  # noqa: A002 (the framework's name)
        ctx.diagnostics.add_error(f"import {id!r}: not needed; apply adopts what carries the region's label", "")
        return None


class Network(_Base):
    """All networks of a region."""

    @classmethod
    def get_name(cls) -> str:
        return "network"

    @classmethod
    def get_schema(cls) -> Schema:
        return Schema(
            version=0,
            attributes=[
                _text("id", computed=True), _text("name", replace=True), _text("cidr", replace=True), _text("nameservers"),
                _text("loadbalancers"),
            ],
        )  # fmt: skip

    def create(self, ctx: Any, planned: State) -> State:  # noqa: ARG002
        host.ensure_sysctls(self.provider.state_dir.parent)
        network.ensure_region(
            planned["name"], planned["cidr"], planned["nameservers"].split(","), planned["loadbalancers"].split(",")
        )
        return {**planned, "id": planned["name"]}

    def read(self, ctx: Any, current: State) -> State | None:  # noqa: ARG002
        return current if network.region_is_whole(current["name"], current["cidr"]) else None

    def update(self, ctx: Any, current: State, planned: State) -> State:
        return {**current, **self.create(ctx, planned)}

    def delete(self, ctx: Any, current: State) -> None:  # noqa: ARG002
        network.remove_namespaces(f"{current['name']}-")


class Server(_Base):
    """One machine."""

    @classmethod
    def get_name(cls) -> str:
        return "server"

    @classmethod
    def get_schema(cls) -> Schema:
        return Schema(
            version=0,
            attributes=[
                _text("id", computed=True), _text("name", replace=True), _number("zone"), _text("address", replace=True),
                _number("disks"), _number("disk_size_bytes"), _text("network"), _text("desired_state"),
            ],
        )  # fmt: skip

    def validate(self, diags: Diagnostics, type_name: str, config: State) -> None:
        super().validate(diags, type_name, config)
        state = config.get("desired_state")
        if isinstance(state, str) and state not in {"running", "stopped"}:
            diags.add_error(f"desired_state is {state!r}; it must be running or stopped", "", path=["desired_state"])

    def machine(self, state: State) -> Machine:
        p = self.provider
        return Machine(
            region=p.region, cidr=p.cidr, name=state["name"], zone=int(state["zone"]), address=state["address"],
            disks=int(state["disks"]), disk_size_bytes=int(state["disk_size_bytes"]), state_dir=p.state_dir, image=p.image,
            task_images=p.task_images,
        )  # fmt: skip

    def _reach(self, ctx: Any, planned: State) -> State:
        """Bring the machine to its desired state; what fails becomes a diagnostic beside the partial state (the resource is tainted)."""
        machine = self.machine(planned)
        try:
            if planned["desired_state"] == "running":
                machines.ensure(machine)
            else:
                machines.stop(machine)
        except LabError as error:
            ctx.diagnostics.add_error(f"{planned['name']}: {error}", f"its console: {machines.console_of(machine)}")
        return {**planned, "id": planned["name"]}

    def create(self, ctx: Any, planned: State) -> State:
        return self._reach(ctx, planned)

    def update(self, ctx: Any, current: State, planned: State) -> State:
        return {**current, **self._reach(ctx, planned)}

    def read(self, ctx: Any, current: State) -> State | None:
        machine = self.machine(current)
        try:
            found = machines.state_of(machine)
            if found == "absent":
                return None
            return {**current, "desired_state": self._deviation(machine, found) or "running"}
        except LabError as error:
            ctx.diagnostics.add_error(str(error), "")
            return current

    def _deviation(self, machine: Machine, found: str) -> str:
        """What keeps the machine from being as wanted; empty if nothing does. `plan` shows it as the state that would change."""
        here = topology.of_host(machine.region, machine.cidr, machine.name, machine.zone, machine.address)
        if found != "running" or network.missing(here):
            return "stopped"
        missing = machines.missing_disks(machine)
        return f"disk {', '.join(missing)} missing" if missing else ""

    def delete(self, ctx: Any, current: State) -> None:  # noqa: ARG002
        machine = self.machine(current)
        if machines.state_of(machine) == "running":
            machines.stop(machine)
        machines.remove(machine)
