"""The image's HAProxy takes what the role renders: `up` would hand a mistake to every loadbalancer at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml

from tests.probe.machine import INSIDE, Process, folder

pytestmark = pytest.mark.probe
ROLE = Path(__file__).parents[2] / "roles/loadbalancer"
ADDRESSES = ["127.0.0.1", "127.0.0.2"]


@pytest.fixture
def work() -> Iterator[Path]:
    with folder() as found:
        yield found


def rendered() -> str:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    template = (ROLE / "templates/haproxy.cfg.j2").read_text()
    values = {"mobula_nameservers": ADDRESSES, "mobula_address": "127.0.0.1", "mobula_zone": "lab.mobula.test"}
    # As Ansible renders: an unknown name is an error, a block's line leaves nothing.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 (no HTML)
    return environment.from_string(template).render(**defaults, **values)


def test_haproxy_takes_the_configuration(work: Path) -> None:
    key, certificate = work / "key.pem", work / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=lab.mobula.test", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    (work / "loadbalancer.pem").write_text(certificate.read_text() + key.read_text())
    (work / "haproxy.cfg").write_text(rendered().replace("/etc/mobula/secrets", str(INSIDE)))
    check = Process(work, 0, ["haproxy", "-c", "-f", str(INSIDE / "haproxy.cfg")])
    try:
        code = check.wait()
    finally:
        check.kill()
    said = (work / "log").read_text()
    assert code == 0, said
    assert "WARNING" not in said
