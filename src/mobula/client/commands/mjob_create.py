"""mjob create and retry: start a job, give it its inputs, and if it is wished, wait for it and print what it put out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mobula.client.commands import job_document
from mobula.client.commands.command import Call, Command, UsageError
from mobula.client.commands.job_inputs import BATCH, PARALLEL, add_all, batch_options, standard_input
from mobula.client.commands.job_lists import look
from mobula.client.commands.job_progress import Tasks
from mobula.client.commands.output import say, say_document
from mobula.client.errors import MobulaError
from mobula.client.jobs import LIVE_MAX, Status, job_id

STANDARD_INPUT = "/dev/stdin"


class _Step(argparse.Action):
    """Keeps options about phases in their order."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 (argparse's interface)
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.steps = [*namespace.steps, job_document.Step(self.dest, values, option_string or "")]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression", nargs="*", metavar="COMMAND ^ COMMAND ^^ COMMAND", help="phases: ^ map, ^^ reduce"
    )
    phases = parser.add_argument_group(
        "phases", "What stands before -m or -r is for that phase; in an expression, for all."
    )
    for words, name, metavar, kind, text in (
        (("-m", "--map"), "map", "COMMAND", str, "run this on each object"),
        (("-r", "--reduce"), "reduce", "COMMAND", str, "run this on all of them together"),
        (("-s", "--asset", "--assets"), "asset", "PATH", str, "an object to have below /assets; may come several times"),
        (("--init",), "init", "COMMAND", str, "run this before the first task"),
        (("--count",), "count", "N", int, "so many reducers (1)"),
        (("--memory",), "memory", "MB", int, "memory of a task (1024)"),
        (("--disk",), "disk", "GB", int, "disk of a task (8)"),
        (("--image",), "image", "VERSION", str, "version of the image"),
    ):  # fmt: skip
        phases.add_argument(
            *words, dest=name, action=_Step, type=kind, metavar=metavar, help=text, default=argparse.SUPPRESS
        )
    parser.set_defaults(steps=[])
    parser.add_argument("-f", "--file", metavar="FILE", help=f"the job in JSON; may be {STANDARD_INPUT}")
    parser.add_argument("-n", "--name", help="the job's name")
    parser.add_argument("--dry-run", action="store_true", help="print the job in JSON, and start none")
    batch_options(parser)
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--close", action="store_true", help="end the input, even where standard input is a terminal")
    ending.add_argument("--open", action="store_true", help="leave the input open for mjob addinputs")
    waiting_options(parser)


def waiting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-w", "--watch", action="store_true", help="wait until it is done")
    parser.add_argument(
        "-o", "--cat-outputs", action="store_true", help="wait, and print its outputs, not its id; then its errors"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="don't say how far it is")


def create(call: Call) -> None:
    wish = call.options
    document = _document(call)
    data = job_document.encode(document)
    if wish.dry_run:
        say_document(document)
        return
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal and not (wish.open or wish.close):
        call.failures.note(
            "the input is left open, for standard input is a terminal; --open or --close says what you mean"
        )
    names = () if terminal or wish.file == STANDARD_INPUT else standard_input()
    _run(call, data, names, ends=wish.close or not (wish.open or terminal))


def _document(call: Call) -> Mapping[str, Any]:
    """Raises UsageError, MobulaError, OSError."""
    wish = call.options
    if wish.file is not None:
        if wish.steps or wish.expression:
            raise UsageError("cannot use -f along with phases: the file has them")
        text = b"".join(standard_input()) if wish.file == STANDARD_INPUT else Path(wish.file).read_bytes()
        return job_document.read_document(text, wish.name)
    phases = job_document.phases_of(wish.steps, wish.expression)
    return job_document.document_of(phases, wish.name, call.client.session.path)


def retry(call: Call) -> None:
    """The failed inputs again, each once however many errors it had."""
    old = job_id(call.options.job)
    status = call.client.job_status(call.options.job)
    if status["state"] != "done":
        call.failures.say(f"retry job {old}: it is {status['state']}; wait for it, or cancel it first")
        return
    failed_before = call.failures.count
    names = list(dict.fromkeys(look(call, call.options.job, "fail")))
    if not names:
        errors = int(status["stats"]["errors"])
        why = f"{counted(errors, 'error')} of no input, as a reducer's are" if errors else "no errors"
        call.failures.say(f"retry job {old}: there are no failed inputs: it had {why}")
    elif call.failures.count == failed_before:  # else not all of them are known
        data = job_document.encode(job_document.again(status))
        _run(call, data, (name.encode() for name in names), ends=True)


