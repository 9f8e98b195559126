"""The command line: parse, call, print. What is decided and done lies in the modules this one calls.

Exit codes: 0 done, 1 it failed or something is wrong (one sentence says what), 2 the input can't be used (nothing was changed),
130 ended by Ctrl-C.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from ops.errors import OperatorError
from ops.options import json_option
from ops.progress import Progress
from ops.region import Region, load, load_standing, names

DEFAULT_REGION = "lab"
GROUPS = {"account": ("ops.account_cli", "account"), "drill": ("ops.drill_cli", "drill"), "lab": ("ops.lab_cli", "lab")}
"""subcommands with modules of their own, loaded only when they are asked for"""


def addressed(text: str, region: str) -> str:
    """Advice as it can be typed: ``./mobula ...`` names `region`, unless that is the default one."""
    return text if region == DEFAULT_REGION else text.replace("./mobula ", f"./mobula -R {region} ")


class Context:
    """What the commands share: the region's name, and the region once somebody needs it."""

    def __init__(self, region: str) -> None:
        self.region = region

    def load(self) -> Region:
        return load(self.region)

    def load_standing(self) -> Region:
        return load_standing(self.region)

    def show(self, value: Any, text: str, *, as_json: bool) -> None:
        """Print `value` as JSON, or `text`."""
        self.say(json.dumps(value, indent=1, default=str) if as_json else text)

    def say(self, text: str) -> None:
        """Print `text`; commands in it name this region."""
        click.echo(addressed(text, self.region))


class Lazy(click.Group):
    """A group that imports the modules of its big subcommands when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in GROUPS:
            module, attribute = GROUPS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the advice in its error names the region it was about."""
        try:
            return super().invoke(ctx)
        except OperatorError as error:
            raise type(error)(addressed(str(error), ctx.params["region"])) from error


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-R", "--region", default=DEFAULT_REGION, show_default=True, help=f"The region: one of {', '.join(names())}."
)
@click.pass_context
def main(ctx: click.Context, region: str) -> None:
    """Start, see and change a region of Mobula.

    \b
    Examples:
      ./mobula up --profile small     a region of 15 machines
      ./mobula status                 what runs, what is wrong, what to do
      eval "$(./mobula env)"          then mput, mget, mls, ... of any Manta client
      ./mobula down                   leave nothing behind
    """
    ctx.obj = Context(region)


@main.command()
@click.option("--profile", help="A file of terraform/profiles: small or lab. Default: the standing region's, else lab.")
@click.option("--quiet", is_flag=True, help="No progress lines.")
@click.pass_obj
def up(obj: Context, profile: str | None, quiet: bool) -> None:
    """Start the region, or bring it to what this clone says.

    \b
    Example: ./mobula -R test up --profile small
    """
    from ops import provision  # noqa: PLC0415 (Terraform, Ansible: not for `--help`)

    summary = provision.up(obj.load(), profile, Progress(quiet=quiet))
    obj.say(summary.text())
    if not summary.status.ok:
        click.echo()
        raise OperatorError("the region stands, but not all is well; ./mobula status says what to do")


@main.command()
@json_option
@click.option("--profile", help="As for `up`.")
@click.pass_obj
def plan(obj: Context, profile: str | None, as_json: bool) -> None:
    """Say what `up` would change on the machines, and change nothing.

    \b
    Example: ./mobula plan
    """
    from ops import provision  # noqa: PLC0415

    found = provision.plan(obj.load(), profile, Progress())
    obj.show(found.as_json(), found.text(), as_json=as_json)


@main.command()
@click.pass_obj
def down(obj: Context) -> None:
    """Remove every machine, mount, namespace, route, rule and process of the region, and its state.

    \b
    Example: ./mobula -R test down
    """
    from ops import provision  # noqa: PLC0415

    provision.down(obj.load_standing(), Progress())


@main.command()
@json_option
@click.pass_obj
def status(obj: Context, as_json: bool) -> None:
    """Look at every host: services, versions, shard roles, pools; what is wrong and what to do. Exit code 1 if anything is.

    \b
    Example: ./mobula status --json
    """
    from ops import provision  # noqa: PLC0415
    from ops.status import table  # noqa: PLC0415

    seen = provision.look(obj.load())
    obj.show(seen.as_json(), table(seen), as_json=as_json)
    sys.exit(0 if seen.ok else 1)


@main.command()
@json_option
@click.option(
    "--read", is_flag=True, help="Also read every copy on its host and hash it; takes as long as the disks do."
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="How many findings to show."
)
@click.option("--mend", is_flag=True, help="Have copies that are missing or wrong brought back from a good one.")
@click.pass_obj
def audit(obj: Context, as_json: bool, read: bool, limit: int, mend: bool) -> None:
    """Prove for every object that its copies are where the metadata says, and for every file that something names it.

    Looks only, unless you say --mend. Exit code 1 if there is a finding, or if a host or a shard could not be asked.

    \b
    Example: ./mobula audit --read --limit 20
    """
    from ops import audit_region  # noqa: PLC0415
    from ops.remote import SshRemote  # noqa: PLC0415

    region = obj.load()
    remotes = {host.name: SshRemote(region, host.address) for host in region.hosts.values()}
    report = audit_region.audit(region, remotes, read=read, progress=Progress())
    obj.show(report.as_json(limit), report.text(limit), as_json=as_json)
    if mend and report.mendable:
        from ops.accounts import Administration  # noqa: PLC0415

        noted = Administration(region).call("mend", {"copies": report.mendable})["noted"]
        click.echo(f"{noted} copies will be brought back by the workers; audit again in some minutes", err=True)
    sys.exit(0 if report.ok else 1)


