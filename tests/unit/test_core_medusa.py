"""The messages between the ends of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core import medusa
from mobula.core.medusa import AGENT, STOCK_AGENT, is_interactive, read, write


def test_a_message_is_read_as_it_was_written() -> None:
    assert write("medusa", "wait") == 'medusa:{"type":"wait"}'
    said = read(write(medusa.TERMINAL, "start", command="bash", arguments=["-c", "ä"], columns=80))
    assert said is not None
    assert (said.by, said.kind, said.fields["arguments"], said.fields["columns"]) == (
        "mlogin",
        "start",
        ["-c", "ä"],
        80,
    )


@pytest.mark.parametrize(
    "text", ["ping", "", "mlogin:", "mlogin:[]", "mlogin:{}", 'mlogin:{"type":1}', 'other:{"type":"exit"}', "mlogin:" + "[" * 100_000]
)  # fmt: skip
def test_what_is_no_message_is_none(text: str) -> None:
    assert read(text) is None


@given(st.text())
def test_any_text_is_a_message_or_none(text: str) -> None:
    read(f"mlogin:{text}")


def test_only_an_agent_makes_a_phase_a_session() -> None:
    assert is_interactive(AGENT, ())
    assert is_interactive("anything", ("/dap/stor/x", STOCK_AGENT))
    assert not is_interactive(f"{AGENT} x", ("/dap/stor/agent.sh",))
