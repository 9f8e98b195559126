"""What a guard may grant and when: the rules of docs/metadata.md, each with a case that breaks without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.metadata.lease import Beat, Instant, Keys, Reign, Signs, Verdict, stepped_back, sync_of, wait_end

BOOT = "2026-03-01 12:00:00+00"
NOW = Instant(1000.0, 50.0)
LEASE_S = 1.0


def reign(**changes: object) -> Reign:
    values: dict[str, object] = {
        "name": "me", "boot": BOOT, "generation": 7, "clean": True, "wait_until_s": 0.0, "lease_s": LEASE_S,
    }  # fmt: skip
    return Reign(**(values | changes))  # type: ignore[arg-type]


def before(seconds: float) -> Instant:
    return Instant(NOW.wall_s - seconds, NOW.mono_s - seconds)


def beat(**changes: object) -> Beat:
    values: dict[str, object] = {"start": before(0.1), "boot": BOOT, "generation": 7, "replicated": True}
    return Beat(**(values | changes))  # type: ignore[arg-type]


def keys(leader: str | None = "me", sync_leader: str | None = "me", standby: str | None = "other") -> Keys:
    return Keys(before(0.1), leader, sync_leader, standby)


def test_a_grant_counts_from_the_start_of_its_evidence() -> None:
    assert reign().by_beat(beat(), NOW) == Verdict(1000.9, "G1")
    assert reign().by_keys(keys(), NOW) == Verdict(1000.9, "G2")


def test_a_beat_that_no_standby_flushed_grants_nothing_and_cleans_nothing() -> None:
    server = reign(clean=False)
    assert server.by_beat(beat(replicated=False), NOW).until_s is None
    assert not server.clean


@pytest.mark.parametrize("changed", [{"boot": "another"}, {"generation": 6}])
def test_a_beat_of_another_start_or_timeline_grants_nothing(changed: dict[str, object]) -> None:
    server = reign(clean=False)
    assert server.by_beat(beat(**changed), NOW).until_s is None
    assert not server.clean


@pytest.mark.parametrize("leader", ["other", None])
def test_a_leader_key_without_our_name_grants_nothing(leader: str | None) -> None:
    server = reign(clean=False)
    assert server.by_keys(keys(leader, "me", None), NOW).until_s is None
    assert not server.clean


def test_a_restarted_server_is_not_granted_by_zookeeper_until_a_beat_was_replicated() -> None:
    server = reign(clean=False)
    assert server.by_keys(keys(), NOW).until_s is None
    assert server.by_beat(beat(), NOW).until_s is not None
    assert server.by_keys(Keys(before(0.05), "me", "me", "other"), NOW).until_s is not None


@pytest.mark.parametrize(
    ("sync_leader", "standby", "clean"),
    [("me", None, True), ("me", "other", False), ("other", None, False), (None, None, False)],
)
def test_a_sync_key_that_names_nobody_else_makes_a_restarted_server_clean(
    sync_leader: str | None, standby: str | None, *, clean: bool
) -> None:
    server = reign(clean=False)
    assert (server.by_keys(keys("me", sync_leader, standby), NOW).until_s is not None) is clean


def test_nothing_is_granted_before_the_wait_is_over_but_a_beat_still_cleans() -> None:
    server = reign(clean=False, wait_until_s=NOW.mono_s + 0.2)
    assert server.by_beat(beat(), NOW).until_s is None
    assert server.clean
    assert server.by_keys(keys(), NOW).until_s is None
    later = Instant(NOW.wall_s + 0.2, NOW.mono_s + 0.2)
    assert server.by_keys(keys(), later).until_s is not None


def test_a_late_acknowledgement_does_not_cut_a_newer_lease_short() -> None:
    assert reign(granted_until_s=1000.95).by_beat(beat(), NOW).until_s is None


def test_evidence_older_than_the_lease_is_long_grants_nothing() -> None:
    assert reign().by_beat(beat(start=before(LEASE_S)), NOW).until_s is None


@given(wall_step_s=st.floats(-100, 100), gap_s=st.floats(0, 5), stood_still_s=st.floats(0, 5))
def test_a_lease_never_lasts_longer_than_its_length_whatever_one_clock_did(
    wall_step_s: float, gap_s: float, stood_still_s: float
) -> None:
    start = Instant(1000.0, 50.0)
    stepped = Instant(1000.0 + gap_s + wall_step_s, 50.0 + gap_s)
    assert start.lease_until(LEASE_S, stepped) <= stepped.wall_s + LEASE_S - gap_s + 1e-6
    paused = Instant(1000.0 + gap_s + stood_still_s, 50.0 + gap_s)
    assert start.lease_until(LEASE_S, paused) <= paused.wall_s + LEASE_S - gap_s - stood_still_s + 1e-6


def test_a_step_back_of_the_wall_clock_is_seen_and_a_step_forward_or_time_is_none() -> None:
    assert stepped_back(NOW, Instant(NOW.wall_s + 0.9, NOW.mono_s + 1.0))
    assert not stepped_back(NOW, Instant(NOW.wall_s + 0.99, NOW.mono_s + 1.0))
    assert not stepped_back(NOW, Instant(NOW.wall_s + 9.0, NOW.mono_s + 1.0))


def test_the_wait_is_a_lease_and_a_margin_after_the_promotion_or_after_the_last_sign() -> None:
    assert wait_end(50.0, 1.0, 0.1, None) == pytest.approx(51.1)
    assert wait_end(50.0, 1.0, 0.1, 44.0) == pytest.approx(45.1)
    assert wait_end(50.0, 1.0, 0.1, 49.9) == pytest.approx(51.0)
    assert wait_end(50.0, 1.0, 0.1, 51.0) == pytest.approx(51.1)


def test_only_a_change_is_a_sign() -> None:
    signs = Signs()
    assert not signs.complete
    signs.saw_beat(1, 10.0)
    assert not signs.complete
    signs.saw_grants((5, 6), 10.5)
    assert signs.complete
    signs.saw_beat(1, 11.0)
    signs.saw_grants((5, 6), 11.0)
    assert signs.newest_s() == 10.5
    signs.saw_beat(2, 12.0)
    assert signs.newest_s() == 12.0
    signs.saw_grants((5, 7), 13.0)
    assert signs.newest_s() == 13.0


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"leader": "a", "sync_standby": "b"}', ("a", "b")),
        (b'{"leader": "a", "sync_standby": null}', ("a", None)),
        (b'{"leader": "a", "sync_standby": ""}', ("a", None)),
        (b"{}", (None, None)),
        (b"[]", (None, None)),
        (b"\xff", (None, None)),
        (b"", (None, None)),
    ],
)
def test_the_sync_key_is_read_or_says_nothing(data: bytes, found: tuple[str | None, str | None]) -> None:
    assert sync_of(data) == found
