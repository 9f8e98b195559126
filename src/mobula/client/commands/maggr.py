"""maggr: compute sums, means and the like of columns, by key."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from mobula.client.commands.aggregation import NAMES, Aggregation, BadLine, BadPlan, Plan, plan_of
from mobula.client.commands.command import Filter, UsageError
from mobula.client.commands.output import Failures


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operations", nargs="?", metavar="OPS", help="of the columns in turn, as in key,nop,sum")
    parser.add_argument(
        "-c", dest="columns", action="append", default=[], metavar="#=OPS", help="of that column, as in -c3=min,max; the first is 1"
    )  # fmt: skip
    parser.add_argument(
        "-t", dest="formats", action="append", default=[], metavar="#=FORMATS", help="of that column's results, as in -t3=%%d,%%.2f"
    )  # fmt: skip
    parser.add_argument("-T", dest="format", default="", metavar="FORMAT", help="of all other results that are numbers")
    parser.add_argument(
        "-d", dest="delimiter", metavar="TEXT", help="between columns (tabs; in a line without any, blanks)"
    )
    parser.add_argument("-o", dest="between", metavar="TEXT", help="between columns of the output (as -d; a tab)")
    parser.add_argument("-i", dest="inner", default=",", metavar="TEXT", help="between results of one column (a comma)")
    parser.add_argument("-f", dest="file", metavar="FILE", help="read this file, not standard input")
    parser.add_argument(
        "-l", dest="list", action="store_true", help="say which operations there are, on standard error"
    )


def run(wish: argparse.Namespace, failures: Failures) -> None:
    if wish.list:
        sys.stderr.write("\n".join(NAMES) + "\n")
        return
    found = Aggregation(_plan(wish))
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(Path(wish.file).open("rb")) if wish.file is not None else sys.stdin.buffer
        for number, line in enumerate(lines, 1):
            try:
                found.add(line.removesuffix(b"\n"))
            except BadLine as error:
                failures.say(f"line {number} is left out: {error}")
    for result in found.results():
        sys.stdout.buffer.write(result + b"\n")
    sys.stdout.buffer.flush()


def _plan(wish: argparse.Namespace) -> Plan:
    delimiter = os.fsencode(wish.delimiter) if wish.delimiter is not None else None
    between = os.fsencode(wish.between) if wish.between is not None else delimiter or b"\t"
    try:
        return plan_of(
            wish.columns, wish.operations, formats=wish.formats, usual_format=wish.format,
            delimiter=delimiter, between=between, inner=os.fsencode(wish.inner),
        )  # fmt: skip
    except BadPlan as error:
        raise UsageError(str(error)) from error


COMMAND = Filter("[OPS]", "maggr key,sum < sizes", options, run)
