"""Section 3 of the HTTP contract: authentication by HTTP Signature. Its table of failures, and what clients really send."""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.contract.webapi.local import LocalRegion
from tests.region.signed import Answer, Client

RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 (quick; the size is not what is tested)
CURVES = {256: ec.generate_private_key(ec.SECP256R1()), 384: ec.generate_private_key(ec.SECP384R1())}
HASHES = {"1": hashes.SHA1(), "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}  # noqa: S303


def signed(
    client: Client,
    path: str,
    *,
    key_id: str | None = None,
    algorithm: str = "ed25519-sha512",
    date: str | None = None,
    text: str | None = None,
    form: str = 'Signature keyId="{key_id}",algorithm="{algorithm}",headers="date",signature="{signature}"',
    extra: dict[str, str] | None = None,
) -> Answer:
    """A GET with a hand-made Authorization header."""
    date = email.utils.formatdate(usegmt=True) if date is None else date
    _, signature = client.sign_text((f"date: {date}" if text is None else text).encode())
    value = form.format(key_id=key_id or client.key_id, algorithm=algorithm, signature=signature)
    return client.request("GET", path, headers={"Date": date, "Authorization": value, **(extra or {})}, signed=False)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


@pytest.mark.parametrize(
    "form",
    [
        'Signature keyId="{key_id}",algorithm="{algorithm}",signature="{signature}"',
        'Signature keyId="{key_id}", algorithm="{algorithm}", headers="date", signature="{signature}"',
        'signature keyId="{key_id}",algorithm="ED25519-SHA512",headers="Date",signature="{signature}"',
    ],
)
def test_s3_headers_are_optional_and_spaces_tolerated(ann: Client, stor: str, form: str) -> None:
    assert signed(ann, stor, form=form).status == 200


def test_s3_pseudo_headers_are_signed_as_sent(ann: Client, stor: str) -> None:
    date = email.utils.formatdate(usegmt=True)
    start = 'Signature keyId="{key_id}",algorithm="{algorithm}",headers="'
    target = f"date: {date}\n(request-target): get {stor}?limit=3"
    form = start + 'date (request-target)",signature="{signature}"'
    assert signed(ann, f"{stor}?limit=3", date=date, text=target, form=form).status == 200
    assert code_of(signed(ann, f"{stor}?limit=4", date=date, text=target, form=form)) == (403, "InvalidSignature")
    line = f"GET {stor} HTTP/1.1\ndate: {date}"
    form = start + 'request-line date",signature="{signature}"'
    assert signed(ann, stor, date=date, text=line, form=form).status == 200


def test_s3_x_date_is_signed_when_it_is_there(ann: Client, stor: str) -> None:
    date = email.utils.formatdate(usegmt=True)
    form = 'Signature keyId="{key_id}",algorithm="{algorithm}",signature="{signature}"'
    assert signed(ann, stor, text=f"x-date: {date}", form=form, extra={"x-date": date}).status == 200


@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S UTC", "%a, %d %b %Y %H:%M:%S +0000"]
)
def test_s3_dates_are_read_leniently(ann: Client, stor: str, form: str) -> None:
    assert signed(ann, stor, date=dt.datetime.now(dt.UTC).strftime(form)).status == 200


def test_s3_a_local_date_with_a_zone_name_counts(ann: Client, stor: str) -> None:
    eastern = dt.datetime.now(dt.timezone(dt.timedelta(hours=-5)))
    assert signed(ann, stor, date=eastern.strftime("%a, %d %b %Y %H:%M:%S EST")).status == 200


def test_s3_each_algorithm_of_a_key_verifies(local: LocalRegion, login: str, stor: str) -> None:
    for key, names in (
        (RSA, ["rsa-sha1", "rsa-sha256", "rsa-sha384", "rsa-sha512"]),
        *((k, [f"ecdsa-sha{n}"]) for n, k in CURVES.items()),
    ):
        client = client_with(local, login, key)
        for name in names:
            answer = with_algorithm(client, key, stor, name)
            assert answer.status == 200, (name, answer)
        client.close()


