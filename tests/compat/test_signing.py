"""`msign`, and the ways to say who one is and where the service is."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from tests.compat.conftest import write_keys
from tests.region.signed import Client, insecure
from tests.stock_clients import Endpoint, Shell


def fetch(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body that somebody without a key gets."""
    request = urllib.request.Request(url, body, method=method)  # noqa: S310
    trust = insecure() if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


@dataclass(frozen=True, slots=True)
class Sign:
    """Options of `msign`, how long its URL is good for, which methods it allows."""

    options: str
    lasts_s: int
    methods: tuple[str, ...] = ("GET",)


SIGNS = [
    Sign("", 3600),
    Sign("-E 1d", 86400),
    Sign("-m PUT", 3600, ("PUT",)),
    Sign("-m GET -m PUT", 3600, ("GET", "PUT")),
    Sign("-g rsa-sha256", 3600),
]


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.options)
def test_msign(sign: Sign, folder: str, manta: Shell, demo: Client) -> None:
    demo.put(f"{folder}/o", b"old")
    (url,) = manta.lines("msign", *sign.options.split(), f"{folder}/o")
    assert float(parse_qs(urlsplit(url).query)["expires"][0]) - time.time() == pytest.approx(sign.lasts_s, abs=60)
    if "PUT" in sign.methods:
        assert fetch(url, "PUT", b"new") == (204, b"")
    else:
        assert fetch(url, "PUT", b"new")[0] == 403
    assert demo.get(f"{folder}/o").body == (b"new" if "PUT" in sign.methods else b"old")
    status, body = fetch(url)
    assert (status, body) == (200, demo.get(f"{folder}/o").body) if "GET" in sign.methods else status == 403
    assert fetch(url, "DELETE")[0] == 403


def test_msign_until_a_time(folder: str, manta: Shell, demo: Client) -> None:
    demo.put(f"{folder}/o", b"body")
    until = int(time.time()) + 600
    (good,) = manta.lines("msign", "-e", str(until), f"{folder}/o")
    assert parse_qs(urlsplit(good).query)["expires"] == [str(until)]
    assert fetch(good) == (200, b"body")
    assert fetch(good.replace(str(until), str(until + 1)))[0] == 403
    (late,) = manta.lines("msign", "-e", str(int(time.time()) - 60), f"{folder}/o")
    assert fetch(late)[0] == 403


def test_msign_of_several_paths(folder: str, manta: Shell, demo: Client) -> None:
    for name in ("a", "b"):
        demo.put(f"{folder}/{name}", name.encode())
    urls = manta.lines("msign", f"{folder}/a", f"{folder}/b")
    assert sorted(fetch(url) for url in urls) == [(200, b"a"), (200, b"b")]


def fingerprints(endpoint: Endpoint) -> dict[str, str]:
    """The demo key's fingerprint in each form that a client knows."""
    key = serialization.load_pem_private_key(endpoint.private_pem, None).public_key()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    blob = base64.b64decode(line.split()[1])
    md5 = hashlib.md5(blob).hexdigest()  # noqa: S324
    md5 = ":".join(md5[i : i + 2] for i in range(0, 32, 2))
    sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return {"hex": md5, "MD5:": f"MD5:{md5}", "SHA256:": f"SHA256:{sha256}"}


@pytest.mark.parametrize("form", ["MD5:", "SHA256:"])
def test_every_form_of_a_keys_fingerprint(form: str, manta: Shell, endpoint: Endpoint) -> None:
    assert "stor/" in manta("mls", "~~", variables={"MANTA_KEY_ID": fingerprints(endpoint)[form]}).stdout.splitlines()


def test_options_in_place_of_the_environment(manta: Shell, endpoint: Endpoint) -> None:
    said = {name: value for name, value in manta.environment.items() if not name.startswith("MANTA_")}
    url = endpoint.environment["MANTA_URL"]
    for form in (url, url.removeprefix("https://")):
        assert "stor/" in Shell(said).lines(
            "mls", "-u", form, "-a", "demo", "-k", fingerprints(endpoint)["hex"], "/demo"
        )


@pytest.mark.parametrize("option", ["--user", "--subuser", "MANTA_SUBUSER"])
def test_a_sub_user(option: str, sub_user: str, folder: str, manta: Shell, demo: Client) -> None:
    """Without a role it may read what is public, and nothing else."""
    public, own = f"/demo/public/{uuid.uuid4()}", f"{folder}/own"
    assert (demo.put(public, b"for all").status, demo.put(own, b"ours").status) == (204, 204)
    variables = {option: sub_user} if option.isupper() else {}
    words = [] if option.isupper() else [f"{option}={sub_user}"]
    said = manta("mget", "-q", *words, public, variables=variables)
    refused = manta("mget", "-q", *words, own, variables=variables)
    demo.request("DELETE", public)
    assert (said.returncode, said.stdout) == (0, "for all"), said
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "AuthorizationFailed" in refused.stderr


