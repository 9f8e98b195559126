"""Files, folders, links and units against what this clone would render: Ansible's check mode. Last, as it takes longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ops.ansible import Outcome
from ops.conformance import rendered as judge
from ops.conformance.model import Finding
from tests.conformance.conftest import Subject

pytestmark = pytest.mark.conformance
Tell = Callable[[Iterable[Finding]], None]


def test_files_and_units_are_what_this_clone_renders(
    machine: Subject, rendering: Callable[[], Outcome], found: Tell
) -> None:
    found(judge.differences(machine.name, rendering()))