def client_with(local: LocalRegion, login: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Client:
    """Requests of an account that gets this key."""
    kind = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    local.add_key(login, pem)
    return Client(local.port, login, pem, tls=False)


def with_algorithm(client: Client, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, path: str, name: str) -> Answer:
    date = email.utils.formatdate(usegmt=True)
    digest = HASHES[name.partition("sha")[2]]
    text = f"date: {date}".encode()
    signature = (
        key.sign(text, padding.PKCS1v15(), digest)
        if isinstance(key, rsa.RSAPrivateKey)
        else key.sign(text, ec.ECDSA(digest))
    )
    value = f'Signature keyId="{client.key_id}",algorithm="{name}",signature="{base64.b64encode(signature).decode()}"'
    return client.request("GET", path, headers={"Date": date, "Authorization": value}, signed=False)


def test_s3_a_key_of_another_family_than_the_algorithms_verifies_nothing(ann: Client, stor: str) -> None:
    assert code_of(signed(ann, stor, algorithm="rsa-sha256")) == (403, "InvalidSignature")
    assert code_of(signed(ann, stor, algorithm="dsa-sha1")) == (403, "InvalidSignature")


@pytest.mark.parametrize(
    "form",
    [
        "Signature",
        "Signature x",
        'Signature keyId="{key_id}",algorithm="{algorithm}"',
        'Signature algorithm="{algorithm}",signature="{signature}"',
        'Signature keyId="{key_id}",signature="{signature}"',
        'Signature keyId="{key_id}",algorithm="{algorithm}",signature="not base64!"',
        'Signature keyId="{key_id}",algorithm="{algorithm}",headers="date x-missing",signature="{signature}"',
        'Signature keyId="{key_id}",algorithm="{algorithm}",headers="host",signature="{signature}"',
    ],
)
def test_s3_what_cannot_be_parsed_is_invalid_header(ann: Client, stor: str, form: str) -> None:
    answer = signed(ann, stor, form=form)
    assert code_of(answer) == (400, "InvalidHeader")
    assert answer.json()["message"].startswith("Invalid Signature Authorization header")


def test_s3_a_bad_date_is_invalid_header(ann: Client, stor: str) -> None:
    assert code_of(signed(ann, stor, date="yesterday")) == (400, "InvalidHeader")


def test_s3_a_date_in_the_future_is_invalid_header_and_an_old_one_expired(ann: Client, stor: str) -> None:
    assert code_of(signed(ann, stor, date=email.utils.formatdate(time.time() + 400, usegmt=True))) == (
        400,
        "InvalidHeader",
    )
    old = email.utils.formatdate(time.time() - 400, usegmt=True)
    assert code_of(signed(ann, stor, date=old)) == (400, "RequestExpired")
    unsigned = ann.request("GET", "/nobody/stor", headers={"Date": old}, signed=False)
    assert code_of(unsigned) == (400, "RequestExpired")


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({"form": "Basic YTpi"}, (403, "AuthorizationSchemeNotAllowed")),
        ({"algorithm": "hmac-sha256"}, (401, "InvalidAlgorithm")),
        ({"key_id": "ann"}, (403, "InvalidKeyId")),
        ({"key_id": "/ann/key/aa:bb"}, (403, "InvalidKeyId")),
        ({"key_id": "/nobody/keys/aa:bb"}, (403, "AccountDoesNotExist")),
        ({"date": None, "text": "something else"}, (403, "InvalidSignature")),
    ],
)
def test_s3_table_of_failures(ann: Client, stor: str, properties: dict[str, str], wanted: tuple[int, str]) -> None:
    assert code_of(signed(ann, stor, **properties)) == wanted  # type: ignore[arg-type]


def test_s3_an_unknown_key_and_an_unknown_user_are_named(ann: Client, login: str, stor: str) -> None:
    assert code_of(signed(ann, stor, key_id=f"/{login}/keys/aa:bb")) == (403, "KeyDoesNotExist")
    assert code_of(signed(ann, stor, key_id=f"/{login}/nobody/keys/aa:bb")) == (403, "UserDoesNotExist")


