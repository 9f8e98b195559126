"""A job as somebody asks for it. Pure. Source: the compute contract, section "Job document".

What is asked for is kept as it was said, for `mjob get` echoes it; the properties here are what it means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mobula.core import images

BODY_BYTES_MAX = 100_000
REDUCERS_MAX = 128
TASKS_GROUP = "mobula-tasks"
"""the control group of all tasks of a storage host"""
MEMORY_MB, DISK_GB = 1024, 8
"""of a task, when the job doesn't say"""
MEMORIES_MB = tuple(128 << n for n in range(7))
DISKS_GB = tuple(2 << n for n in range(10))

Count = Annotated[int, Meta(ge=1, le=REDUCERS_MAX)]
Kind = Literal["map", "reduce", "storage-map"]
_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)


class InvalidJob(ValueError):
    """The sentence names the property."""


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command, run on each input by itself (`map`), or by `count` tasks on all of them (`reduce`)."""

    exec: str
    type: Kind = "map"
    init: str | UnsetType = UNSET
    assets: tuple[str, ...] | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    memory: int | UnsetType = UNSET
    disk: int | UnsetType = UNSET
    image: str | UnsetType = UNSET
    uarg: dict[str, Any] | UnsetType = UNSET

    @property
    def reduces(self) -> bool:
        return self.type == "reduce"

    @property
    def reducers(self) -> int:
        """Tasks of a reduce phase; 0 for a map phase, of which each input is a task."""
        return 0 if not self.reduces else 1 if self.count is UNSET else self.count

    @property
    def memory_mb(self) -> int:
        return MEMORY_MB if self.memory is UNSET else self.memory

    @property
    def image_range(self) -> str:
        """Of versions of the image, as npm writes them; the newest of those is meant."""
        return images.ANY if self.image is UNSET else self.image

    @property
    def disk_gb(self) -> int:
        return DISK_GB if self.disk is UNSET else self.disk


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only operators may say."""

    frequentCheckpoint: bool | UnsetType = UNSET  # noqa: N815 (the contract's name)
    keepIntermediate: bool | UnsetType = UNSET  # noqa: N815 (the contract's name)


class JobDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client posts."""

    phases: Annotated[tuple[Phase, ...], Meta(min_length=1)]
    name: str = ""
    transient: bool = False
    options: Options | UnsetType = UNSET


_READ = msgspec.json.Decoder(JobDocument)


def parse(body: bytes, *, operator: bool = False) -> JobDocument:
    """A job that can be run, if there are its images (`check_images`).

    Raises:
        InvalidJob: it is no JSON, too long, lacks something, or has something that it must not have.
    """
    if len(body) > BODY_BYTES_MAX:
        raise InvalidJob(f"the job has {len(body)} bytes; at most {BODY_BYTES_MAX} are taken")
    try:
        job = _READ.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidJob(_said(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJob(f"the job is no JSON that can be read: {error}") from error
    if job.options is not UNSET and not operator:
        raise InvalidJob('property "options": is for operators only')
    _refuse_nul("name", job.name)
    phases = tuple(_checked(f"phases[{n}]", phase) for n, phase in enumerate(job.phases))
    return msgspec.structs.replace(job, phases=phases)


def check_images(job: JobDocument, supported: Sequence[str]) -> None:
    """Each phase can have an image of one of these versions. Raises InvalidJob."""
    for n, phase in enumerate(job.phases):
        if phase.image is not UNSET and images.newest(phase.image, tuple(supported)) is None:
            known = ", ".join(supported) or "none"
            raise InvalidJob(
                f'property "phases[{n}].image": no image is in the range "{phase.image[:80]}"; there are: {known}'
            )


def _said(text: str) -> str:
    """msgspec's sentence in the contract's form, which begins with the property."""
    found = _WHERE.fullmatch(text)
    what, path = (found["what"], found["path"] or "") if found else (text, "")
    for pattern, why in ((_UNKNOWN, "is not known"), (_MISSING, "is required")):
        if named := pattern.fullmatch(what):
            return f'property "{".".join(filter(None, (path, named["name"])))}": {why}'
    what = what[:1].lower() + what[1:]
    return f'property "{path}": {what}' if path else f"the job: {what}"


def _checked(where: str, phase: Phase) -> Phase:
    """What the types don't say. Raises InvalidJob."""
    for name, text in (("exec", phase.exec), ("init", phase.init), ("image", phase.image)):
        if text is UNSET:
            continue
        if not text and name != "init":
            raise InvalidJob(f'property "{where}.{name}": must not be empty')
        _refuse_nul(f"{where}.{name}", text)
    for n, asset in enumerate(phase.assets or ()):
        _refuse_nul(f"{where}.assets[{n}]", asset)
    for name, unit, value, known in (
        ("memory", "MB", phase.memory, MEMORIES_MB),
        ("disk", "GB", phase.disk, DISKS_GB),
    ):
        if value is not UNSET and value not in known:
            raise InvalidJob(f'property "{where}.{name}": is {value} {unit}; may be {", ".join(map(str, known))}')
    return msgspec.structs.replace(phase, type="map") if phase.type == "storage-map" else phase


def _refuse_nul(where: str, text: str) -> None:
    if "\0" in text:
        raise InvalidJob(f'property "{where}": has a NUL character, which no command can be given')
