"""Names that jobs go by: of inputs, of what tasks put out, of the place where a task finds its object. Pure. Source: the compute contract,
sections "Inputs and dispatch", "Names of anonymous objects" and "Sandbox".
"""

from __future__ import annotations

import uuid

PLACE_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
CUT_BYTES = 251
CUT = "_..."
HEAD, TAIL = 3, 2
"""components that stay of a path that is too long"""
REDUCE = "reduce"
LEAST = 2
"""an account and something of it"""


class MalformedName(ValueError):
    """It names no object of anybody."""


def normalised(name: str) -> str:
    """An input's name for work: runs of slashes are one.

    Raises:
        MalformedName: it does not begin with a slash, or names an account at most.
    """
    names = [part for part in name.split("/") if part]
    if not name.startswith("/") or len(names) < LEAST:
        raise MalformedName(f'malformed object name: "{name}"')
    return "/" + "/".join(names)


def out_base(login: str, job: uuid.UUID) -> str:
    """Below which a job's own objects lie."""
    return f"/{login}/jobs/{job}/stor"


def base(below: str, *, reduces: bool, name: str, first_input: str) -> str:
    """What the names of a task's outputs begin with, below `below` (`out_base`): that of the first phase's input when it is known, else the
    input's own, of which `below` is not said twice."""
    if reduces:
        return f"/{REDUCE}"
    return first_input or name.removeprefix(below)


def anonymous(below: str, task_base: str, phase: int, unique: str) -> str:
    """Of an output that the task did not name; `unique` is the task's id, or one of the output's own."""
    return f"{below}{task_base}.{phase}.{unique}"


def place(name: str) -> tuple[str, bool]:
    """Where a task finds the object: the path below `/manta`, and whether it is another one than the object's name.

    A component of more than 255 bytes is cut; a path of more than 1,024 keeps its first three components and its last two, or two and one.
    """
    usual = name.removeprefix("/").split("/")
    parts = [_cut(part) for part in usual]
    for head, tail in ((len(parts), 0), (HEAD, TAIL), (HEAD - 1, TAIL - 1)):
        kept = [*parts[:head], CUT, *parts[len(parts) - tail :]] if head + tail < len(parts) else parts
        if len("/".join(kept).encode()) < PLACE_BYTES_MAX - len("/manta/"):
            break
    return "/".join(kept), kept != usual


def _cut(part: str) -> str:
    data = part.encode()
    if len(data) <= COMPONENT_BYTES_MAX:
        return part
    return data[:CUT_BYTES].decode(errors="ignore") + CUT
