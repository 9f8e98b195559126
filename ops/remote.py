"""Commands on the region's hosts, by SSH through its management network. Fabric's only importer; everybody else sees `Remote`."""

from __future__ import annotations

import base64
import contextlib
import logging
import shlex
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fabric
import paramiko

from mobula.lab.network import LabError, inside
from ops.errors import OperatorError
from ops.region import Region

CONNECT_TIMEOUT_S = 5.0
# What it has to say of a host that does not answer comes as an exception too.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)
CHUNK_BYTES = 65536


class RemoteError(OperatorError):
    """A host could not be reached, or a command on it failed."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said."""

    stdout: str
    stderr: str
    exit_code: int


class Remote(Protocol):
    """One host. Raises RemoteError when it can't be reached, when the time is up, or (with `check`) for an exit code other than 0."""

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float, check: bool = True) -> Result: ...

    def lines(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float) -> Iterator[str]:
        """What a command says, line by line while it runs; `timeout_s` bounds its silence. Fails after the last line, if it does."""


def _talk(
    channel: paramiko.Channel, argv: Sequence[str], stdin: str | None, timeout_s: float
) -> Generator[bytes, None, tuple[str, int]]:
    """One command on a channel: hand it `stdin`, yield what it says as it comes, return its errors and its exit code.

    Neither Fabric's run() (it feeds standard input a character at a time, from a thread that fails if the command ends first) nor
    paramiko's files (one with bytes left in it complains on standard error, long after its connection broke).
    """
    with channel:
        channel.settimeout(timeout_s)
        channel.exec_command(shlex.join(argv))
        errors = bytearray()
        reader = threading.Thread(target=_take_errors, args=(channel, errors), daemon=True)
        reader.start()
        with contextlib.suppress(OSError):  # ended without reading all of it
            channel.sendall((stdin or "").encode())
            channel.shutdown_write()
        yield from iter(lambda: channel.recv(CHUNK_BYTES), b"")
        reader.join(timeout_s)
        code = channel.recv_exit_status()
    if code < 0:  # Paramiko's way to say that it never heard one
        raise EOFError("the connection ended before the command did")
    return errors.decode(errors="replace"), code


def _take_errors(channel: paramiko.Channel, errors: bytearray) -> None:
    """Collect standard error beside standard output: whoever reads one after the other can wait for ever."""
    while not channel.closed:
        with contextlib.suppress(TimeoutError):
            data = channel.recv_stderr(CHUNK_BYTES)
            if not data:
                return
            errors += data


class SshRemote:
    """A host of a region by its address; the host's key is the region's, known from its secrets."""

    def __init__(self, region: Region, address: str) -> None:
        self._region = region
        self._address = address

    def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float, check: bool = True) -> Result:
        """One command on a connection of its own."""
        output = bytearray()
        talk = self._talk(argv, stdin, timeout_s)
        while True:
            try:
                output += next(talk)
            except StopIteration as end:
                errors, code = end.value
                break
        result = Result(output.decode(errors="replace"), errors, code)
        if check and code:
            raise self._failed(argv, code, result.stderr or result.stdout)
        return result

    def lines(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float) -> Iterator[str]:
        """The same, however much it says: nothing is kept, and whoever stops reading makes the command wait."""
        rest = b""
        talk = self._talk(argv, stdin, timeout_s)
        while True:
            try:
                *whole, rest = (rest + next(talk)).split(b"\n")
            except StopIteration as end:
                errors, code = end.value
                break
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")
        if code:
            raise self._failed(argv, code, errors)

    def _talk(
        self, argv: Sequence[str], stdin: str | None, timeout_s: float
    ) -> Generator[bytes, None, tuple[str, int]]:
        with self._connection() as connection:
            try:
                channel = connection.client.get_transport().open_session(timeout=timeout_s)
                return (yield from _talk(channel, argv, stdin, timeout_s))
            except TimeoutError as error:
                raise RemoteError(f"run {argv[0]} on {self._address}: silent for {timeout_s:.0f} s") from error
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise RemoteError(f"run {argv[0]} on {self._address}: {type(error).__name__} {error}") from error

    def _failed(self, argv: Sequence[str], code: int, said: str) -> RemoteError:
        return RemoteError(f"run {argv[0]} on {self._address}: exit {code}: {said.strip()[-600:] or 'no message'}")

    @contextlib.contextmanager
    def _connection(self) -> Any:
        # A connection is known by its region's key only: nothing of the user's ~/.ssh is read.
        config = fabric.Config(lazy=True, overrides={"load_ssh_configs": False})
        connection = fabric.Connection(
            self._address, user="root", connect_timeout=CONNECT_TIMEOUT_S, config=config,
            connect_kwargs={
                "key_filename": str(self._region.secrets / "ssh.key"), "allow_agent": False, "look_for_keys": False,
                "sock": self._socket(), "banner_timeout": CONNECT_TIMEOUT_S,
            },
        )  # fmt: skip
        kind, key = (self._region.secrets / "ssh-hosts.key.pub").read_text().split()[:2]
        connection.client.get_host_keys().add(self._address, kind, paramiko.Ed25519Key(data=base64.b64decode(key)))
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            connection.open()
        except (OSError, EOFError, paramiko.SSHException) as error:
            connection.close()
            raise RemoteError(f"reach {self._address} by SSH: {type(error).__name__} {error}") from error
        try:
            yield connection
        finally:
            connection.close()

    def _socket(self) -> socket.socket:
        """A TCP connection made inside the management namespace."""
        try:
            with inside(f"{self._region.name}-op"):
                connection = socket.socket()
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect((self._address, 22))
        except (OSError, LabError) as error:
            raise RemoteError(f"reach {self._address} by SSH: {error}") from error
        return connection

    def interactive_argv(self, command: Sequence[str]) -> list[str]:
        """What to execute for a terminal on the host (or one command), with the same keys."""
        secrets, run = self._region.secrets, self._region.state_dir / "run"
        options = [
            f"UserKnownHostsFile={run / 'known_hosts'}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "LogLevel=ERROR",
            f"ConnectTimeout={CONNECT_TIMEOUT_S:.0f}",
        ]  # fmt: skip
        ssh = ["ssh", "-F", "none", "-i", str(secrets / "ssh.key"), *(x for option in options for x in ("-o", option))]
        # As ssh has it: one word is a line for the shell there, several are a command and its arguments.
        remote = ([command[0]] if len(command) == 1 else [shlex.join(command)]) if command else []
        return ["nsenter", f"--net=/run/netns/{self._region.name}-op", *ssh, f"root@{self._address}", *remote]
