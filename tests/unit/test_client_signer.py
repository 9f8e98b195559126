"""Keys: in files of every form, in an agent, found by every form of fingerprint; and what they sign, verified by the server's code."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from mobula.client import MobulaError, Settings, agent, private_key
from mobula.client.session import Session
from mobula.client.signer import find_signer
from mobula.core import signature
from mobula.core.canonical import canonical_text
from mobula.core.keys import PublicKey, load_public_key

KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
PEM, OPENSSH = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.OpenSSH
PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL


def write(path: Path, kind: str, form: serialization.PrivateFormat, password: bytes | None = None) -> PublicKey:
    """The key of that kind as a file, its public half beside it."""
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = KEYS[kind]
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, hidden))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    Path(f"{path}.pub").write_bytes(public + b" me@here\n")
    return load_public_key(public.decode())


def settings(home: Path, key_id: str, agent_socket: str | None = None) -> Settings:
    return Settings("https://h", "demo", key_id, home=str(home), agent_socket=agent_socket)


def verified(found: Settings, public: PublicKey) -> bool:
    """What the settings' key signs is right for the server."""
    signer = find_signer(found)
    assert signer is not None
    parsed = signature.parse(signer.authorization("Mon, 01 Jan 2026 00:00:00 GMT"))
    assert signature.parse_key_id(parsed.key_id).fingerprint == public.fingerprint_md5
    return signature.verify(parsed, b"date: Mon, 01 Jan 2026 00:00:00 GMT", public.pem)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", [PEM, OPENSSH])
def test_a_key_in_a_file_signs(home: Path, kind: str, form: serialization.PrivateFormat) -> None:
    public = write(home / ".ssh" / "any.name", kind, form)
    for key_id in (
        public.fingerprint_md5,
        f"MD5:{public.fingerprint_md5}",
        public.fingerprint_sha256,
        str(home / ".ssh/any.name"),
    ):
        assert verified(settings(home, key_id), public)


def test_the_right_one_of_several_is_taken(home: Path) -> None:
    write(home / ".ssh" / "id_rsa", "rsa", PEM)
    public = write(home / ".ssh" / "id_ed25519", "ed25519", OPENSSH)
    (home / ".ssh" / "id_ed25519.pub").unlink()  # a lone id_* is looked into
    (home / ".ssh" / "id_junk").write_bytes(b"\xff" * 100)
    (home / ".ssh" / "junk.pub").write_bytes(b"\xff ??")
    (home / ".ssh" / "junk").write_bytes(b"")
    assert verified(settings(home, public.fingerprint_sha256), public)


def test_a_subuser_is_named_in_the_key_id(home: Path) -> None:
    public = write(home / ".ssh" / "id_rsa", "rsa", PEM)
    signer = find_signer(Settings("https://h", "demo", public.fingerprint_md5, user="sub", home=str(home)))
    assert signer is not None
    assert signer.key_id == f"/demo/sub/keys/{public.fingerprint_md5}"


def test_what_can_not_be_used_is_said_in_a_sentence(home: Path) -> None:
    public = write(home / ".ssh" / "locked", "ed25519", OPENSSH, b"secret")
    with pytest.raises(MobulaError, match="ssh-add"):
        find_signer(settings(home, public.fingerprint_md5))
    with pytest.raises(MobulaError, match="no ssh-agent"):
        find_signer(settings(home, "00" * 16))
    with pytest.raises(MobulaError, match="neither a fingerprint"):
        find_signer(settings(home, "SHA256:wrong"))
    with pytest.raises(MobulaError, match=r"No such file|not in"):
        find_signer(settings(home, "00" * 16, "/nowhere/agent"))
    with pytest.raises(MobulaError, match="MANTA_KEY_ID"):
        find_signer(settings(home, ""))
    old = dsa.generate_private_key(2048)
    (home / "dsa").write_bytes(old.private_bytes(serialization.Encoding.PEM, PEM, serialization.NoEncryption()))
    with pytest.raises(MobulaError, match="use RSA"):
        find_signer(settings(home, str(home / "dsa")))
    with pytest.raises(MobulaError, match=r"can be read|directory"):
        find_signer(settings(home, str(home)))
    assert find_signer(Settings("https://h", "demo", None)) is None


