"""What configs of several services have to say together."""

from __future__ import annotations

import re

from mobula.metadata.config import GuardConfig
from mobula.webapi.bound import DECIDE_S
from ops.catalog import catalog
from ops.region import REPO


def test_the_guard_listens_where_its_description_says_and_not_on_postgresqls_port() -> None:
    """The frame listens on a config's `port`, else on its `status_port`."""
    config = GuardConfig("r", "h", "a", "10.0.0.1", 1, (), ())
    assert not hasattr(config, "port")
    endpoint = catalog()["guard"].status
    assert endpoint is not None
    assert config.status_port == endpoint.port


def test_a_request_is_answered_within_ten_seconds_whatever_a_loadbalancer_tries_before() -> None:
    """A server that is cut off is out after two failed checks, of which the first had begun; what it had, and what then can't connect,
    comes to another server, which decides it or says 503. It was 10.02 s once."""
    text = (REPO / "roles/loadbalancer/templates/haproxy.cfg.j2").read_text()

    def seconds(pattern: str) -> float:
        (value, unit), *_ = re.findall(pattern + r"\s+(\d+)(ms|s)\b", text)
        return int(value) * {"ms": 0.001, "s": 1.0}[unit]

    assert "fall 2 " in text
    out_s = seconds("timeout check") + seconds("fastinter") + seconds("timeout connect")
    tries_s = int(re.findall(r"retries (\d+)", text)[0]) * seconds("timeout connect")
    assert out_s + tries_s + DECIDE_S < 10
