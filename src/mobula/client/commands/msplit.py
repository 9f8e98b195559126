"""msplit: spread lines over the reducers of the next phase. Lines of the same key go to the same one, whichever task has them."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from mobula.client.commands.command import Call, Command, UsageError
from mobula.client.commands.task import kept, new_name, output_headers
from mobula.client.effects import together
from mobula.client.operations import put

REDUCERS_MAX = 128

# It is fed with a file and answers as it reads, so nobody waits for anybody. An expression is tried first, then a function's body. A key
# comes as JSON: it may have line ends in it.
PROGRAM = """
const fs = require('fs'), [form, text] = process.argv.slice(1)
const decoder = new (require('string_decoder').StringDecoder)('utf8'), chunk = Buffer.alloc(1 << 16)
let pick, rest = ''
const keys = lines => lines.map(line =>
  JSON.stringify(String(pick.call(form === 'json' ? JSON.parse(line) : line, line))) + '\\n').join('')
try {
  try { pick = new Function('line', 'return (' + text + '\\n)') } catch { pick = new Function('line', text) }
  for (let n; (n = fs.readSync(0, chunk)) > 0;) {
    const lines = (rest + decoder.write(chunk.subarray(0, n))).split('\\n')
    rest = lines.pop()
    fs.writeFileSync(1, keys(lines))
  }
  rest += decoder.end()
  if (rest) fs.writeFileSync(1, keys([rest]))
} catch (error) {
  if (error.code !== 'EPIPE') fs.writeFileSync(2, `msplit: ${error}\\n`)
  process.exitCode = 1
}
"""


class BadLine(ValueError):
    """A line that belongs nowhere; the message says why."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--reducers", type=reducers, required=True, metavar="N", help="over so many")
    parser.add_argument("-d", "--delimiter", default="\t", metavar="TEXT", help="between fields (a tab)")
    parser.add_argument(
        "-f", "--fields", type=lambda text: text.split(","), metavar="LIST",
        help="these are the key, as in 1,3; with -j names, as in id,owner.name; without, it is the whole line",
    )  # fmt: skip
    parser.add_argument("-j", "--json", action="store_true", help="a line is a JSON object")
    parser.add_argument(
        "-e", "--expression", metavar="JS",
        help="JavaScript that gives the key of `line`: an expression, or a body with return; with -j `this` is the object",
    )  # fmt: skip
    parser.add_argument("-i", "--index", action="store_true", help="the key is the reducer's number; the first is 0")
    parser.add_argument("-z", "--gzip", action="store_true", help="compress what is put")


def run(call: Call) -> None:
    import tempfile  # noqa: PLC0415 (10 ms, which --help does without)

    wish = call.options
    names = [new_name(call.environment) for _ in range(wish.reducers)]
    if wish.expression is not None and wish.fields is not None:
        raise UsageError("choose the key: by -f or by -e, not both")
    with tempfile.TemporaryDirectory(prefix="mobula-") as folder:
        files = [Path(folder) / str(number) for number in range(wish.reducers)]
        try:
            with _keyed(wish) as lines:
                _spread(lines, files, wish)
        except BadLine as error:
            call.failures.say(str(error))
            return  # nothing is put: half of the lines would be no result
        # All of them, the empty ones too: each reducer gets something from each task.
        call.client.run(
            together([
                put(name, file, parents=True, headers=output_headers(number))
                for number, (name, file) in enumerate(zip(names, files, strict=True))
            ])
        )  # fmt: skip


def _spread(lines: Iterable[tuple[bytes, bytes]], files: Sequence[Path], wish: argparse.Namespace) -> None:
    """Write each line to the file of its reducer. Raises BadLine, OSError."""
    choose, done = index_of if wish.index else reducer_of, 0
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(_part(file, packed=wish.gzip)) for file in files]
        try:
            for line, key in lines:
                parts[choose(key, len(files))].write(line + b"\n")
                done += 1
        except BadLine as error:
            raise BadLine(f"line {done + 1}: {error}") from error


