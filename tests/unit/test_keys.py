from __future__ import annotations

import base64
import contextlib
import functools

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.keys import InvalidKey, load_public_key

# ssh-keygen -t ed25519; ssh-keygen -l -E md5 (and sha256)
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice at home"

PublicKeys = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | dsa.DSAPublicKey
)


def pem(key: PublicKeys) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def line(key: PublicKeys) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


@functools.cache
def key_of(kind: str) -> PublicKeys:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048).public_key()
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate().public_key()
        case "ed448":
            return ed448.Ed448PrivateKey.generate().public_key()
        case _:
            curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1()}
            return ec.generate_private_key(curves[kind]).public_key()


def test_a_key_is_known_by_the_fingerprints_that_ssh_keygen_shows() -> None:
    """Section 3: MD5, 16 colon-separated lower-case hex pairs, no prefix."""
    found = load_public_key(LINE)
    assert found.fingerprint_md5 == "0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba"
    assert found.fingerprint_sha256 == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"
    assert (found.algorithm, found.comment) == ("ed25519", "alice at home")


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("rsa", "rsa"), ("ed25519", "ed25519"), ("p256", "ecdsa"), ("p384", "ecdsa"), ("p521", "ecdsa")],
)
def test_the_same_key_is_read_from_a_line_and_from_pem(kind: str, algorithm: str) -> None:
    key = key_of(kind)
    found = load_public_key(f"\n {line(key)}\r\n")
    assert found == load_public_key(pem(key)) == load_public_key(found.pem)
    assert found.algorithm == algorithm


@pytest.mark.parametrize("kind", ["ed448", "k256"])
def test_a_key_of_a_kind_that_clients_cannot_use_is_refused_by_name(kind: str) -> None:
    with pytest.raises(InvalidKey, match=r"(Ed448PublicKey|secp256k1) is not supported; use"):
        load_public_key(pem(key_of(kind)))


def test_a_private_key_is_refused_and_not_repeated() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"
    with pytest.raises(InvalidKey, match=r"private key; give the public one") as refused:
        load_public_key(text)
    assert "c2VjcmV0" not in str(refused.value)


def test_a_small_rsa_key_is_refused() -> None:
    with pytest.raises(InvalidKey):
        load_public_key(
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABI0Vn"
        )


@pytest.mark.parametrize(
    "text",
    [
        "", "ssh-rsa", "ssh-rsa AAAA", "ssh-rsa !!!!", LINE[:60], LINE.replace("ssh-ed25519", "ssh-rsa", 1),
        f'command="x" {LINE}', "-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "x" * 20_000,
    ],
)  # fmt: skip
def test_junk_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidKey, match=r"^read a public key: .+; (give|at most) .+"):
        load_public_key(text)


_BASE64 = st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode())


@given(
    st.text(max_size=200)
    | st.builds(
        "{} {} {}".format,
        st.sampled_from(["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-dss"]),
        _BASE64,
        st.text(),
    )
    | st.builds("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----".format, _BASE64)
)
def test_whatever_comes_nothing_but_the_documented_error_is_raised(text: str) -> None:
    with contextlib.suppress(InvalidKey):
        load_public_key(text)
