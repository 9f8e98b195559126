"""The note of what a drill has done to a region, on disk: what is in it has to be healed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mobula.lab.network import LabError
from ops.drills.fault import Fault
from ops.drills.faults import Cut, Degrade, Freeze, Kill, Pause, Power, Stop
from ops.drills.storage_faults import FailDisks, Full, LosePool, RotDisk, RotFiles, SparesIn
from ops.errors import OperatorError
from ops.region import Region

_READ = msgspec.json.Decoder(
    list[
        Power
        | Freeze
        | Cut
        | Degrade
        | Kill
        | Pause
        | Stop
        | FailDisks
        | LosePool
        | RotFiles
        | RotDisk
        | Full
        | SparesIn
    ]
)


class Standing:
    """The faults that a drill has done or was about to do, on disk before they are: what is in it has to be healed."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._path: Path = region.state_dir / "drill" / "standing.json"

    def faults(self) -> list[Fault]:
        """What is noted. A file that can't be read is as bad as none: nothing is known, and `lab heal` looks for itself."""
        try:
            return [*_READ.decode(self._path.read_bytes())]
        except (OSError, msgspec.MsgspecError):
            return []

    def note(self, fault: Fault) -> None:
        """Before it is done.

        Raises:
            OperatorError: it can't be noted, and so must not be done.
        """
        try:
            self._write([*self.faults(), fault])
        except OSError as error:
            raise OperatorError(f"note {fault.text()!r} before it is done: {error}; see to the disk") from error

    def heal(self) -> list[str]:
        """Heal all, the last one first; answers what could not be healed, which stays noted."""
        left, troubles = [], []
        for fault in reversed(self.faults()):
            try:
                fault.heal(self._region)
            except Exception as error:  # noqa: BLE001 (whatever it is, as a host that is no more: the others are healed)
                left.append(fault)
                said = str(error) if isinstance(error, (LabError, OperatorError, OSError)) else repr(error)
                troubles.append(f"heal {fault.text()!r}: {said}")
        if not left and (unreadable := self._put_aside()):
            return [unreadable]
        try:
            self._write(list(reversed(left)))
        except OSError as error:
            troubles.append(f"note what stands: {error}; see to the disk")
        return troubles

    def _put_aside(self) -> str:
        """A note that can't be read is kept, out of the way: a sentence, the first time; "" of a good one, or none."""
        try:
            noted = self._path.read_bytes()
        except OSError:
            return ""
        try:
            _READ.decode(noted)
        except msgspec.MsgspecError as error:
            aside = self._path.with_suffix(".unreadable")
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            return (
                f"read what a drill left: {error}; it is in {str(aside)!r} now, ./mobula lab heal and ./mobula up mend"
            )
        return ""

    def _write(self, faults: Iterable[Fault]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        noted = list(faults)
        if not noted:
            self._path.unlink(missing_ok=True)
            return
        new = self._path.with_suffix(".new")
        with new.open("wb") as out:
            out.write(msgspec.json.encode(noted))
            out.flush()
            os.fsync(out.fileno())
        new.replace(self._path)
