"""The frame listens on a config's `port`, else on its `status_port`: the guard must not take PostgreSQL's."""

from __future__ import annotations

from mobula.metadata.config import GuardConfig
from ops.catalog import catalog


def test_the_guard_listens_where_its_description_says_and_not_on_postgresqls_port() -> None:
    config = GuardConfig("r", "h", "a", "10.0.0.1", 1, (), ())
    assert not hasattr(config, "port")
    endpoint = catalog()["guard"].status
    assert endpoint is not None
    assert config.status_port == endpoint.port
