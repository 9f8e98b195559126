"""What the ends of a terminal's session say to each other: text frames of a websocket; what the terminal says are binary ones. Pure.

    medusa:{"type": "wait"}       reflector to client, every 2 s while it is alone
    medusa:{"type": "linkup"}     reflector to both: from now on each gets what the other sends
    mlogin:{"type": "start", "cwd", "term", "columns", "lines", "command", "arguments"}     client to agent
    mlogin:{"type": "resize", "columns", "lines"}                                           client to agent
    mlogin:{"type": "started", "pid"}, {"type": "exit", "code", "signal"}, {"type": "error", "message"}     agent to client

Source: the compute contract, section "mlogin / medusa".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

REFLECTOR, TERMINAL = "medusa", "mlogin"
WAIT_S, PING_S, IDLE_S = 2.0, 15.0, 30.0
"""between two "wait"; between two pings of either end; an end of which nothing came for so long is gone"""
MESSAGE_BYTES_MAX = 1 << 20
AGENT = "/usr/local/lib/mobula/medusa-agent"
"""the agent in the task image; a phase that runs this, and nothing else, is a session"""
STOCK_AGENT = "/poseidon/public/medusa/agent.sh"
"""the asset that the stock client names as its agent"""


class Message(NamedTuple):
    """`by`: REFLECTOR, or TERMINAL for the two ends; `kind`: its type; `fields`: all that it has."""

    by: str
    kind: str
    fields: Mapping[str, Any]


def write(by: str, kind: str, **fields: object) -> str:
    """A message as text."""
    return f"{by}:{json.dumps({'type': kind, **fields}, separators=(',', ':'))}"


def read(text: str) -> Message | None:
    """The message in a text; None if it is none, as the word `ping` of the stock client."""
    by, colon, body = text.partition(":")
    if not colon or by not in {REFLECTOR, TERMINAL}:
        return None
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        return None
    return Message(by, fields["type"], fields)


def is_interactive(command: str, assets: Collection[str]) -> bool:
    """Whether a phase is a session, in which a program may dump core as in any terminal: nobody names an agent by accident."""
    return command == AGENT or STOCK_AGENT in assets
