"""mjob share: a page about a job that anybody can read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

from mobula.client.commands.command import Call, Command
from mobula.client.commands.job_lists import look
from mobula.client.commands.output import say
from mobula.client.errors import MobulaError
from mobula.client.jobs import Status, job_id

SHOWN_MAX = 1000
"""lines of each list: a page is no place for a million"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("-s", "--stdout", action="store_true", help="print the page, and store none")
    parser.add_argument("-r", "--readme", metavar="FILE", help="a text to show above")


def run(call: Call) -> None:
    wish, client = call.options, call.client
    job = wish.job
    readme = Path(wish.readme).read_text(encoding="utf-8", errors="replace") if wish.readme else ""
    status = client.job_status(job)
    lists = {name: _some(look(call, job, what)) for name, what in (("Inputs", "in"), ("Outputs", "out"))}
    text = page(status, lists, _some(look(call, job, "err")), readme, lambda path: url(call, path))
    if wish.stdout:
        sys.stdout.write(text)
        return
    path = f"~~/public/jobshares/{job_id(job)}/index.html"
    client.put(path, text.encode(errors="replace"), content_type="text/html; charset=utf-8", parents=True)
    say(url(call, path))


def _some(lines: Iterable[str]) -> list[str]:
    return list(islice(lines, SHOWN_MAX + 1))


def url(call: Call, path: str) -> str:
    """Where a browser finds a path; "" of a name that can't be one. Raises nothing."""
    session = call.client.session
    try:
        encoded = session.encoded(path)
    except MobulaError:
        return ""
    return f"{'https' if session.settings.secure else 'http'}://{session.host}{encoded}"


def page(
    status: Status, lists: Mapping[str, list[str]], errors: list[str], readme: str, link: Callable[[str], str]
) -> str:  # fmt: skip
    """The page in HTML. `link` gives a path's address. Pure."""
    from html import escape  # noqa: PLC0415 (only this subcommand needs it)

    def items(names: Iterable[str], show: Callable[[str], str]) -> str:
        found = [f"<li>{show(name)}</li>" for name in names]
        more = "<li>and more</li>" if len(found) > SHOWN_MAX else ""
        return f"<ul>\n{'\n'.join(found[:SHOWN_MAX])}{more}\n</ul>" if found else "<p>none</p>"

    def linked(path: str) -> str:
        where = link(path)
        return f'<a href="{escape(where)}">{escape(path)}</a>' if where else escape(path)

    def told(line: str) -> str:
        try:
            error = json.loads(line)
            return escape(f"{error['what']}: {error['message']} ({error['code']})")
        except (ValueError, KeyError, TypeError):
            return escape(line)

    title = escape(f"Job {status['id']}" + (f": {status['name']}" if status.get("name") else ""))
    stats = status["stats"]
    counts = ", ".join(f"{stats[key]} {key}" for key in ("outputs", "errors", "tasks", "retries"))
    parts = [f"<h1>{title}</h1>"]
    if readme:
        parts.append(f"<pre>{escape(readme)}</pre>")
    state = f"{status['state']}{', cancelled' if status['cancelled'] else ''}"
    parts.append(f"<p>{escape(f'{state}; created {status["timeCreated"]}; {counts}')}</p>")
    for number, phase in enumerate(status["phases"]):
        rest = {key: value for key, value in phase.items() if key not in {"type", "exec", "init", "assets"}}
        more = f" ({escape(json.dumps(rest, ensure_ascii=False))})" if rest else ""
        parts.append(f"<h2>Phase {number}: {escape(str(phase.get('type', 'map')))}{more}</h2>")
        parts += [f"<pre>{escape(str(phase[key]))}</pre>" for key in ("init", "exec") if phase.get(key)]
        if phase.get("assets"):
            parts.append(f"<p>Assets:</p>\n{items(phase['assets'], linked)}")
    parts += [f"<h2>{name}</h2>\n{items(found, linked)}" for name, found in lists.items()]
    parts.append(f"<h2>Errors</h2>\n{items(errors, told)}")
    head = f'<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}\n<body>\n{'\n'.join(parts)}\n</body>\n</html>\n"


COMMAND = Command(
    "JOB", "mjob share -r README.md 8f1a2ae0-6b3b-4a1c-9a52-3f0f6c6f6f10", options, run,
    does="put a page about a job below ~~/public, and print its address",
)  # fmt: skip