def test_a_sub_user_that_is_none(manta: Shell) -> None:
    assert manta("mls", "--user=nobody", "~~").returncode == 1


def test_a_sub_user_signs_urls(sub_user: str, folder: str, manta: Shell, demo: Client) -> None:
    demo.put(f"{folder}/o", b"ours")
    (url,) = manta.lines("msign", "--user", sub_user, f"{folder}/o")
    assert parse_qs(urlsplit(url).query)["keyId"][0].startswith(f"/demo/{sub_user}/keys/")
    assert fetch(url)[0] == 403


def test_msign_with_a_key_in_a_file(
    folder: str, manta: Shell, demo: Client, endpoint: Endpoint, tmp_path: Path
) -> None:
    demo.put(f"{folder}/o", b"body")
    key = tmp_path / "key.pem"
    key.write_bytes(endpoint.private_pem)
    (url,) = manta.lines("msign", "-f", str(key), f"{folder}/o", stdin=b"")
    assert fetch(url) == (200, b"body")


KEY_FORMS = {"PEM": [], "OpenSSH": ["-p", "-q", "-P", "", "-N", ""]}
"""how `ssh-keygen` is told to rewrite a key"""


@pytest.mark.parametrize("form", KEY_FORMS)
def test_a_key_in_the_home_instead_of_an_agent(form: str, manta: Shell, endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    write_keys(tmp_path / ".ssh", endpoint.private_pem)
    if KEY_FORMS[form]:
        subprocess.run(["ssh-keygen", *KEY_FORMS[form], "-f", str(tmp_path / ".ssh/id_rsa")], check=True, timeout=60)
    said = {name: value for name, value in manta.environment.items() if name != "SSH_AUTH_SOCK"}
    assert "stor/" in Shell({**said, "HOME": str(tmp_path)}).lines("mls", "~~")


def test_no_escapes_where_the_caller_has_made_them(folder: str, manta: Shell, demo: Client) -> None:
    demo.put(f"{folder}/a b", b"body")
    assert manta("mget", "-q", f"{folder}/a%20b").returncode == 1
    assert manta("mget", "-q", f"{folder}/a%20b", variables={"MANTA_SKIP_URLENCODE": "1"}).stdout == "body"


@pytest.mark.parametrize(
    "words", ["mls -v @", "mls --verbose @", "mget -v @/o", "mfind -v @", "mmd5 -v @/o", "mrm -v @/o"]
)
def test_what_was_asked_and_answered_is_told(words: str, folder: str, manta: Shell, demo: Client) -> None:
    """`-v`, and LOG_LEVEL: an object of JSON a line; standard output stays as it is."""
    demo.put(f"{folder}/o", b"body\n")
    name, *line = words.replace("@", folder).split()
    said = manta(name, *line)
    assert said.returncode == 0, said
    logged = [json.loads(text) for text in said.stderr.splitlines() if text.startswith("{")]
    assert {entry["name"] for entry in logged} == {name}
    assert "trace" not in said.stdout
    if name == "mls":
        assert said.stdout == "o\n"
        assert '"msg":"get: done"' in manta("mls", folder, variables={"LOG_LEVEL": "trace"}).stderr


def test_one_connection_at_a_time(folder: str, manta: Shell, demo: Client) -> None:
    for name in "abc":
        demo.put(f"{folder}/{name}", name.encode())
    paths = [f"{folder}/{name}" for name in "abc"]
    assert len(manta("mmd5", *paths, variables={"MANTA_MAX_SOCKETS": "1"}).stdout.splitlines()) == 3


def test_no_key_reads_what_is_public(manta: Shell, demo: Client) -> None:
    name = f"/demo/public/{uuid.uuid4()}"
    assert demo.put(name, b"for all").status == 204
    said = manta("mget", "-q", name, variables={"MANTA_NO_AUTH": "true"})
    demo.request("DELETE", name)
    assert (said.returncode, said.stdout) == (0, "for all"), said
    refused = manta("mls", "/demo/stor", variables={"MANTA_NO_AUTH": "true"})
    assert refused.returncode == 1
    assert "Authorization" in refused.stderr


def test_a_certificate_that_nobody_vouches_for(manta: Shell) -> None:
    said = {name: value for name, value in manta.environment.items() if name != "NODE_EXTRA_CA_CERTS"}
    assert Shell(said)("mls", "~~").returncode == 1
    assert "stor/" in Shell(said).lines("mls", "-i", "~~")
    assert "stor/" in Shell(said)("mls", "~~", variables={"MANTA_TLS_INSECURE": "1"}).stdout.splitlines()
