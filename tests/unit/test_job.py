from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.job import BODY_BYTES_MAX, DISK_GB, MEMORY_MB, InvalidJob, check_images, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def body(**job: object) -> bytes:
    return json.dumps(job).encode()


def phase(**more: object) -> bytes:
    return body(phases=[{"exec": "wc", **more}])


def refusal(job: bytes) -> str | None:
    try:
        parse(job)
    except InvalidJob as error:
        return str(error)
    return None


def test_a_job_of_one_command_is_a_map_with_what_every_task_gets() -> None:
    job = parse(phase())
    (only,) = job.phases
    assert (job.name, job.transient) == ("", False)
    assert (only.exec, only.type, only.reduces, only.reducers) == ("wc", "map", False, 0)
    assert (only.memory_mb, only.disk_gb) == (MEMORY_MB, DISK_GB) == (1024, 8)


def test_all_that_may_be_said_is_kept() -> None:
    said = {
        "exec": "sort | uniq -c", "type": "reduce", "init": "", "assets": ["/dap/stor/a"], "count": 128, "memory": 8192, "disk": 1024,
        "image": "~1.0", "uarg": {"any": [None, {"thing": "\0"}]},
    }  # fmt: skip
    job = parse(body(name="night", transient=True, phases=[{"exec": "cat"}, said]))
    assert (job.name, job.transient) == ("night", True)
    second = job.phases[1]
    assert {name: getattr(second, name) for name in said} == {**said, "assets": ("/dap/stor/a",)}
    assert (second.reducers, second.memory_mb, second.disk_gb) == (128, 8192, 1024)


def test_a_storage_map_is_a_map() -> None:
    assert parse(phase(type="storage-map")).phases[0].type == "map"


def test_the_count_of_a_map_means_nothing() -> None:
    assert parse(phase(count=4)).phases[0].reducers == 0


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (b"", "the job is no JSON"),
        (b"{", "the job is no JSON"),
        (b"\xff", "the job is no JSON"),
        (b"[" * 90_000, "the job: expected `object`"),
        (b'{"phases":[{"exec":"x","uarg":' + b'{"a":' * 15_000, "the job is no JSON"),
        (b"[]", "the job: expected `object`"),
        (b"{}", 'property "phases": is required'),
        (b"null", "the job: expected `object`"),
        (body(phases=[]), 'property "phases": expected `array` of length >= 1'),
        (body(phases={}), 'property "phases": expected `array`'),
        (body(phases=["wc"]), 'property "phases[0]": expected `object`'),
        (body(phases=[{"exec": "x"}, {}]), 'property "phases[1].exec": is required'),
        (phase(exec=""), 'property "phases[0].exec": must not be empty'),
        (phase(exec=None), 'property "phases[0].exec": expected `str`'),
        (phase(exec="a\0b"), 'property "phases[0].exec": has a NUL character'),
        (phase(init="\0"), 'property "phases[0].init": has a NUL character'),
        (phase(init=None), 'property "phases[0].init": expected `str`'),
        (phase(type="filter"), 'property "phases[0].type": invalid enum value'),
        (phase(assets="/a"), 'property "phases[0].assets": expected `array`'),
        (phase(assets=["/a", 1]), 'property "phases[0].assets[1]": expected `str`'),
        (phase(assets=["/a", "/b\0"]), 'property "phases[0].assets[1]": has a NUL character'),
        (phase(count=0), 'property "phases[0].count": expected `int` >= 1'),
        (phase(count=129), 'property "phases[0].count": expected `int` <= 128'),
        (phase(count=True), 'property "phases[0].count": expected `int`'),
        (phase(count=1.5), 'property "phases[0].count": expected `int`'),
        (phase(memory=100), 'property "phases[0].memory": is 100 MB; may be 128, 256, 512, 1024, 2048, 4096, 8192'),
        (phase(memory=16384), 'property "phases[0].memory": is 16384 MB'),
        (phase(disk=1), 'property "phases[0].disk": is 1 GB; may be 2, 4, 8,'),
        (phase(disk="8"), 'property "phases[0].disk": expected `int`'),
        (phase(image=""), 'property "phases[0].image": must not be empty'),
        (phase(uarg=1), 'property "phases[0].uarg": expected `object`'),
        (phase(input="/a"), 'property "phases[0].input": is not known'),
        (body(phases=[{"exec": "x"}], input="/a"), 'property "input": is not known'),
        (body(phases=[{"exec": "x"}], name=None), 'property "name": expected `str`'),
        (body(phases=[{"exec": "x"}], name="\0"), 'property "name": has a NUL character'),
        (body(phases=[{"exec": "x"}], transient=1), 'property "transient": expected `bool`'),
        (body(phases=[{"exec": "x"}], options={}), 'property "options": is for operators only'),
        (phase(uarg={"x": "y" * BODY_BYTES_MAX}), f"at most {BODY_BYTES_MAX} are taken"),
    ],
)  # fmt: skip
def test_what_is_no_job_is_refused_by_its_property(job: bytes, said: str) -> None:
    with pytest.raises(InvalidJob, match=re.escape(said)):
        parse(job)


def test_an_image_must_be_one_that_there_is() -> None:
    job = parse(body(phases=[{"exec": "x"}, {"exec": "y", "image": "^1.0"}, {"exec": "z", "image": "2"}]))
    assert [phase.image_range for phase in job.phases] == ["*", "^1.0", "2"]
    check_images(job, ("1.2.0", "2.0.0"))
    with pytest.raises(
        InvalidJob, match=re.escape('"phases[1].image": no image is in the range "^1.0"; there are: 2.0.0')
    ):
        check_images(job, ("2.0.0",))
    with pytest.raises(InvalidJob, match="there are: none"):
        check_images(job, ())
    check_images(parse(phase()), ())


def test_options_are_the_operators() -> None:
    job = body(phases=[{"exec": "x"}], options={"keepIntermediate": True})
    assert parse(job, operator=True).options
    with pytest.raises(InvalidJob, match=re.escape('property "options.fast": is not known')):
        parse(body(phases=[{"exec": "x"}], options={"fast": True}), operator=True)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_posted_is_a_job_or_is_refused(job: bytes) -> None:
    assert refusal(job) is None or refusal(job)


@given(
    st.dictionaries(
        st.sampled_from(["exec", "type", "init", "assets", "count", "memory", "disk", "image", "uarg", "x"]), JSON
    )
)
def test_whatever_a_phase_says_is_right_or_refused(said: dict[str, object]) -> None:
    why = refusal(body(phases=[said]))
    assert why is None or 'property "phases[0]' in why
    assert why or parse(body(phases=[said])).phases[0].exec