@main.command()
@json_option
@click.option("--pool", "host", required=True, metavar="HOST", help="The storage host whose pool is lost.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=20, show_default=True, metavar="MB/S",
    help="How fast to copy, in the whole region.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress lines.")
@click.pass_obj
def repair(obj: Context, as_json: bool, host: str, rate: float, quiet: bool) -> None:
    """Declare the pool of a storage host lost for good, and bring back what it held from the other copies.

    Refused while the host answers and has its objects. The region's workers do the work; this follows them, and may be stopped
    and run again (another --rate counts from then on). Ends with what referred to the pool and what became of it, and names each
    object that is lost. Exit code 1 if anything is lost or remains.

    \b
    Example: ./mobula repair --pool lab-a-storage-01 --rate 50
    """
    from ops import repair as repairing  # noqa: PLC0415
    from ops.accounts import Administration  # noqa: PLC0415
    from ops.region import lock  # noqa: PLC0415

    region = obj.load_standing()
    repairing.check_host(host, {h.name: h.pool for h in region.hosts.values()})
    follow = repairing.Follow(Administration(region), Progress(quiet=quiet))
    with lock(region, "repair"):  # not while it follows: `up` brings back what a repair waits for
        note = follow.declare(host, rate)
    report = follow.conclude(host, note)
    obj.show(report.as_json(), report.text(), as_json=as_json)
    sys.exit(0 if report.ok else 1)


@main.command()
@json_option
@click.option(
    "--hour", required=True, metavar="HOUR", help="In UTC, as 2026-11-28T05; the current one: as far as it has come."
)
@click.pass_obj
def usage(obj: Context, as_json: bool, hour: str) -> None:
    """Make every account's usage reports of an hour now, by a job of the system's own account.

    The region's workers do so by themselves some minutes after each hour; this is for an hour that is not over, or that they are behind
    with.

    \b
    Example: ./mobula usage --hour 2026-11-28T05
    """
    from ops import usage as reporting  # noqa: PLC0415

    report = reporting.make(obj.load_standing(), hour)
    obj.show(report.as_json(), report.text(), as_json=as_json)


@main.command()
@json_option
@click.option("-k", "expression", metavar="EXPR", help="Only checks whose names have these words (pytest's -k).")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="Only what HOST takes part in; repeatable.")
@click.option("--quiet", is_flag=True, help="No progress lines.")
@click.pass_obj
def check(obj: Context, as_json: bool, expression: str | None, hosts: tuple[str, ...], quiet: bool) -> None:
    """Compare every host with what the layout, the service descriptions and this clone say; change nothing.

    Each finding names what was found, what to do, and the promise that it breaks. Exit code 1 if there is any.

    \b
    Examples:
      ./mobula check
      ./mobula check --host lab-c-api-01 -k "listen or firewall"
    """
    from ops import check as conformance  # noqa: PLC0415

    report = conformance.check(obj.load(), hosts, expression, Progress(quiet=quiet))
    obj.show(report.as_json(), report.text(), as_json=as_json)
    sys.exit(0 if report.ok else 1)


@main.command()
@json_option
@click.pass_obj
def env(obj: Context, as_json: bool) -> None:
    """Print what a Manta client needs in its environment.

    \b
    Example: eval "$(./mobula env)" && mls /demo/stor
    """
    from ops import environment  # noqa: PLC0415

    variables = environment.variables(obj.load())
    obj.show(variables, environment.as_shell(variables), as_json=as_json)


@main.command()
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def shell(obj: Context, command: tuple[str, ...]) -> None:
    """Open a shell (or run COMMAND) on the internet side of the region, with its resolver.

    \b
    Example: ./mobula shell -- getent ahostsv4 lab.mobula.test
    """
    from ops import environment  # noqa: PLC0415

    argv = environment.shell_argv(obj.load(), command)
    os.execvp(argv[0], argv)  # noqa: S606


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh(obj: Context, host: str, command: tuple[str, ...]) -> None:
    """Open a shell (or run COMMAND) on HOST.

    \b
    Example: ./mobula ssh lab-a-storage-01 -- zpool status tank
    """
    from ops import environment  # noqa: PLC0415

    sys.exit(environment.ssh(obj.load(), host, command))


@main.command()
@click.argument("host")
@click.argument("service", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), default=50, show_default=True, help="How many of the last lines."
)
@click.pass_obj
def logs(obj: Context, host: str, service: str | None, lines: int) -> None:
    """Print the last log lines of HOST, or of one SERVICE on it.

    \b
    Example: ./mobula logs lab-a-api-01 webapi -n 20
    """
    from ops import environment  # noqa: PLC0415

    click.echo(environment.logs(obj.load(), host, service, lines), nl=False)


def run() -> None:
    """Entry point: turn what went wrong into one sentence and an exit code."""
    try:
        main(prog_name="./mobula", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        of = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "./mobula"
        click.echo(f"mobula: {error.format_message().rstrip('.')}; {of} --help says what it takes", err=True)
        sys.exit(2)
    except OperatorError as error:
        click.echo(f"mobula: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("mobula: ended by Ctrl-C; run the same command again to go on", err=True)
        sys.exit(130)


if __name__ == "__main__":
    run()
