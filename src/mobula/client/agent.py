"""Keys held by an ssh-agent: found by fingerprint, signed with over its socket. Source: draft-miller-ssh-agent, RFC 4253, RFC 5656.

No cryptographic library is needed: the agent signs, and a fingerprint is a digest of the key's wire form.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from mobula.core.fingerprints import has_fingerprint

TIMEOUT_S = 10.0
MESSAGE_BYTES_MAX = 256 * 1024
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER, _SIGN_REQUEST, _SIGN_RESPONSE = 11, 12, 13, 14
_RSA_SHA2_256 = 2
ALGORITHMS = {
    "ssh-rsa": "rsa-sha256",
    "ecdsa-sha2-nistp256": "ecdsa-sha256",
    "ecdsa-sha2-nistp384": "ecdsa-sha384",
    "ecdsa-sha2-nistp521": "ecdsa-sha512",
    "ssh-ed25519": "ed25519-sha512",
}
"""algorithm of HTTP Signature by SSH key type"""


class AgentError(Exception):
    """The agent can't be reached, answers what is no answer, or refuses."""


class AgentKey(NamedTuple):
    """A key in an agent; `blob` is its wire form."""

    socket_path: str
    blob: bytes

    @property
    def algorithm(self) -> str:
        return ALGORITHMS[key_type(self.blob)]

    def sign(self, text: bytes) -> bytes:
        """Signature of `text` as HTTP Signature wants it. Raises AgentError."""
        flags = _RSA_SHA2_256 if key_type(self.blob) == "ssh-rsa" else 0
        message = bytes([_SIGN_REQUEST]) + wire_string(self.blob) + wire_string(text) + struct.pack(">I", flags)
        answer = _ask(self.socket_path, message, _SIGN_RESPONSE)
        return read_signature(answer)


def find(socket_path: str, fingerprint: str) -> AgentKey | None:
    """The agent's key of that normal fingerprint; None if it has none of a kind we can use. Raises AgentError."""
    answer = _ask(socket_path, bytes([_REQUEST_IDENTITIES]), _IDENTITIES_ANSWER)
    for blob in read_identities(answer):
        if key_type(blob) in ALGORITHMS and has_fingerprint(blob, fingerprint):
            return AgentKey(socket_path, blob)
    return None


# the messages: pure


def key_type(blob: bytes) -> str:
    """The type that a key's wire form begins with; empty if it is none."""
    try:
        return take_string(blob, 0)[0].decode("ascii", errors="replace")
    except AgentError:
        return ""


def read_identities(message: bytes) -> list[bytes]:
    """The wire forms of the keys in an identities answer, without its type byte. Raises AgentError."""
    if len(message) < 4:
        raise AgentError("read the ssh-agent's keys: the answer is cut off")
    (count,) = struct.unpack_from(">I", message)
    blobs, position = [], 4
    for _ in range(count):
        blob, position = take_string(message, position)
        _, position = take_string(message, position)  # the comment
        blobs.append(blob)
    return blobs


def read_signature(message: bytes) -> bytes:
    """The signature in a sign response, without its type byte; of ECDSA as DER. Raises AgentError."""
    signature, _ = take_string(message, 0)
    kind, position = take_string(signature, 0)
    value, _ = take_string(signature, position)
    if kind == b"ssh-rsa":
        raise AgentError("sign with the ssh-agent: it knows only SHA-1 for RSA keys; use a newer agent")
    if not kind.startswith(b"ecdsa-"):
        return value
    r, position = take_string(value, 0)
    s, _ = take_string(value, position)
    body = _der(2, r) + _der(2, s)  # an mpint's bytes are those of an ASN.1 INTEGER
    return _der(0x30, body)


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    return bytes([tag, size] if size < 128 else [tag, 0x81, size]) + value


def wire_string(data: bytes) -> bytes:
    """Data as a string of RFC 4251."""
    return struct.pack(">I", len(data)) + data


def take_string(data: bytes, position: int) -> tuple[bytes, int]:
    """The string of RFC 4251 at a position, and where it ends. Raises AgentError."""
    if position + 4 > len(data):
        raise AgentError("read a string of SSH: it is cut off")
    (size,) = struct.unpack_from(">I", data, position)
    end = position + 4 + size
    if end > len(data):
        raise AgentError("read a string of SSH: it is cut off")
    return data[position + 4 : end], end


# the socket


def _ask(socket_path: str, message: bytes, wanted: int) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(socket_path)
            sock.sendall(wire_string(message))
            (size,) = struct.unpack(">I", _read(sock, 4))
            if not 0 < size <= MESSAGE_BYTES_MAX:
                raise AgentError(f"ask the ssh-agent at {socket_path!r}: an answer of {size} bytes")
            answer = _read(sock, size)
    except OSError as error:
        raise AgentError(f"ask the ssh-agent at {socket_path!r}: {error}") from error
    if answer[0] != wanted:
        raise AgentError(f"ask the ssh-agent at {socket_path!r}: it refuses")
    return answer[1:]


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise AgentError("ask the ssh-agent: it ended the connection")
        data += part
    return data