def test_s3_an_account_that_is_not_approved_is_blocked_unless_it_operates(local: LocalRegion) -> None:
    local.add_account("blocked", approved=False)
    local.add_account("root", approved=False, operator=True)
    assert code_of(local.client("blocked").get("/blocked/stor")) == (403, "AccountBlocked")
    assert local.client("root").get("/root/stor").status == 200


def test_s3_an_unknown_login_in_the_url_is_403(ann: Client) -> None:
    assert code_of(ann.get("/nobody/stor")) == (403, "AccountDoesNotExist")
    assert code_of(ann.request("GET", "/nobody/public/x", signed=False)) == (403, "AccountDoesNotExist")


def test_s3_anonymous_is_refused_before_the_target_is_looked_at(ann: Client, stor: str) -> None:
    answer = ann.request("GET", f"{stor}/missing", signed=False)
    assert code_of(answer) == (403, "AuthorizationFailed")
    assert answer.json()["message"] == f"anonymous is not allowed to access {stor}/missing"


def test_s3_authentication_is_reported_before_the_path(ann: Client, login: str) -> None:
    assert code_of(signed(ann, f"/{login}/stor/%", text="wrong")) == (403, "InvalidSignature")


def test_s3_a_fingerprint_may_have_the_prefix_md5(ann: Client, login: str, stor: str) -> None:
    fingerprint = ann.key_id.rpartition("/")[2]
    assert signed(ann, stor, key_id=f"/{login}/keys/MD5:{fingerprint}").status == 200
    assert signed(ann, stor, key_id=f"/{login}/keys/{fingerprint.replace(':', '%3A')}").status == 200


def test_s3_a_sub_users_key_is_its_own(local: LocalRegion, ann: Client, login: str, stor: str) -> None:
    """Section 13: without a role a sub-user may read what is public, and nothing else."""
    local.add_user(login, "sub")
    sub = local.client(login, "sub")
    assert f"/{login}/sub/keys/" in sub.key_id
    ann.put(f"/{login}/public/o", b"x")
    assert sub.get(f"/{login}/public/o").body == b"x"
    refused = sub.get(stor)
    assert code_of(refused) == (403, "AuthorizationFailed")
    assert refused.json()["message"] == f"{login}/sub is not allowed to access {stor}"
    stolen = signed(sub, stor, key_id=sub.key_id.replace("/sub", ""))
    assert code_of(stolen) == (403, "KeyDoesNotExist")


def test_s3_accounts_are_strangers_to_each_other_and_operators_are_not(
    ann: Client, bob: Client, operator: Client, login: str, stor: str
) -> None:
    ann.put(f"{stor}/o", b"x")
    for refused in (
        bob.get(f"{stor}/o"),
        bob.put(f"{stor}/o", b"y"),
        bob.request("DELETE", f"{stor}/o"),
        bob.get(stor),
    ):
        assert code_of(refused) == (403, "AuthorizationFailed")
    assert operator.get(f"{stor}/o").body == b"x"
    assert operator.put(f"{stor}/p", b"x").status == 204
    assert bob.put(f"/{login}/public/o", b"x").status == 403


def test_s3_everybody_reads_public_with_and_without_a_key(ann: Client, bob: Client, login: str) -> None:
    ann.put(f"/{login}/public/o", b"x")
    assert bob.get(f"/{login}/public/o").body == b"x"
    assert ann.request("GET", f"/{login}/public/o", signed=False).body == b"x"
    assert ann.request("HEAD", f"/{login}/public/o", signed=False).headers["content-length"] == "1"
    assert [e["name"] for e in ann.request("GET", f"/{login}/public", signed=False).lines()] == ["o"]
    missing = ann.request("GET", f"/{login}/public/missing", signed=False)
    assert code_of(missing) == (404, "ResourceNotFound")
    assert code_of(ann.request("DELETE", f"/{login}/public/o", signed=False)) == (403, "AuthorizationFailed")


def test_s3_without_anybody_to_ask_for_accounts_it_is_503(own_region: Callable[..., LocalRegion]) -> None:
    region = own_region()
    client = region.client("ann")
    region.accounts.away = True
    answer = client.get("/ann/stor")
    assert code_of(answer) == (503, "ServiceUnavailable")
    assert answer.headers["retry-after"]
