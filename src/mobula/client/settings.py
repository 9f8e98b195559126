"""What a client is told about where and who, as the stock clients read it from the environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from mobula.client.errors import MobulaError
from mobula.wire.http_failures import Address


class Settings(NamedTuple):
    """Where the service is, and in whose name to ask.

    `key_id` is a fingerprint (MD5 or SHA256) or the path of a private key; None: unsigned requests. `ca_file` replaces the
    system's certificate authorities, `extra_ca_file` is trusted beside them. `role`: comma list of roles to activate.
    """

    url: str
    account: str
    key_id: str | None
    user: str | None = None
    role: str | None = None
    tls_insecure: bool = False
    ca_file: str | None = None
    extra_ca_file: str | None = None
    agent_socket: str | None = None
    home: str | None = None

    @property
    def secure(self) -> bool:
        return self._split.scheme == "https"

    @property
    def address(self) -> Address:
        split = self._split
        return Address(split.hostname or "", split.port or (443 if self.secure else 80))

    @property
    def _split(self) -> SplitResult:
        return urlsplit(self.url if "://" in self.url else f"https://{self.url}")

    def check(self) -> Settings:
        """These settings, if they can be used.

        Raises:
            MobulaError: InvalidSetting.
        """
        try:
            usable = self._split.scheme in {"http", "https"} and bool(self.address.host)
        except ValueError:  # a port that is no number
            usable = False
        if not usable:
            raise _invalid(
                f"use the URL {self.url!r}: it is not of the form https://host[:port]; set MANTA_URL or give --url"
            )
        if not self.account:
            raise _invalid("find the account: none is named; set MANTA_USER or give --account")
        for name, value in (("MANTA_USER", self.account), ("MANTA_SUBUSER", self.user), ("MANTA_ROLE", self.role)):
            if value and not (value.isascii() and value.isprintable()):
                raise _invalid(f"use {name}={value!a}: it has other characters than printable ASCII")
        return self


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings of the variables that Manta's clients know; what is missing is an empty text, so that options may fill it in.

    MANTA_URL, MANTA_USER, MANTA_SUBUSER, MANTA_ROLE, MANTA_KEY_ID, MANTA_NO_AUTH, MANTA_TLS_INSECURE, NODE_EXTRA_CA_CERTS,
    SSH_AUTH_SOCK, HOME; and MANTA_CA_FILE, ours: the only authorities to trust.
    """
    anonymous = environment.get("MANTA_NO_AUTH") == "true"  # and no other word, as the stock clients have it
    return Settings(
        url=environment.get("MANTA_URL", ""),
        account=environment.get("MANTA_USER", ""),
        key_id=None if anonymous else environment.get("MANTA_KEY_ID", ""),
        user=environment.get("MANTA_SUBUSER") or None,
        role=environment.get("MANTA_ROLE") or None,
        tls_insecure=environment.get("MANTA_TLS_INSECURE", "0") not in {"", "0"},
        ca_file=environment.get("MANTA_CA_FILE") or None,
        extra_ca_file=environment.get("NODE_EXTRA_CA_CERTS") or None,
        agent_socket=environment.get("SSH_AUTH_SOCK") or None,
        home=environment.get("HOME") or None,
    )


def _invalid(message: str) -> MobulaError:
    return MobulaError("InvalidSetting", message)
