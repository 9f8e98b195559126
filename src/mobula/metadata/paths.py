"""Paths inside the metadata tier: ``/<account uuid>/<namespace>[/...]``."""

from __future__ import annotations

ROOT_DEPTH = 2
"""``/<uuid>/stor`` has two segments: a root directory, which exists without a row"""


def split(path: str) -> tuple[str, str]:
    """The directory that holds a path's name, and the name."""
    directory, _, name = path.rpartition("/")
    return directory, name


def is_root(path: str) -> bool:
    """The path is an account or one of its namespaces; these always exist."""
    return path.count("/") <= ROOT_DEPTH
