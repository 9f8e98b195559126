"""Ansible's events become progress, a recap and one sentence; its environment is the region's alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import secrets
from ops.ansible import Changed, Failure, Outcome, Recap, _first, environment, lines_of, read_events
from ops.region import Region


def event(kind: str, **values: Any) -> str:
    return json.dumps({"event": kind, **values}) + "\n"


COUNTS = {"ok": 5, "changed": 1, "failures": 0, "unreachable": 0, "skipped": 2}
RUN = [
    event("play", name="Storage hosts"),
    event("task", name="zfs_pool | Make the pool"),
    event("changed", host="h1", task="t", items=[]),
    "[WARNING]: a warning\n",
    "\n",
    event("recap", hosts={"h1": COUNTS, "h2": COUNTS}),
]


def test_plays_and_tasks_are_progress_and_the_recap_is_summed_over_the_hosts() -> None:
    said: list[str] = []
    changes = (Changed("h1", "t"),)
    assert read_events(RUN, said.append) == Outcome(Recap(10, 2, 0), changes, (), ("[WARNING]: a warning",))
    assert said == ["ansible: Storage hosts", "ansible:   zfs_pool | Make the pool"]
    assert str(Recap(10, 2, 0)) == "ok=10 changed=2 failed=0"


def test_every_failed_host_is_noted_in_order() -> None:
    lines = [event("failed", host=h, task="t", message="m") for h in ("h1", "h2")]
    assert read_events(lines, print).failures == (Failure("h1", "t", "m"), Failure("h2", "t", "m"))


def test_drift_is_a_line_for_each_thing_that_would_change_and_each_host_that_can_not_be_asked() -> None:
    outcome = Outcome(
        Recap(0, 0, 0), (Changed("h2", "Ship", ("/etc/x", "mobula-x restarted")), Changed("h1", "Do")), (Failure("h3", "t", "no\n route"),)
    )  # fmt: skip
    assert lines_of(outcome) == [
        "change h1: Do",
        "change h2: /etc/x",
        "change h2: mobula-x restarted",
        "look at h3: no route",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "7", "null", '"event"', '["event"]', "{}", '{"event": "play"', '{"event": "play"}', '{"event": "task", "title": "x"}',
        '{"event": "failed", "host": "h"}', '{"event": "recap"}', '{"event": "recap", "hosts": []}',
        '{"event": "recap", "hosts": {"h": {"ok": 1}}}', '{"event": "recap", "hosts": {"h": null}}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_of_ours_is_kept_as_a_line(line: str) -> None:
    assert read_events([line + "\n"], print) == Outcome(Recap(0, 0, 0), other=(line,))


@given(st.lists(st.text()))
def test_no_line_stops_the_reading(lines: list[str]) -> None:
    outcome = read_events([*lines, RUN[-1]], lambda _: None)
    assert (outcome.recap, outcome.failures) == (Recap(10, 2, 0), ())


@pytest.mark.parametrize(
    ("failures", "other", "sentence"),
    [
        ([Failure("h1", "base | Do", "no\n  room")], ["x"], "h1, task 'base | Do': no room"),
        ([Failure("h1", "t", "m")] * 3, [], "h1, task 't': m (and 2 more)"),
        ([], [*"abcdefg"], "c d e f g"),
        ([], ["x" * 900], "x" * 600),
        ([], [], "ansible-playbook ended without saying why"),
    ],
)
def test_what_went_wrong_is_one_sentence(failures: list[Failure], other: list[str], sentence: str) -> None:
    assert _first(Outcome(Recap(0, 0, 0), (), tuple(failures), tuple(other))) == sentence


def test_nothing_of_the_users_ansible_is_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    region = Region("t", "mobula.test", "10.1.0.0/16", 1, tmp_path / "t", tmp_path, {}, None)
    region.secrets.mkdir(parents=True)
    for name in ("ssh.key", "ssh-hosts.key"):
        secrets._ssh_key(region.secrets / name, "a comment")
    values = environment(region)
    assert "ANSIBLE_STRATEGY" not in values
    assert values["ANSIBLE_PRIVATE_KEY_FILE"] == str(region.secrets / "ssh.key")
    for name in ("ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_SSH_CONTROL_PATH_DIR", "ANSIBLE_SSH_EXECUTABLE"):
        assert values[name].startswith(str(region.state_dir / "run")), name
    assert "StrictHostKeyChecking=yes" in values["ANSIBLE_SSH_ARGS"]
