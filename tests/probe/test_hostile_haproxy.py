"""Hostile requests through the image's HAProxy with the role's own configuration: it and the webapi see the same requests, or none."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from tests import hostile
from tests.contract.webapi.local import LocalRegion
from tests.probe.machine import INSIDE, Process, folder, free_port, until, user_id
from tests.probe.test_haproxy_config import rendered
from tests.region.signed import Client, insecure

pytestmark = pytest.mark.probe


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegion]:
    made = LocalRegion(tmp_path_factory.mktemp("region"))
    made.start()
    made.add_account("ann")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ann(region: LocalRegion) -> Client:
    """Past the loadbalancer."""
    client = region.client("ann")
    assert client.put("/ann/stor/o", b"x").status == 204
    return client


@pytest.fixture(scope="module")
def port(region: LocalRegion) -> Iterator[int]:
    """Where HAProxy listens for TLS."""
    with folder() as work:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-keyout", work / "key.pem", "-out", work / "certificate.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        pem = (work / "certificate.pem").read_text() + (work / "key.pem").read_text()
        (work / "loadbalancer.pem").write_text(pem)
        listens = free_port()
        (work / "haproxy.cfg").write_text(configuration(listens, region.port))
        haproxy = Process(work, user_id("root"), ["haproxy", "-db", "-f", str(INSIDE / "haproxy.cfg")])
        try:
            until("HAProxy to listen", lambda: listening(listens), 10)
            yield listens
        finally:
            haproxy.kill()


def configuration(listens: int, webapi: int) -> str:
    """The role's, but for addresses: no names are resolved, and nothing is checked beforehand."""
    text = rendered().replace("/etc/mobula/secrets", str(INSIDE)).replace("bind :443", f"bind 127.0.0.1:{listens}")
    text = text.replace("    bind :80\n", "").replace("    option httpchk GET /ping\n", "")
    text = re.sub(r"    server-template .*\n", f"    server webapi 127.0.0.1:{webapi}\n", text)
    text = re.sub(r"resolvers names\n(    .*\n)+", "", text)
    return re.sub(r"frontend state\n(    .*\n)+", "", text).replace("default-server check", "default-server no-check")


def listening(at: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", at)) == 0


def connect(at: int) -> ssl.SSLSocket:
    return insecure().wrap_socket(socket.create_connection(("127.0.0.1", at), 10), server_hostname="localhost")


@pytest.mark.parametrize("row", hostile.TABLE, ids=lambda row: row.name)
def test_a_hostile_request_gets_its_answer_and_is_one_request_for_both(
    row: hostile.Hostile, region: LocalRegion, ann: Client, port: int
) -> None:
    asked = len(region.asked)
    with connect(port) as connection:
        data = hostile.filled(row, "/ann/stor", ann.authorization())
        found = hostile.answers(connection, data, hang_up=row.hang_up)
    assert row.allows(found, row.through), found
    assert len(region.asked) - asked <= max(1, len(row.through)), region.asked[asked:]
    with connect(port) as connection:
        well = f"GET /ann/stor/o HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines(ann)}\r\n\r\n"
        assert hostile.answers(connection, well.encode(), hang_up=False) == (200,)


def lines(client: Client) -> str:
    return "\r\n".join(f"{name}: {value}" for name, value in client.authorization().items())


def test_a_webapi_that_dies_with_a_request_is_503_and_says_when_to_come_again(
    region: LocalRegion, ann: Client, port: int
) -> None:
    """And not 502: nobody knows what came of it, as of any other 503."""
    request = f"GET /ann/stor/o HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines(ann)}\r\n\r\n"
    with region.dying(), connect(port) as connection:
        connection.sendall(request.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
    assert (answer.status, answer.getheader("Retry-After"), body["code"]) == (503, "5", "ServiceUnavailable")
    assert answer.getheader("Content-Type") == "application/json"
