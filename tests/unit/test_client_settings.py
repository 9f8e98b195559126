from __future__ import annotations

import pytest

from mobula.client import MobulaError, Settings
from mobula.client.session import Session
from mobula.client.settings import from_environment
from mobula.core.canonical import canonical_text
from mobula.wire.http_failures import Address


def test_the_environment_of_the_stock_clients_is_understood() -> None:
    found = from_environment(
        {
            "MANTA_URL": "https://localhost:18443",
            "MANTA_USER": "demo",
            "MANTA_SUBUSER": "sub",
            "MANTA_KEY_ID": "SHA256:x",
            "MANTA_TLS_INSECURE": "1",
            "NODE_EXTRA_CA_CERTS": "/ca.pem",
            "SSH_AUTH_SOCK": "/agent",
            "HOME": "/home/me",
        }
    ).check()
    assert found == Settings(
        "https://localhost:18443", "demo", "SHA256:x", user="sub", tls_insecure=True, extra_ca_file="/ca.pem",
        agent_socket="/agent", home="/home/me",
    )  # fmt: skip
    assert found.address == Address("localhost", 18443)


@pytest.mark.parametrize(("value", "insecure"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_tls_insecure_is_anything_but_0(value: str, insecure: bool) -> None:
    assert from_environment({"MANTA_TLS_INSECURE": value}).tls_insecure is insecure


def test_no_auth_means_no_key() -> None:
    assert from_environment({"MANTA_NO_AUTH": "true", "MANTA_KEY_ID": "x"}).key_id is None
    assert from_environment({}).key_id == ""


@pytest.mark.parametrize("value", ["", "1", "yes", "TRUE", "true "])
def test_only_the_word_true_is_no_auth(value: str) -> None:
    assert from_environment({"MANTA_NO_AUTH": value, "MANTA_KEY_ID": "x"}).key_id == "x"


@pytest.mark.parametrize(
    ("url", "address", "secure"),
    [
        ("https://us-east.manta.example", "us-east.manta.example:443", True),
        ("us-east.manta.example", "us-east.manta.example:443", True),
        ("http://h", "h:80", False),
        ("http://[::1]:8080/", "[::1]:8080", False),
    ],
)
def test_urls(url: str, address: str, secure: bool) -> None:
    settings = Settings(url, "a", None).check()
    assert (str(settings.address), settings.secure) == (address, secure)


@pytest.mark.parametrize("url", ["", "ftp://h", "https://", "https://h:port", "https://h:99999"])
def test_a_url_that_can_not_be_used_is_named(url: str) -> None:
    with pytest.raises(MobulaError, match="MANTA_URL"):
        Settings(url, "a", None).check()


def test_an_account_must_be_named() -> None:
    with pytest.raises(MobulaError, match="MANTA_USER"):
        Settings("https://h", "", None).check()


SESSION = Session(Settings("https://h:444", "demo", None), None)


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("~~/stor", "/demo/stor"),
        ("~~", "/demo"),
        ("//demo///stor//x/", "/demo/stor/x"),
        ("/demo/stor/./a/../b", "/demo/stor/b"),
        ("/demo/stor/a b%2F(1)'!*~ü", "/demo/stor/a%20b%252F(1)'!*~%C3%BC"),
        ("/demo/stor/~~", "/demo/stor/~~"),
        ("/demo/stor/a?b#c=&+", "/demo/stor/a%3Fb%23c%3D%26%2B"),
        ("/demo/stor/..x", "/demo/stor/..x"),
    ],
)
def test_paths_as_people_write_them(path: str, encoded: str) -> None:
    assert SESSION.encoded(path) == encoded


@pytest.mark.parametrize("path", ["", "stor/x", "/", "/..", "/demo/stor/\udcff"])
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(MobulaError) as caught:
        SESSION.encoded(path)
    assert caught.value.code == "InvalidPath"
    assert "\udcff" not in str(caught.value)


def test_a_url_is_not_signed_without_a_key() -> None:
    with pytest.raises(MobulaError, match="MANTA_KEY_ID"):
        SESSION.sign_url("/demo/stor/x", expires_s=1)


def test_the_text_that_a_presigned_url_covers() -> None:
    parameters = [
        ("keyId", "/a/keys/0:1"),
        ("signature", "s"),
        ("Expires", "5"),
        ("algorithm", "RSA-SHA256"),
        ("role-tag", "x y"),
    ]
    assert canonical_text(["PUT", "GET"], "h:1", "/a/stor/x%20y", parameters) == (
        b"GET,PUT\nh:1\n/a/stor/x%20y\nalgorithm=RSA-SHA256&Expires=5&keyId=%2Fa%2Fkeys%2F0%3A1&role-tag=x%20y"
    )
