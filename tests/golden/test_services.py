"""Each service's systemd unit and SMF manifest, as they were last reviewed. `make golden` rewrites them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ops.catalog import catalog, services_of, smf_manifest, systemd_unit

GOLDEN = Path(__file__).parent / "services"


@pytest.mark.parametrize("name", catalog())
@pytest.mark.parametrize(("suffix", "render"), [("service", systemd_unit), ("xml", smf_manifest)])
def test_a_rendering_is_the_reviewed_one(
    name: str, suffix: str, render: object, request: pytest.FixtureRequest
) -> None:
    assert callable(render)
    file, text = GOLDEN / f"mobula-{name}.{suffix}", render(catalog()[name])
    if request.config.getoption("--rewrite"):
        file.write_text(text)
    assert file.read_text() == text


def test_nothing_golden_is_left_of_a_service_that_is_gone() -> None:
    assert {f.stem for f in GOLDEN.iterdir()} == {s.unit for s in catalog().values()}


@pytest.mark.parametrize("name", catalog())
def test_a_manifest_is_well_formed_and_its_context_precedes_its_methods(name: str) -> None:
    service = ElementTree.fromstring(smf_manifest(catalog()[name])).find("service")  # noqa: S314 (our own text)
    assert service is not None
    tags = [child.tag for child in service]
    assert tags.index("method_context") < tags.index("exec_method")


def test_no_two_services_of_a_host_share_a_port() -> None:
    for pool in {pool for service in catalog().values() for pool in service.pools}:
        ports = [(p.port, p.protocol) for service in services_of(pool) for p in service.ports]
        assert len(ports) == len(set(ports)), pool
