"""From the words of `mjob create` to the document of a job. Pure.

Phases come in one of two forms. By options: each ``-m`` or ``-r`` makes a phase, of the properties that were given since the one before.
As an expression: commands with carets between them, and the properties are every phase's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mobula.client.commands.command import UsageError

KINDS = ("map", "reduce")
PROPERTIES = ("init", "count", "memory", "disk", "image")
Phase = dict[str, Any]


class Step(NamedTuple):
    """An option about phases, in the order of the line. `name`: a kind, a property, or ``asset``; `typed`: the option as it was called."""

    name: str
    value: str | int
    typed: str


def phases_of(steps: Sequence[Step], words: Sequence[str]) -> list[Phase]:
    """The phases of either form. Raises UsageError."""
    if not words:
        return _by_options(steps)
    if any(step.name in KINDS for step in steps):
        raise UsageError("cannot use -m/-r along with a job expression")
    return _by_expression(words, steps)


def _by_options(steps: Sequence[Step]) -> list[Phase]:
    phases: list[Phase] = []
    since: list[Step] = []
    for step in steps:
        if step.name in KINDS:
            phases.append(_phase(step.name, str(step.value), since))
            since = []
        else:
            since.append(step)
    if not phases:
        raise UsageError("At least one map or reduce task must be specified")
    if since:
        late = ", ".join(f"{step.typed} {step.value}" for step in since)
        raise UsageError(
            f"use {late}: it comes after the last -m or -r, and is of no phase; give it before the one that it is for"
        )
    return phases


def _by_expression(words: Sequence[str], steps: Sequence[Step]) -> list[Phase]:
    phases = []
    for carets, command in _split(words):
        if not command:
            raise UsageError(f"read the job expression: a command is missing beside {carets or words[0]!r}")
        mine = [step for step in steps if step.name != "count"]
        if len(carets) > 2:
            mine.append(Step("count", len(carets) - 2, carets))
        elif len(carets) == 2:
            mine += [step for step in steps if step.name == "count"]
        phases.append(_phase("reduce" if len(carets) > 1 else "map", command, mine))
    return phases


def _split(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each command, its words as they are, and the carets before it."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word and not word.strip("^"):
            parts.append((word, []))
        else:
            parts[-1][1].append(word)
    return [(carets, " ".join(command)) for carets, command in parts]


def _phase(kind: str, command: str, steps: Sequence[Step]) -> Phase:
    """A phase; of a property that is given twice, the last counts."""
    assets = [step.value for step in steps if step.name == "asset"]
    given = {step.name: step.value for step in steps}
    return {
        **({"assets": assets} if assets else {}),
        "type": kind,
        **{name: given[name] for name in PROPERTIES if name in given},
        "exec": command,
    }


def document_of(phases: Sequence[Phase], name: str | None, own_path: Callable[[str], str]) -> dict[str, Any]:
    """The job's document. `own_path` writes out a path that begins with ``~~``, and refuses one that leads nowhere.

    Raises:
        MobulaError: InvalidPath.
    """
    written = [{**phase, **_assets(phase, own_path)} for phase in phases]
    return {**({"name": name} if name is not None else {}), "phases": written}


def _assets(phase: Phase, own_path: Callable[[str], str]) -> Phase:
    """As they were typed, for ``/assets`` has them so, but for the ``~~``."""
    paths = [(path, own_path(path)) for path in phase.get("assets", ())]
    return {"assets": [full if path.startswith("~~") else path for path, full in paths]} if paths else {}


def read_document(text: bytes, name: str | None) -> dict[str, Any]:
    """A document from a file. Raises UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"read the job: it is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise UsageError("read the job: it is no JSON object")
    return {**found, **({"name": name} if name is not None else {})}


def again(status: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a job whose status this is."""
    return {key: status[key] for key in ("name", "transient", "options", "phases") if key in status}


def encode(document: Mapping[str, Any]) -> bytes:
    """As it is posted. Raises UsageError: it has bytes that no JSON can have."""
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"write the job as JSON: {error.object[error.start : error.end]!a} is not UTF-8") from error
