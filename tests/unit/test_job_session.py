"""Who is there of a terminal's two ends, and what is said to whom."""

from __future__ import annotations

import pytest

from mobula.core.medusa import IDLE_S, WAIT_S, read
from mobula.jobs.session import Said, Session, Side, Taken


def kinds(said: Said) -> list[tuple[Side, str]]:
    found = [(side, read(text)) for side, text in said]
    return [(side, message.kind) for side, message in found if message is not None]


def test_who_is_alone_waits_and_both_are_linked() -> None:
    session = Session()
    assert kinds(session.join(Side.MASTER, 10.0)) == [(Side.MASTER, "wait")]
    assert session.due(10.0 + WAIT_S - 0.1) == []
    assert kinds(session.due(10.0 + WAIT_S)) == [(Side.MASTER, "wait")]
    assert not session.linked
    # The agent hears of it first: the client's start must not come before.
    assert kinds(session.join(Side.SLAVE, 13.0)) == [(Side.SLAVE, "linkup"), (Side.MASTER, "linkup")]
    assert session.linked
    assert session.due(13.0 + WAIT_S) == []


def test_an_agent_that_is_first_is_not_told_to_wait() -> None:
    session = Session()
    assert session.join(Side.SLAVE, 0.0) == []
    assert kinds(session.join(Side.MASTER, 1.0))[1] == (Side.MASTER, "linkup")


@pytest.mark.parametrize("side", list(Side))
def test_each_end_is_there_once(side: Side) -> None:
    session = Session()
    session.join(side, 0.0)
    with pytest.raises(Taken, match=f"has a {side} already"):
        session.join(side, 1.0)
    session.join(side.other, 1.0)
    with pytest.raises(Taken):
        session.join(side, 2.0)


def test_a_session_that_is_over_takes_nobody() -> None:
    session = Session()
    session.join(Side.MASTER, 0.0)
    session.end("it was left")
    session.end("again")
    assert session.over == "it was left"
    assert session.due(100.0) == []
    with pytest.raises(Taken):
        session.join(Side.SLAVE, 1.0)


@pytest.mark.parametrize("silent", list(Side))
def test_who_is_silent_ends_it(silent: Side) -> None:
    session = Session()
    for side in Side:
        session.join(side, 0.0)
    session.heard(silent.other, IDLE_S - 1)
    session.due(IDLE_S - 0.1)
    assert session.linked
    session.due(IDLE_S)
    assert session.over == f"nothing came from its {silent} for 30 s"
    assert not session.linked


def test_who_is_not_read_is_not_silent() -> None:
    session = Session()
    for side in Side:
        session.join(side, 0.0)
    session.unread(Side.MASTER)
    session.heard(Side.SLAVE, 100.0)
    session.due(101.0)
    assert session.linked
    session.heard(Side.MASTER, 101.0)
    session.heard(Side.SLAVE, 120.0)
    session.due(101.0 + IDLE_S)
    assert "master" in session.over


def test_an_agent_for_whom_nobody_comes_is_let_go_though_it_pings() -> None:
    session = Session()
    session.join(Side.SLAVE, 0.0)
    session.heard(Side.SLAVE, IDLE_S - 1)
    session.due(IDLE_S)
    assert session.over == "nobody wants the agent that waits"