def _run(call: Call, document: bytes, names: Iterable[bytes], *, ends: bool) -> None:
    """Start a job, give it its inputs, and wait for it as the options say."""
    wish = call.options
    job = call.client.create_job(document)
    if not wish.cat_outputs:
        say(job)
        sys.stdout.flush()  # whoever reads it may want to look already
    added = add_all(call, [job], names)
    if added is None:
        call.failures.note(f"the input of job {job} is left open; add what is missing, or cancel it")
        return
    if not wish.quiet:
        call.failures.note(f"added {counted(added, 'input')} to {job}")
    if ends:
        call.client.end_inputs(job)
    if wish.watch or wish.cat_outputs:
        _finish(call, job)


def _finish(call: Call, job: str) -> None:
    """Wait for a job; what it put out comes first, and what went wrong after it."""
    wish = call.options
    try:
        done = watch(call, job, quiet=wish.quiet)
    except KeyboardInterrupt:
        call.failures.note(f"job {job} goes on; mjob cancel {job} ends it")
        raise
    errors = int(done["stats"]["errors"])
    if wish.cat_outputs:
        _wait_for_lists(call, job, done)
        for name in look(call, job, "out"):
            _copy(call, name, sys.stdout)
        sys.stdout.flush()
        if errors:
            _show_errors(call, job)
    if errors:
        more = "" if wish.cat_outputs else f"; mjob errors {job} shows {'it' if errors == 1 else 'them'}"
        call.failures.say(f"error: job {job} had {counted(errors, 'error')}{more}")
    elif done["cancelled"]:
        call.failures.say(f"error: job {job} was cancelled")


def watch(call: Call, job: str, *, quiet: bool) -> Status:
    """Wait for a job, and say how far it is; its last status. Raises MobulaError."""
    with Tasks(quiet=quiet) as line:
        for status in call.client.wait_job(job):
            line.show(status)
    return status


def _wait_for_lists(call: Call, job: str, done: Status) -> None:
    """Of long lists the service shows the end only, until the job is archived; that is soon."""
    longest = max(int(done["stats"][name]) for name in ("outputs", "errors"))
    if longest > LIVE_MAX:
        call.client.wait_archived(job)


def _show_errors(call: Call, job: str) -> None:
    for text in look(call, job, "err"):
        try:
            error = json.loads(text)
            call.failures.note(f"{error['what']}: {error['message']} ({error['code']})")
        except (ValueError, KeyError, TypeError) as wrong:
            raise MobulaError("InvalidAnswer", f"read the errors of {job}: {text[:200]!r} is none") from wrong
        if error.get("stderr"):
            _copy(call, str(error["stderr"]), sys.stderr)


def _copy(call: Call, name: str, stream: Any) -> None:
    """An object onto standard output or error; one that can't be had is noted, for there are others."""
    stream.flush()
    last = b""
    try:
        for last in call.client.get(name):
            stream.buffer.write(last)
    except MobulaError as error:
        call.failures.add(error)
    if stream is sys.stderr and last and not last.endswith(b"\n"):
        stream.buffer.write(b"\n")
    stream.buffer.flush()


def counted(number: int, noun: str) -> str:
    """``1 input``, ``2 inputs``. Pure."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def retry_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    waiting_options(parser)
    parser.set_defaults(batch=BATCH, parallel=PARALLEL)


CREATE = Command(
    "[COMMAND ^ COMMAND ^^ COMMAND | -m COMMAND | -r COMMAND ...] <NAMES",
    "mfind -t o ~~/stor/logs | mjob create -o -m 'grep -c error' -r \"awk '{s+=\\$1} END {print s}'\"",
    options, create, does="start a job on the objects whose names standard input has",
)  # fmt: skip
RETRY = Command(
    "JOB", "mjob retry -w 8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10", retry_options, retry,
    does="start a job once more, on the inputs that failed",
)  # fmt: skip
