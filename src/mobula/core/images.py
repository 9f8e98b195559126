"""Versions of the task image, and what jobs ask for. Pure. Source: the compute contract, "Job document": npm's ranges of versions."""

from __future__ import annotations

import functools
import re
from typing import Annotated

from msgspec import Meta
from semantic_version import NpmSpec, Version

NUMBER = r"(0|[1-9][0-9]{0,8})"
ImageVersion = Annotated[str, Meta(pattern=rf"^{NUMBER}\.{NUMBER}\.{NUMBER}$")]
ANY = "*"
RANGE_CHARS_MAX = 256
"""as npm has it: a range of thousands of parts would take seconds to read"""
# npm takes space between an operator and its version, any number of spaces between parts, and ~> for ~; the library does not.
_OPERATOR = re.compile(r"(~>|[<>]=?|[=~^])\s*")


def newest(wanted: str, versions: tuple[str, ...]) -> str | None:
    """Of these versions the newest in the range `wanted`; None: none is, or that is no range."""
    spec = _read(wanted)
    fitting = [version for version in versions if spec is not None and spec.match(Version(version))]
    return max(fitting, key=Version, default=None)


@functools.lru_cache(64)
def _read(wanted: str) -> NpmSpec | None:
    if len(wanted) > RANGE_CHARS_MAX:
        return None
    tidy = _OPERATOR.sub(lambda found: found[1].replace("~>", "~"), " ".join(wanted.split()))
    try:
        return NpmSpec(tidy)
    except (ValueError, AttributeError):  # the second is what it says of a malformed part beside a hyphen
        return None