def _part(file: Path, *, packed: bool) -> IO[bytes]:
    if not packed:
        return file.open("wb")
    import gzip  # noqa: PLC0415

    return cast(
        IO[bytes], gzip.GzipFile(file, "wb", compresslevel=6, mtime=0)
    )  # without a time: the same lines are the same bytes


@contextlib.contextmanager
def _keyed(wish: argparse.Namespace) -> Iterator[Iterable[tuple[bytes, bytes]]]:
    """The lines of standard input, each with its key."""
    if wish.expression is None:
        key = key_of(wish.fields, wish.delimiter, json_lines=wish.json)
        yield ((line, key(line)) for line in lines_of(sys.stdin.buffer))
        return
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    node = shutil.which("node")
    if node is None:
        raise UsageError("choose the key by -e: that is JavaScript, and there is no node on PATH; use -f")
    argv = [node, "-e", PROGRAM, "--", "json" if wish.json else "text", wish.expression]
    with kept(sys.stdin.buffer) as file, file.open("rb") as lines, file.open("rb") as given:
        sys.stderr.flush()
        with subprocess.Popen(argv, stdin=given, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None  # noqa: S101 (a pipe)
            yield zip(lines_of(lines), _keys(process.stdout), strict=False)


def _keys(told: IO[bytes]) -> Iterator[bytes]:
    for line in told:
        yield json.loads(line).encode(errors="surrogatepass")
    raise BadLine("the expression of -e gave no key")


# pure


def lines_of(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends."""
    return (line.removesuffix(b"\n") for line in stream)


def reducers(text: str) -> int:
    """A number of reducers. Raises ValueError, as argparse wants it."""
    if not 1 <= int(text) <= REDUCERS_MAX:
        raise ValueError(text)
    return int(text)


def reducer_of(key: bytes, count: int) -> int:
    """The first 32 bits of the key's MD5, modulo the number of reducers: any other tool that does so agrees with us."""
    return int.from_bytes(hashlib.md5(key, usedforsecurity=False).digest()[:4]) % count


def index_of(key: bytes, count: int) -> int:
    """The reducer that a key names. Raises BadLine."""
    text = key.strip()
    if not (text.isdigit() and len(text) < 5 and int(text) < count):
        raise BadLine(f"{key[:40].decode(errors='replace')!r} is not a reducer's number: from 0 to {count - 1}")
    return int(text)


def key_of(fields: Sequence[str] | None, delimiter: str, *, json_lines: bool) -> Callable[[bytes], bytes]:
    """What gives the key of a line: the fields that it has, with the delimiter between; without `fields`, the line.

    The function raises BadLine: not the JSON that it should be.

    Raises:
        UsageError: no delimiter, or fields that are no numbers.
    """
    between = delimiter.encode(errors="surrogateescape")
    if fields is None:
        return lambda line: line
    if json_lines:
        paths = [field.split(".") for field in fields]
        return lambda line: between.join(_values(line, paths))
    if not between or not all(field.isascii() and field.isdigit() and int(field) for field in fields):
        raise UsageError(
            f"choose the key by -f {','.join(fields)}: fields are numbers from 1, and -d stands between them"
        )
    places = [int(field) - 1 for field in fields]

    def key(line: bytes) -> bytes:
        found = line.split(between)
        return between.join(found[place] for place in places if place < len(found))

    return key


def _values(line: bytes, paths: Iterable[Sequence[str]]) -> Iterator[bytes]:
    try:
        whole = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"no JSON: {line[:40].decode(errors='replace')!r}") from error
    for path in paths:
        value = whole
        for name in path:
            if not isinstance(value, dict) or name not in value:
                break
            value = value[name]
        else:
            yield text_of(value).encode(errors="surrogatepass")


def text_of(value: Any) -> str:
    """A JSON value as JavaScript would write it in a text; what is not simple stays JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


COMMAND = Command("-n N", "msplit -n 4 -f 1 < lines", options, run, own="i")
