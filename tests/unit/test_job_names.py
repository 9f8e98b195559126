from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.job_names import (
    COMPONENT_BYTES_MAX,
    PLACE_BYTES_MAX,
    MalformedName,
    anonymous,
    base,
    normalised,
    out_base,
    place,
)

JOB = uuid.UUID(int=7)
BELOW = f"/dap/jobs/{JOB}/stor"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("/dap/stor/a", "/dap/stor/a"),
        ("//dap///stor//a b", "/dap/stor/a b"),
        ("/dap/stor/", "/dap/stor"),
        ("/dap/stor/a%20b", "/dap/stor/a%20b"),
    ],
)
def test_an_input_is_named_with_single_slashes(typed: str, name: str) -> None:
    assert normalised(typed) == name


@pytest.mark.parametrize("typed", ["", "/", "//", "/dap", "/dap/", "//dap//", "dap/stor/a", " /dap/stor/a"])
def test_what_names_nothing_of_an_account_is_malformed(typed: str) -> None:
    with pytest.raises(MalformedName) as caught:
        normalised(typed)
    assert str(caught.value) == f'malformed object name: "{typed}"'


@pytest.mark.parametrize(
    ("reduces", "name", "first_input", "made"),
    [
        (False, "/dap/stor/a", "/dap/stor/a", f"{BELOW}/dap/stor/a.0.u"),
        (False, f"{BELOW}/dap/stor/a.0.x", "/dap/stor/a", f"{BELOW}/dap/stor/a.0.u"),
        (False, f"{BELOW}/reduce.0.x", "", f"{BELOW}/reduce.0.x.0.u"),
        (True, "", "", f"{BELOW}/reduce.0.u"),
    ],
)
def test_outputs_are_called_after_what_they_came_from(reduces: bool, name: str, first_input: str, made: str) -> None:
    below = out_base("dap", JOB)
    assert below == BELOW
    assert anonymous(below, base(below, reduces=reduces, name=name, first_input=first_input), 0, "u") == made


LONG = "n" * 256


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("/dap/stor/a", ("dap/stor/a", False)),
        (f"/dap/stor/{'n' * 255}", (f"dap/stor/{'n' * 255}", False)),
        (f"/dap/stor/{LONG}", (f"dap/stor/{'n' * 251}_...", True)),
        # A character is not cut in two.
        (f"/dap/stor/{'€' * 100}", (f"dap/stor/{'€' * 83}_...", True)),
        (f"/dap/stor/1/{'/'.join(['m' * 200] * 5)}/y/z", ("dap/stor/1/_.../y/z", True)),
        (f"/dap/stor/{'/'.join([LONG] * 5)}", (f"dap/stor/{'n' * 251}_.../_.../{'/'.join(['n' * 251 + '_...'] * 2)}", True)),
        (f"/{LONG}/{LONG}/{LONG}/x/{LONG}/{LONG}", (f"{'/'.join(['n' * 251 + '_...'] * 2)}/_.../{'n' * 251}_...", True)),
    ],
)  # fmt: skip
def test_where_a_task_finds_an_object(name: str, found: tuple[str, bool]) -> None:
    assert place(name) == found


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=400),
        min_size=2,
        max_size=12,
    )
)
def test_every_place_can_be_made(names: list[str]) -> None:
    where, unusual = place("/" + "/".join(names))
    assert len(f"/manta/{where}".encode()) <= PLACE_BYTES_MAX
    assert all(0 < len(part.encode()) <= COMPONENT_BYTES_MAX for part in where.split("/"))
    assert unusual == (where != "/".join(names))
