"""The services' descriptions are read once, whole, or refused by file; and progress is a line for each step."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import catalog as catalogs
from ops.catalog import TEMPLATES, CatalogError, Service, catalog, names_of, services_of
from ops.errors import OperatorError
from ops.progress import Progress


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of descriptions with one good one, read in place of ours."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services/webapi.yml").write_text((TEMPLATES / "services/webapi.yml").read_text())
    monkeypatch.setattr(catalogs, "TEMPLATES", tmp_path)
    catalog.cache_clear()
    yield tmp_path
    catalog.cache_clear()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text + "colour: blue\n", "unknown field `colour`"),
        (lambda text: re.sub(r"(?m)^summary:.*\n", "", text), "missing required field `summary`"),
        (lambda text: re.sub(r"(?m)^order:.*$", "order: first", text), "Expected `int`, got `str` - at `$.order`"),
        (lambda _: "[", "expected the node content"),
        (lambda _: "", "Expected `object`, got `null`"),
        (lambda text: text.replace("name: webapi", "name: api", 1), "it describes 'api'; name the file after the service"),
    ],
)  # fmt: skip
def test_a_malformed_description_is_refused_by_its_file(templates: Path, change: object, says: str) -> None:
    assert callable(change)
    file = templates / "services/webapi.yml"
    file.write_text(change(file.read_text()))
    with pytest.raises(CatalogError, match=re.escape(says)) as caught:
        catalog()
    assert str(caught.value).startswith("read templates/services/webapi.yml: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OperatorError)


def test_what_is_wrong_with_a_description_passes_through_a_context(templates: Path) -> None:
    """A frozen exception can't be given its traceback there: it would end as another one."""

    @contextlib.contextmanager
    def step() -> Iterator[None]:
        yield

    (templates / "services/webapi.yml").write_text("[")
    with pytest.raises(CatalogError), step():
        catalog()


def test_a_host_has_the_names_of_its_services_in_dns() -> None:
    pools = ("loadbalancer", "api", "storage", "nameservice", "metadata")
    assert [names_of(pool) for pool in pools] == [("@",), ("authcache", "webapi"), ("storage",), ("ns",), ()]


def test_a_hosts_services_start_in_their_order_then_by_name() -> None:
    for pool in {pool for service in catalog().values() for pool in service.pools}:
        order = [(s.order, s.name) for s in services_of(pool)]
        assert order == sorted(order)
    assert services_of("moon") == ()


@pytest.mark.parametrize("service", catalog().values(), ids=lambda s: s.name)
def test_what_a_service_is_checked_and_asked_at_is_one_of_its_ports(service: Service) -> None:
    ports = {port.port for port in service.ports}
    assert service.unit == f"mobula-{service.name}"
    for endpoint in (service.status, service.registered):
        assert endpoint is None or endpoint.port in ports
    assert set(service.after) <= set(catalog())


def test_a_step_is_said_when_it_begins_and_with_its_seconds_when_it_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress().step("terraform"):
        pass
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"\[ {3}\d\.\d s\] terraform\n\[ {3}\d\.\d s\] terraform: done in \d\.\d s\n", said.err)


def test_a_step_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OperatorError), Progress().step("ansible"):
        raise OperatorError("no")
    assert "done" not in capsys.readouterr().err


def test_a_step_that_is_silent_for_long_says_what_it_is_at(capsys: pytest.CaptureFixture[str]) -> None:
    said, end = "", time.monotonic() + 10
    with Progress(silence_s=0.01).step("ansible"):
        while "so far" not in said and time.monotonic() < end:
            said += capsys.readouterr().err
    assert re.search(r"\] ansible \.\.\. 0 s so far\n", said)


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True).step("ansible"):
        pass
    assert capsys.readouterr().err == ""
