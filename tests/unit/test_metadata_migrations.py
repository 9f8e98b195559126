"""The release's migrations, and what is refused before anything is applied."""

from __future__ import annotations

import pytest

from mobula.metadata.migrate import Migration, MigrationError, migrations, pending

FIRST, SECOND = Migration(1, "first", "SELECT 1"), Migration(2, "second", "SELECT 2")


def test_the_releases_migrations_run_from_one_without_a_gap() -> None:
    assert [m.version for m in migrations()] == list(range(1, len(migrations()) + 1))
    assert [m.name for m in migrations()][:3] == ["fence", "metadata", "directory"]


def test_what_is_not_recorded_is_pending() -> None:
    assert pending([FIRST, SECOND], {}) == [FIRST, SECOND]
    assert pending([FIRST, SECOND], {1: FIRST.digest}) == [SECOND]
    assert pending([FIRST, SECOND], {1: FIRST.digest, 2: SECOND.digest}) == []


def test_a_migration_that_was_applied_with_other_contents_is_refused() -> None:
    with pytest.raises(MigrationError, match="migration 1 was applied with other contents"):
        pending([FIRST, SECOND], {1: SECOND.digest})


def test_a_schema_of_a_newer_release_is_refused() -> None:
    with pytest.raises(MigrationError, match="the schema has version 2, this release knows 1"):
        pending([FIRST], {1: FIRST.digest, 2: SECOND.digest})
