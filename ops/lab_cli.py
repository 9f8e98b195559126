"""`mobula lab`: the faults that drills use, by hand. Lab regions only."""

from __future__ import annotations

from collections.abc import Callable

import click

from mobula.lab import faults, machines
from mobula.lab.network import LabError, NotThere
from ops.errors import BadInput, OperatorError
from ops.region import Region, load


def _region() -> Region:
    return load(click.get_current_context().obj.region)


def _do(action: Callable[[], None], said: str) -> None:
    try:
        action()
    except NotThere as error:
        raise BadInput(str(error)) from error
    except LabError as error:
        raise OperatorError(str(error)) from error
    click.echo(said)


def _machine(host: str) -> machines.Machine:
    try:
        return machines.load(_region().state_dir, host)
    except LabError as error:
        raise BadInput(str(error)) from error


@click.group()
def lab() -> None:
    """Faults by hand: power, freezing, cuts, failed disks.

    \b
    Example: ./mobula lab power-off lab-b-storage-01 && ./mobula status; ./mobula up
    """


@lab.command("power-off")
@click.argument("host")
def power_off(host: str) -> None:
    """Pull HOST's plug: no FIN, no RST, silence.

    \b
    Example: ./mobula lab power-off lab-b-storage-01
    """
    machine = _machine(host)
    _do(lambda: machines.power_off(machine), f"{host} is off")


@lab.command("power-on")
@click.argument("host")
def power_on(host: str) -> None:
    """Start HOST, with its disks as they were.

    \b
    Example: ./mobula lab power-on lab-b-storage-01
    """
    machine = _machine(host)
    _do(lambda: machines.ensure(machine), f"{host} is on")


@lab.command()
@click.argument("host")
def wipe(host: str) -> None:
    """Remove HOST with all its disks, as a fire would; `up` makes it anew.

    A storage host comes back empty: until its objects are copied anew, each has one copy less (`audit` names them).

    \b
    Example: ./mobula lab wipe lab-b-api-01
    """
    machine = _machine(host)
    _do(lambda: machines.remove(machine), f"{host} is gone")


@lab.command()
@click.argument("host")
def freeze(host: str) -> None:
    """Stop every process of HOST; its kernel still answers.

    \b
    Example: ./mobula lab freeze lab-a-metadata-01
    """
    machine = _machine(host)
    _do(lambda: machines.freeze(machine, frozen=True), f"{host} is frozen")


@lab.command()
@click.argument("host")
def thaw(host: str) -> None:
    """Let HOST go on.

    \b
    Example: ./mobula lab thaw lab-a-metadata-01
    """
    machine = _machine(host)
    _do(lambda: machines.freeze(machine, frozen=False), f"{host} goes on")


@lab.command()
@click.argument("az")
@click.argument("other")
def cut(az: str, other: str) -> None:
    """Cut the link between two AZs, in silence.

    \b
    Example: ./mobula lab cut a b
    """
    region = _region()

    def both() -> None:
        zones = (faults.zone_of(az, region.zones), faults.zone_of(other, region.zones))
        faults.drop(region.name, faults.cuts(faults.both_ways(zones)))

    _do(both, f"{az} and {other} can't hear each other")


@lab.command()
@click.argument("az")
def isolate(az: str) -> None:
    """Cut an AZ from the other two and from the internet.

    \b
    Example: ./mobula lab isolate a
    """
    region = _region()

    def all_links() -> None:
        faults.drop(region.name, faults.cuts(faults.alone(faults.zone_of(az, region.zones))))

    _do(all_links, f"{az} is alone")


@lab.command()
def heal() -> None:
    """Remove every cut, mend every bad link, let every frozen machine go on.

    \b
    Example: ./mobula lab heal
    """
    region = _region()

    def all_of_it() -> None:
        faults.heal(region.name)
        for folder in (region.state_dir / "machines").glob("*"):
            if machines.label_of(folder) is None:
                continue  # an `up` that was killed while it made the machine: nothing in it runs
            machines.freeze(machines.load(region.state_dir, folder.name), frozen=False)

    _do(all_of_it, "no cuts, no bad links, nobody frozen")


@lab.command("fail-disk")
@click.argument("host")
@click.argument("disk")
def fail_disk(host: str, disk: str) -> None:
    """Make DISK (d01, d02, ...) of storage host HOST unreadable.

    \b
    Example: ./mobula lab fail-disk lab-a-storage-01 d03
    """
    region = _region()
    _do(lambda: faults.fail_disk(region.state_dir, host, disk), f"{disk} of {host} has failed")
