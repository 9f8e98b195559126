"""From a request as an operation words it to what goes on the wire: encoded path, query, headers, signature. Pure but for the key."""

from __future__ import annotations

import datetime as dt
import posixpath
import uuid
from collections.abc import Sequence

from mobula.client.errors import MobulaError
from mobula.client.model import Request
from mobula.client.settings import Settings
from mobula.client.signer import Signer
from mobula.core.canonical import canonical_query, canonical_text, encode_value
from mobula.core.dates import http_date
from mobula.core.paths import encode

USER_AGENT = "mobula-client/0.1"


class Session:
    """In whose name requests go out, and how."""

    def __init__(self, settings: Settings, signer: Signer | None) -> None:
        self.settings = settings
        self._signer = signer

    def path(self, text: str) -> str:
        """A path in its normal form: ``~~`` is the account, runs of slashes are one, ``.`` and ``..`` are resolved.

        Raises:
            MobulaError: InvalidPath.
        """
        own = f"/{self.settings.account}"
        if text == "~~" or text.startswith("~~/"):
            text = own + text[2:]
        if not text.startswith("/"):
            raise MobulaError(
                "InvalidPath", f"use the path {text!r}: it must begin with a slash, as in {own}/stor/{text}"
            )
        normal = posixpath.normpath(text)
        return "/" + normal.lstrip("/")

    def target(self, request: Request) -> str:
        """Path and query as they go on the wire. Raises MobulaError (InvalidPath)."""
        path = self.encoded(request.path)
        return f"{path}?{canonical_query(request.query)}" if request.query else path

    def encoded(self, text: str) -> str:
        """A path, percent-encoded. Raises MobulaError (InvalidPath)."""
        names = [name for name in self.path(text).split("/") if name]
        if not names:
            raise MobulaError(
                "InvalidPath", f"use the path {text!r}: it names no account, as /{self.settings.account} does"
            )
        try:
            return encode(names)
        except UnicodeEncodeError as error:
            raise MobulaError("InvalidPath", f"use the path {text!a}: it is not UTF-8") from error

    def headers(self, request: Request, now: dt.datetime) -> list[tuple[str, str]]:
        """All headers of a request sent now. Raises MobulaError (InvalidSetting): the key can't sign."""
        date = http_date(now)
        fields = [("Date", date), ("x-request-id", str(uuid.uuid4())), ("User-Agent", USER_AGENT)]
        if self._signer is not None:
            fields.append(("Authorization", self._signer.authorization(date)))
        if self.settings.role:
            fields.append(("Role", self.settings.role))
        return [*fields, *request.headers]

    def sign_url(
        self, path: str, *, expires_s: int, methods: Sequence[str] = ("GET",), parameters: Sequence[tuple[str, str]] = ()
    ) -> str:  # fmt: skip
        """A URL with which anybody may do `methods` on `path` until `expires_s`, seconds since the epoch.

        Raises:
            MobulaError: InvalidSetting (no key to sign with), InvalidPath.
        """
        encoded = self.encoded(path)
        fields = [
            *parameters, ("algorithm", self.algorithm), ("expires", str(expires_s)),
            ("keyId", self._key.key_id), ("method", ",".join(sorted(m.upper() for m in methods))),
        ]  # fmt: skip
        host = self.host
        signature = self._key.sign(canonical_text((m.upper() for m in methods), host, encoded, fields))
        scheme = "https" if self.settings.secure else "http"
        return f"{scheme}://{host}{encoded}?{canonical_query(fields)}&signature={encode_value(signature)}"

    @property
    def algorithm(self) -> str:
        """Name of the key's algorithm as a presigned URL has it. Raises MobulaError (InvalidSetting): no key."""
        return self._key.algorithm.upper()

    @property
    def _key(self) -> Signer:
        if self._signer is None:
            raise MobulaError("InvalidSetting", "sign a URL: no key is named; set MANTA_KEY_ID")
        return self._signer

    @property
    def host(self) -> str:
        """The Host header that a browser sends: without the scheme's own port."""
        address = self.settings.address
        usual = 443 if self.settings.secure else 80
        return str(address).removesuffix(f":{usual}") if address.port == usual else str(address)
