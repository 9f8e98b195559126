"""The key that signs requests: found by what MANTA_KEY_ID says, in an ssh-agent or in ``~/.ssh``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from mobula.client import agent
from mobula.client.errors import MobulaError
from mobula.client.settings import Settings
from mobula.core.fingerprints import has_fingerprint, md5_fingerprint, normal_fingerprint


class PrivateKey(Protocol):
    @property
    def blob(self) -> bytes:
        """Wire form of the public half."""

    @property
    def algorithm(self) -> str:
        """Name of the algorithm in HTTP Signature."""

    def sign(self, text: bytes) -> bytes:
        """Signature of `text`."""


class Signer:
    """A key, and the account in whose name it signs."""

    def __init__(self, key: PrivateKey, key_id: str) -> None:
        self.key_id = key_id
        self.algorithm = key.algorithm
        self._key = key
        self._last = ("", "")

    def sign(self, text: bytes) -> str:
        """Signature in base64. Raises MobulaError (InvalidSetting): the agent refuses."""
        try:
            return base64.b64encode(self._key.sign(text)).decode()
        except agent.AgentError as error:
            raise MobulaError("InvalidSetting", str(error)) from error

    def authorization(self, date: str) -> str:
        """The Authorization header of a request with that Date; one signature serves all requests of a second."""
        last_date, value = self._last
        if last_date != date:
            signature = self.sign(f"date: {date}".encode())
            value = (
                f'Signature keyId="{self.key_id}",algorithm="{self.algorithm}",headers="date",signature="{signature}"'
            )
            self._last = (date, value)
        return value


def find_signer(settings: Settings) -> Signer | None:
    """The signer that the settings name; None if requests are not to be signed.

    A fingerprint is looked for in the agent first (nothing to load, no passphrase), then in ``~/.ssh``.

    Raises:
        MobulaError: InvalidSetting: no such key, or one that can't be used.
    """
    if settings.key_id is None:
        return None
    if not settings.key_id:
        raise _invalid(
            "find the key to sign with: none is named; set MANTA_KEY_ID or give --key-id, or set MANTA_NO_AUTH=true"
        )
    wanted = normal_fingerprint(settings.key_id)
    path = Path(settings.key_id).expanduser()
    if wanted is None and not path.exists():
        raise _invalid(
            f"find the key {settings.key_id!r}: neither a fingerprint (MD5 or SHA256) nor the path of a private key"
        )
    key = _from_file(path) if wanted is None else _by_fingerprint(settings, wanted)
    who = "/".join(quote(login, safe="@") for login in (settings.account, settings.user) if login)
    return Signer(key, f"/{who}/keys/{md5_fingerprint(key.blob)}")


def _by_fingerprint(settings: Settings, wanted: str) -> PrivateKey:
    trouble = "no ssh-agent (SSH_AUTH_SOCK)"
    if settings.agent_socket:
        try:
            found = agent.find(settings.agent_socket, wanted)
        except agent.AgentError as error:
            trouble = str(error)
        else:
            if found is not None:
                return found
            trouble = "it is not in the ssh-agent"
    folder = Path(settings.home or "~").expanduser() / ".ssh"
    for path in _candidates(folder, wanted):
        return _from_file(path)
    raise _invalid(f"find the key {wanted}: {trouble}, and not in {str(folder)!r}; check MANTA_KEY_ID")


def _candidates(folder: Path, wanted: str) -> Iterator[Path]:
    """Private key files of that fingerprint: beside their ``.pub``, which says whose they are, else ``id_*`` read one by one."""
    try:
        names = sorted(folder.iterdir())
    except OSError:
        return
    for public in names:
        private = public.with_suffix("")
        if public.suffix == ".pub" and private in names and has_fingerprint(_public_blob(public), wanted):
            yield private
    for private in names:
        if private.name.startswith("id_") and private.suffix != ".pub" and Path(f"{private}.pub") not in names:
            from mobula.client import private_key  # noqa: PLC0415 (40 ms that most commands do without)

            try:
                if has_fingerprint(private_key.load(private).blob, wanted):
                    yield private
            except private_key.UnusableKey:
                continue


def _public_blob(path: Path) -> bytes:
    try:
        return base64.b64decode(path.read_text(encoding="utf-8", errors="replace")[:16_384].split()[1], validate=True)
    except (OSError, IndexError, binascii.Error, ValueError):
        return b""


def _from_file(path: Path) -> PrivateKey:
    from mobula.client import private_key  # noqa: PLC0415 (40 ms that most commands do without)

    try:
        return private_key.load(path)
    except private_key.UnusableKey as error:
        raise _invalid(str(error)) from error


def _invalid(message: str) -> MobulaError:
    return MobulaError("InvalidSetting", message)
