"""All drills, by name."""

from __future__ import annotations

from ops.drills import az_loss, partition, shard_matrix
from ops.drills.model import Drill
from ops.errors import BadInput

DRILLS: dict[str, Drill] = {d.name: d for d in (az_loss.DRILL, partition.DRILL, shard_matrix.DRILL)}


def drill_of(name: str) -> Drill:
    """The drill of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in DRILLS:
        raise BadInput(f"run drill {name!r}: there are {', '.join(DRILLS)}")
    return DRILLS[name]