@pytest.mark.parametrize("form", [PEM, PKCS1, OPENSSH])
@pytest.mark.parametrize("bits", [1024, 2047, 3072])
def test_an_rsa_key_is_read_as_the_library_reads_it(form: serialization.PrivateFormat, bits: int) -> None:
    made = rsa.generate_private_key(65537, bits)
    data = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    found = private_key.read_rsa(data)
    assert found == made.private_numbers()
    known = private_key._parse_any(data, "key")
    assert private_key.parse(data, "key").blob == known.blob
    assert private_key.parse(data, "key").sign(b"text") == known.sign(b"text")


@pytest.mark.parametrize("form", [PEM, PKCS1, OPENSSH])
@given(at=st.integers(0, 4000), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_rsa_key_is_refused_or_read(form: serialization.PrivateFormat, at: int, byte: int, cut: bool) -> None:
    data = KEYS["rsa"].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    first, *lines, last = data.strip().split(b"\n")
    raw = bytearray(base64.b64decode(b"".join(lines)))
    at %= len(raw)
    raw[at:] = b"" if cut else bytes([byte]) + raw[at + 1 :]
    with contextlib.suppress(private_key.UnusableKey):
        private_key.parse(b"\n".join([first, base64.b64encode(raw), last]), "damaged")


@given(st.binary(max_size=300))
def test_a_file_of_junk_is_refused(data: bytes) -> None:
    with pytest.raises(private_key.UnusableKey):
        private_key.parse(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data, "junk")


@pytest.fixture(scope="module")
def agent_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    folder = tmp_path_factory.mktemp("agent")
    path = str(folder / "s")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        for kind in KEYS:
            write(folder / kind, kind, OPENSSH)
            environment = {**os.environ, "SSH_AUTH_SOCK": path}
            while not Path(path).exists():
                assert process.poll() is None
            subprocess.run(["ssh-add", "-q", str(folder / kind)], env=environment, check=True, timeout=20)
        yield path
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_in_an_agent_signs(home: Path, agent_socket: str, kind: str) -> None:
    public = write(home / "elsewhere", kind, PEM)
    assert verified(settings(home, public.fingerprint_md5, agent_socket), public)
    assert verified(settings(home, public.fingerprint_sha256, agent_socket), public)


def test_a_key_that_the_agent_has_not_is_looked_for_in_files(home: Path, agent_socket: str) -> None:
    with pytest.raises(MobulaError, match="not in the ssh-agent"):
        find_signer(settings(home, "00" * 16, agent_socket))


@given(st.binary(max_size=200))
def test_an_agents_junk_is_an_agent_error_at_worst(data: bytes) -> None:
    with contextlib.suppress(agent.AgentError):
        agent.read_identities(data)
    with contextlib.suppress(agent.AgentError):
        agent.read_signature(data)
    agent.key_type(data)


def test_a_signed_url_is_what_the_server_will_check(home: Path) -> None:
    public = write(home / ".ssh" / "id_rsa", "rsa", PEM)
    found = Settings("https://h:444", "demo", public.fingerprint_md5, home=str(home))
    url = urlsplit(Session(found, find_signer(found)).sign_url("~~/stor/a b", expires_s=99, methods=["PUT", "GET"]))
    assert (url.netloc, url.path) == ("h:444", "/demo/stor/a%20b")
    query = parse_qsl(url.query)
    values = dict(query)
    assert (values["expires"], values["method"], values["algorithm"]) == ("99", "GET,PUT", "RSA-SHA256")
    parsed = signature.parse(
        f'Signature keyId="{values["keyId"]}",algorithm="{values["algorithm"]}",signature="{values["signature"]}"'
    )
    assert signature.verify(parsed, canonical_text(["GET", "PUT"], "h:444", url.path, query), public.pem)
