"""What the operator's command says when something is wrong: one sentence, no traceback."""

from __future__ import annotations


class OperatorError(Exception):
    """`<what we tried> <to what>: <what we found>; <what to do>`. The command prints it and exits with `exit_code`."""

    exit_code = 1


class BadInput(OperatorError):
    """The operator's input (an option, a file, a variable) can't be used; nothing was changed."""

    exit_code = 2
