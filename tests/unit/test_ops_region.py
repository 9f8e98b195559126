"""Regions: their values, their lock, their secrets."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from ops import region as regions
from ops import secrets
from ops.errors import BadInput, OperatorError
from ops.region import Host, Region


@pytest.fixture
def region(tmp_path: Path) -> Region:
    host = Host("t-a-api-01", "a", "api", 1, "10.1.1.21", 0, 0)
    return Region("t", "mobula.test", "10.1.0.0/16", 1, tmp_path / "t", tmp_path, {host.name: host}, None)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one region called `here`, its tfvars writable."""
    monkeypatch.setattr(regions, "REPO", tmp_path)
    monkeypatch.setattr(regions, "STATE", tmp_path / "state")
    folder = tmp_path / "terraform/regions/here"
    folder.mkdir(parents=True)
    values = {"name": "here", "domain": "mobula.test", "cidr": "10.1.0.0/16", "relay_port": 28443}
    (folder / "region.auto.tfvars.json").write_text(json.dumps(values))
    return tmp_path


def test_an_unknown_region_is_refused_by_naming_those_that_exist(clone: Path) -> None:
    with pytest.raises(BadInput, match=r"find region 'there': .* has only here"):
        regions.load("there")


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "Expecting"), ("[]", "no JSON object"), ('{"name": 7}', "must be the name of its folder")],
)
def test_a_malformed_tfvars_file_is_named(clone: Path, text: str, says: str) -> None:
    (clone / "terraform/regions/here/region.auto.tfvars.json").write_text(text)
    with pytest.raises(BadInput, match=rf"region\.auto\.tfvars\.json.*{says}"):
        regions.load("here")


def describe(clone: Path, **values: object) -> None:
    """Say more in the region's tfvars."""
    file = clone / "terraform/regions/here/region.auto.tfvars.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def applied(clone: Path, **values: object) -> None:
    """What Terraform said when it last ran."""
    output = clone / "state/here/terraform/region.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"shape": regions.SHAPE, **values}))


@pytest.mark.parametrize("value", ["yes", "true", 1, 0, None, [], {}])
def test_a_region_is_described_as_drillable_by_true_or_false_and_nothing_else(clone: Path, value: object) -> None:
    describe(clone, drillable=value)
    with pytest.raises(BadInput) as refused:
        regions.load("here")
    assert str(refused.value).endswith(f"region.auto.tfvars.json: 'drillable' is {value!r}; it must be true or false")


@pytest.mark.parametrize(
    ("described", "said", "drillable"),
    [
        ({}, {"drillable": True}, True),
        ({"drillable": True}, {"drillable": True}, True),
        ({"drillable": False}, {"drillable": True}, False),  # at once, not only after the next `up`
        ({"drillable": True}, {"drillable": False}, False),  # its hosts are not marked yet
        ({}, {"drillable": False}, False),
        ({"drillable": True}, {}, False),  # of a module that knows no such thing
        ({}, {"drillable": "true"}, False),
    ],
)
def test_a_region_is_drillable_if_terraform_has_said_so_and_its_description_does_not_deny_it(
    clone: Path, described: dict[str, object], said: dict[str, object], drillable: bool
) -> None:
    describe(clone, **described)
    applied(clone, **said)
    assert regions.load("here").drillable is drillable


def test_a_region_that_was_never_up_is_not_drillable(clone: Path) -> None:
    describe(clone, drillable=True)
    assert not regions.load("here").drillable


def test_a_state_of_another_shape_is_refused(clone: Path) -> None:
    output = clone / "state/here/terraform/region.json"
    output.parent.mkdir(parents=True)
    output.write_text('{"shape": 99}')
    with pytest.raises(OperatorError, match="shape is 99"):
        regions.load("here")


def test_the_lock_names_its_holder_and_ends_with_it(region: Region) -> None:
    holder = f"""
import sys
from pathlib import Path
from ops.region import Region, lock
region = Region("t", "d", "10.1.0.0/16", 1, Path({str(region.state_dir)!r}), Path("."), {{}}, None)
with lock(region, "up"):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OperatorError, match=rf"down region 't': `up` \(pid {other.pid}, since"),
            regions.lock(region, "down"),
        ):
            pass
        other.kill()
    with regions.lock(region, "down"):
        pass


def test_secrets_are_private_and_a_second_run_changes_none(region: Region) -> None:
    secrets.ensure(region)
    files = {p: p.read_bytes() for p in region.secrets.rglob("*") if p.is_file()}
    assert {stat.S_IMODE(p.stat().st_mode) for p in files if not p.name.endswith(".pub")} == {0o600}
    secrets.ensure(region)
    assert {p: p.read_bytes() for p in region.secrets.rglob("*") if p.is_file()} == files


def test_a_new_host_gets_a_certificate_and_the_others_keep_theirs(region: Region) -> None:
    secrets.ensure(region)
    old = (region.secrets / "hosts/t-a-api-01.pem").read_bytes()
    new = Host("t-b-api-01", "b", "api", 1, "10.1.2.21", 0, 0)
    secrets.ensure(replace(region, hosts={**region.hosts, new.name: new}))
    certificate = x509.load_pem_x509_certificate((region.secrets / "hosts/t-b-api-01.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((region.secrets / "ca.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert (region.secrets / "hosts/t-a-api-01.pem").read_bytes() == old
