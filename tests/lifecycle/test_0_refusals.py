"""What `make up` refuses: one sentence that names the input, what was found and what to do; nothing half-done is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.region import CACHE, REPO, STATE
from tests.lifecycle import traces
from tests.lifecycle.conftest import REGION

pytestmark = pytest.mark.lifecycle


def up(
    repo: Path = REPO, profile: str = "small", within: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> str:
    """What `make up` says last on standard error when it refuses."""
    argv = [*within, "make", "--silent", "up", f"R={REGION}", f"PROFILE={profile}"]
    done = subprocess.run(
        argv, cwd=repo, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith(("[", "make"))]
    assert len(said) == 1, done.stderr
    return said[0]


def values(**changed: object) -> str:
    """The region's variables file with something changed."""
    return json.dumps({"name": REGION, "domain": "mobula.test", "cidr": "10.78.0.0/16", "relay_port": 28443} | changed)


def profile(**changed: object) -> str:
    """A profile's file with something changed."""
    return json.dumps({"profile": "small", "pools": {"storage": 1, "api": 1, "loadbalancer": 1}, "shards": 1} | changed)


@pytest.fixture(autouse=True)
def nothing_is_left(before: traces.Traces) -> object:
    yield
    assert traces.left(before, traces.of_machine(REGION, STATE / REGION)) == {}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of this repository, to be spoiled."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPO / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, tmp_path / name, follow_symlinks=False)
    return tmp_path


def test_an_unknown_profile() -> None:
    assert "use profile 'huge': terraform/profiles/ has only lab, small" in up(profile="huge")


def test_an_address_range_in_use() -> None:
    within = ("unshare", "--net", "sh", "-c", 'ip address add 10.78.3.7/24 dev lo && exec "$@"', "sh")
    said = up(within=within)
    assert "use the addresses 10.78.0.0/16 for region 'test': 10.78.3." in said
    assert "set another 'cidr'" in said


PROFILE = "terraform/profiles/small.tfvars.json"
VALUES = "terraform/regions/test/region.auto.tfvars.json"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        pytest.param(PROFILE, '{"shards": 1,', "small.tfvars.json", id="not JSON"),
        pytest.param(PROFILE, profile(shards="many"), "a number is required", id="a word for a number"),
        pytest.param(PROFILE, profile(shards=0), "shards must be 1 to 9", id="too few"),
        pytest.param(
            PROFILE, profile(pools={"api": 1}), '"loadbalancer" and "storage" are required', id="pools left out"
        ),
        pytest.param(PROFILE, profile(shard=1), "there is no variable 'shard'", id="an unknown variable"),
        pytest.param(VALUES, "name = test", "region.auto.tfvars.json", id="not JSON either"),
        pytest.param(VALUES, values(cidr=7), "'cidr' is 7", id="a number for a range"),
        pytest.param(VALUES, values(cidr="10.78.0/16"), "'cidr' is '10.78.0/16'", id="no range"),
        pytest.param(VALUES, values(relay_port=99999), "'relay_port' is 99999", id="no port"),
        pytest.param(
            VALUES, values(drillable="yes"), "'drillable' is 'yes'; it must be true or false", id="no yes or no"
        ),
        pytest.param(VALUES, values(name="other"), "'name' is 'other'", id="another name"),
    ],
)
def test_a_malformed_variables_file(clone: Path, name: str, text: str, says: str) -> None:
    (clone / name).write_text(text)
    assert says in up(clone)


def test_a_disk_that_is_too_small_for_the_image(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=400m tmpfs "$1" && mkdir "$1/venv" && mount --bind "$2" "$1/venv" && shift 2 && exec "$@"'
    within = ("unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), str(CACHE / "venv"))
    said = up(within=within, env={"MOBULA_CACHE": str(tmp_path)})
    assert "build the base image in" in said
    assert "MiB are needed" in said
    assert list(tmp_path.iterdir()) == []
