"""Says on standard output, one JSON object a line, what Ansible does: `ops.ansible` turns it into progress and one verdict."""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: progress
type: stdout
short_description: Events as JSON lines
description: One line per play and task, one per failed host with its message, one with the recap.
"""
MESSAGE_MAX = 2000


def shorten(text: str) -> str:
    """The message's beginning says what failed, its end why: a log's lines between them go first."""
    if len(text) <= MESSAGE_MAX:
        return text
    return f"{text[: MESSAGE_MAX // 4]} [...] {text[-MESSAGE_MAX * 3 // 4 :]}"


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "progress"

    def _say(self, event: str, **values: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **values}, default=str) + "\n")
        sys.stdout.flush()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._say("play", name=play.get_name())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        if task.action != "ansible.builtin.validate_argument_spec":  # one for each role, of no use to who waits
            self._say("task", name=task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        if result.result.get("changed"):
            self._say(
                "changed",
                host=result.host.get_name(),
                task=result.task.get_name(),
                items=result.result.get("items", []),
            )

    def _failed(self, result: Any) -> None:
        found = result.result
        text = found.get("msg") or found.get("stderr") or found.get("stdout") or "no message"
        if found.get("stderr") and found.get("msg") == "non-zero return code":
            text = found["stderr"]
        self._say("failed", host=result.host.get_name(), task=result.task.get_name(), message=shorten(str(text)))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            self._failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._failed(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._say("recap", hosts={host: stats.summarize(host) for host in stats.processed})
