"""A region's secrets: made once, one file each, mode 0600, and never changed by a second run.

What is missing is made, what is there is kept: a lost certificate of one host comes back without touching any other.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import secrets as random
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ops.region import Region

VALIDITY = dt.timedelta(days=3650)
PASSWORDS = ("postgres", "replicator", "rewinder")


def ensure(region: Region) -> None:
    """Make whatever secret of `region` and of its hosts does not exist yet."""
    folder = region.secrets
    (folder / "hosts").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = Authority(folder, region.zone)
    for host in region.hosts.values():
        names = (host.name, f"{host.name}.{region.zone}", region.zone)
        authority.certify(folder / "hosts" / host.name, host.name, names, (host.address,))
    authority.certify(folder / "client-mobula", "mobula", ("mobula",), ())
    authority.certify(
        folder / "loadbalancer",
        region.zone,
        (region.zone, f"*.{region.zone}", "localhost"),
        ("127.0.0.1",),
        bundle=True,
    )
    for name in PASSWORDS:
        _once(folder / f"{name}.password", lambda: random.token_urlsafe(24).encode())
    _once(folder / "capability-1.key", lambda: random.token_hex(32).encode())
    _ssh_key(folder / "ssh.key", f"operator of {region.name}")
    _ssh_key(folder / "ssh-hosts.key", f"hosts of {region.name}")
    _demo_key(folder)


def _write(path: Path, data: bytes) -> None:
    # Complete or not there at all, and never readable by others, not even for a moment.
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    new.rename(path)


def _once(path: Path, make: Callable[[], bytes]) -> None:
    if not path.exists():
        _write(path, make())


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, kind: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def _ssh_key(path: Path, comment: str) -> None:
    if not path.with_name(path.name + ".pub").exists():
        path.unlink(missing_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(argv, check=True, capture_output=True)


def _demo_key(folder: Path) -> None:
    """The demo account's key: RSA in the old PEM form, the only one that every Manta client reads."""
    if not (folder / "demo.pem").exists():
        _write(
            folder / "demo.pem",
            _pem(rsa.generate_private_key(65537, 2048), serialization.PrivateFormat.TraditionalOpenSSL),
        )
    key = serialization.load_pem_private_key((folder / "demo.pem").read_bytes(), None)
    openssh = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _once(folder / "demo.pub", lambda: openssh + b" demo\n")


class Authority:
    """The region's CA: signs certificates for hosts, the loadbalancers and the services' client identity."""

    def __init__(self, folder: Path, zone: str) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Mobula region {zone}")])
        if not (folder / "ca.pem").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write(folder / "ca.key", _pem(key, serialization.PrivateFormat.PKCS8))
            certificate = (
                _builder(name, key.public_key(), name)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(_usage(sign_certificates=True), critical=True)
                .sign(key, hashes.SHA256())
            )
            _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
        loaded = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)  # noqa: S101
        self._key = loaded
        self._certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    def certify(
        self, stem: Path, common_name: str, dns_names: Iterable[str], addresses: Iterable[str], *, bundle: bool = False
    ) -> None:
        """Write ``<stem>.pem`` and ``<stem>.key`` (with `bundle`: both in ``<stem>.pem``, as HAProxy wants it)."""
        pem, key_file = stem.with_name(stem.name + ".pem"), stem.with_name(stem.name + ".key")
        if pem.exists() and (bundle or key_file.exists()):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(subject, key.public_key(), self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(_usage(sign_certificates=False), critical=True)
            # Python >= 3.13 verifies strictly: a certificate must name its issuer's key.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        private = _pem(key, serialization.PrivateFormat.PKCS8)
        if bundle:
            _write(pem, certificate + private)
        else:
            _write(key_file, private)
            _write(pem, certificate)


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + VALIDITY)
    )  # fmt: skip


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=sign_certificates, crl_sign=sign_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
