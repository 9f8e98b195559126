"""Which files of our package a part of it needs: for what is installed without the rest, and named by a digest of what it is.

Pure, but for reading the files.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "mobula"


class Needs(NamedTuple):
    """`files` of the package, sorted; `libraries`: other packages by the names that are imported, without the standard library's."""

    files: tuple[Path, ...]
    libraries: frozenset[str]


def needs(source: Path, part: Path) -> Needs:
    """What the modules below `part` import, and those, and so on. `source` is the folder that the package is in."""
    left, files, libraries = sorted(part.rglob("*.py")), set[Path](), set[str]()
    while left:
        path = left.pop()
        if path in files:
            continue
        files.add(path)
        for name in imported(path.read_text()):
            if name.partition(".")[0] == PACKAGE:
                left += _files_of(source, name)
            else:
                libraries.add(name.partition(".")[0])
    return Needs(tuple(sorted(files)), frozenset(libraries - sys.stdlib_module_names))


def imported(text: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it; of ``from a import b`` both ``a`` and ``a.b``, which may be a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(source: Path, name: str) -> Iterable[Path]:
    """Of a module, and of the packages above it."""
    parts = name.split(".")
    path = source.joinpath(*parts)
    folders = [source.joinpath(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
    return [found for found in (path.with_suffix(".py"), *folders) if found.is_file()]
