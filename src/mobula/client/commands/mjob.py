"""mjob: run commands on objects, where they are stored. Its subcommands stand in the table at the end.

Exit codes are those of every command; of `create`, `retry` and with -w or -o, 1 also says that the job had errors or was cancelled.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping

from mobula.client.commands import mjob_create, mjob_share
from mobula.client.commands.command import Call, Command, UsageError, json_option, parallel_option
from mobula.client.commands.job_inputs import PARALLEL, add_all, batch_options, each, standard_input
from mobula.client.commands.job_lists import whole_list
from mobula.client.commands.mls import long_line
from mobula.client.commands.output import say, say_document, say_json
from mobula.client.effects import settled
from mobula.client.errors import MobulaError
from mobula.client.jobs import cancel_job, end_inputs, job_id, job_status, live_list, wait_done

SAMPLE = "8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10"


def options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "subcommands (mjob help SUBCOMMAND says more)", "\n".join(f"{name:10} {BELOW[name].does}" for name in BELOW)
    )
    group.add_argument("subcommand", choices=(*BELOW, "help"), metavar="SUBCOMMAND")
    group.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help=argparse.SUPPRESS)


def run(call: Call) -> None:
    name = call.options.subcommand
    raise UsageError(f"call {name}: its options come after it, as in mjob {name} --help")


def jobs_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="+", metavar="JOB")
    parallel_option(parser, PARALLEL)


def jobs_json_options(parser: argparse.ArgumentParser) -> None:
    jobs_options(parser)
    json_option(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="+", metavar="JOB")
    batch_options(parser)
    parser.add_argument("-o", "--open", action="store_true", help="leave the input open")


def list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--name", help="only those of that name")
    parser.add_argument("-s", "--state", help="only those in that state: running")
    parser.add_argument("-l", "--long", action="store_true", help="as mls -l shows them")
    json_option(parser)


def add(call: Call) -> None:
    wish = call.options
    added = add_all(call, wish.jobs, standard_input())
    if added is not None and not wish.open:
        each(call, wish.jobs, end_inputs, wish.parallel)


def close(call: Call) -> None:
    each(call, call.options.jobs, end_inputs, call.options.parallel)


def cancel(call: Call) -> None:
    each(call, call.options.jobs, cancel_job, call.options.parallel)


def get(call: Call) -> None:
    for _, status in each(call, call.options.jobs, job_status, call.options.parallel):
        show_status(call, status)


def show_status(call: Call, status: Mapping[str, object]) -> None:
    (say_json if call.options.json else say_document)(status)


def wait(call: Call) -> None:
    wish = call.options
    if len(wish.jobs) == 1:
        show_status(call, mjob_create.watch(call, wish.jobs[0], quiet=wish.quiet))
        return
    for _, status in each(call, wish.jobs, wait_done, wish.parallel):
        show_status(call, status)


def watch_options(parser: argparse.ArgumentParser) -> None:
    jobs_json_options(parser)
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="don't say how far it is; of several jobs nothing is said anyway"
    )


def show_jobs(call: Call) -> None:
    wish, now = call.options, dt.datetime.now(dt.UTC)
    for entry in call.client.list_jobs(name=wish.name, state=wish.state):
        if wish.json:
            say_json(entry.fields)
        elif wish.long:
            owner = call.client.session.settings.account
            say(long_line(entry, owner, now, human=False).removesuffix("/"))
        else:
            say(f"{entry.name}/")


def lister(what: str) -> Callable[[Call], None]:
    """What shows a list of the jobs: `in`, `out`, `fail` or `err`."""

    def show(call: Call) -> None:
        jobs = call.options.jobs
        found = call.client.run(settled([live_list(job, what) for job in jobs], call.options.parallel))
        for job, live in zip(jobs, found, strict=True):
            try:
                for line in whole_list(call, job, what, live):
                    if what != "err" and call.options.json:
                        say_json({"job": job_id(job), "name": line})
                    else:
                        say(line)
            except MobulaError as error:
                call.failures.add(error)

    return show


WATCH = Command(
    "JOB...", f"mjob watch {SAMPLE}", watch_options, wait, does="wait until jobs are done, and show their status"
)
BELOW = {
    "create": mjob_create.CREATE,
    "addinputs": Command(
        "JOB... <NAMES", f"mjob addinputs {SAMPLE} < names", add_options, add, does="add inputs to jobs whose input is open"
    ),
    "close": Command("JOB...", f"mjob close {SAMPLE}", jobs_options, close, does="end the input of jobs"),
    "cancel": Command("JOB...", f"mjob cancel {SAMPLE}", jobs_options, cancel, does="end jobs before they are done"),
    "get": Command("JOB...", f"mjob get {SAMPLE}", jobs_json_options, get, does="show the status of jobs, in JSON"),
    "list": Command("", "mjob list -s running | xargs mjob cancel", list_options, show_jobs, does="list jobs"),
    "inputs": Command("JOB...", f"mjob inputs {SAMPLE}", jobs_json_options, lister("in"), does="show the inputs of jobs"),
    "outputs": Command(
        "JOB...", f"mjob outputs {SAMPLE} | xargs mget", jobs_json_options, lister("out"), does="show the outputs of jobs"
    ),
    "failures": Command(
        "JOB...", f"mjob failures {SAMPLE}", jobs_json_options, lister("fail"), does="show the inputs that failed"
    ),
    "errors": Command(
        "JOB...", f"mjob errors {SAMPLE} | json -ga errorCode", jobs_json_options, lister("err"), does="show errors, a line of JSON each"
    ),
    "watch": WATCH,
    "wait": WATCH._replace(example=f"mjob wait {SAMPLE}"),
    "share": mjob_share.COMMAND,
    "retry": mjob_create.RETRY,
}  # fmt: skip
COMMAND = Command("SUBCOMMAND ...", "mjob create -o -m 'grep -c error' < names", options, run, below=BELOW)
