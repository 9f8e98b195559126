"""Commands by SSH, against paramiko's own server at the other end of a socket pair."""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.region import Region
from ops.remote import RemoteError, Result, SshRemote

BOUND_S = 10.0
Behaviour = Callable[[paramiko.Channel], None]
"""what the server does with the channel on which a command was asked for"""


class Server(paramiko.ServerInterface):
    """Takes one command, and does with its channel what it was told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.command = ""

    def get_allowed_auths(self, _: str) -> str:
        return "none"

    def check_auth_none(self, _: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, _: str, __: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.command = command.decode()
        threading.Thread(target=self._behaviour, args=(channel,), daemon=True).start()
        return True


@pytest.fixture(scope="module")
def host_key(tmp_path_factory: pytest.TempPathFactory) -> paramiko.Ed25519Key:
    path = tmp_path_factory.mktemp("ssh") / "key"
    kind, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, kind, plain))
    return paramiko.Ed25519Key.from_private_key_file(str(path))


Serve = Callable[[Behaviour], tuple[SshRemote, Server]]


@pytest.fixture
def serve(tmp_path: Path, host_key: paramiko.Ed25519Key, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A host that does with a command what it is told."""
    transports: list[paramiko.Transport] = []

    def make(behaviour: Behaviour) -> tuple[SshRemote, Server]:
        ours, theirs = socket.socketpair()
        server, there, here = Server(behaviour), paramiko.Transport(theirs), paramiko.Transport(ours)
        transports.extend((here, there))
        there.add_server_key(host_key)
        there.start_server(event=threading.Event(), server=server)
        here.start_client(timeout=BOUND_S)
        here.auth_none("root")

        @contextlib.contextmanager
        def connection(_: SshRemote) -> Iterator[Any]:
            yield SimpleNamespace(client=SimpleNamespace(get_transport=lambda: here))

        monkeypatch.setattr(SshRemote, "_connection", connection)
        region = Region("lab", "mobula.test", "10.77.0.0/16", 18443, tmp_path, tmp_path, {}, None)
        return SshRemote(region, "10.77.1.21"), server

    yield make
    for transport in transports:
        transport.close()
        transport.join(BOUND_S)


def begun(channel: paramiko.Channel) -> None:
    """Wait for the first of standard input: only then the server has said that it took the command."""
    channel.recv(1)


def gives_up(channel: paramiko.Channel) -> None:
    begun(channel)
    channel.close()


def breaks_off(channel: paramiko.Channel) -> None:
    begun(channel)
    channel.get_transport().close()


def hangs(_: paramiko.Channel) -> None:
    """Nothing is heard of it."""


def says(out: bytes = b"", err: bytes = b"", code: int = 0) -> Behaviour:
    """A command that reads next to nothing, says this and ends."""

    def behave(channel: paramiko.Channel) -> None:
        begun(channel)
        channel.sendall_stderr(err)
        channel.sendall(out)
        channel.send_exit_status(code)
        channel.close()

    return behave


def echo(channel: paramiko.Channel) -> None:
    """A command that says what it reads."""
    given = b"".join(iter(lambda: channel.recv(65536), b""))
    says(out=given)(channel)


def test_a_command_over_ssh_is_words_in_and_words_and_code_out(serve: Serve) -> None:
    remote, server = serve(says(b"\xff said", b"warned", 3))
    argv = ["python3", "-", '{"a": 1}']
    assert remote.run(argv, timeout_s=BOUND_S, check=False) == Result("\ufffd said", "warned", 3)
    assert shlex.split(server.command) == argv


def test_a_command_reads_what_it_is_given(serve: Serve) -> None:
    remote, _ = serve(echo)
    assert remote.run(["cat"], stdin="program " * 100_000, timeout_s=BOUND_S).stdout == "program " * 100_000


def test_much_on_both_outputs_waits_for_nobody(serve: Serve) -> None:
    remote, _ = serve(says(b"o" * 5_000_000, b"e" * 5_000_000))
    result = remote.run(["true"], timeout_s=BOUND_S)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 5_000_000)


def test_a_command_that_ends_before_it_has_read_everything_has_its_say(serve: Serve) -> None:
    remote, _ = serve(says(b"enough"))
    assert remote.run(["true"], stdin="unread" * 1_000_000, timeout_s=BOUND_S).stdout == "enough"


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (says(err=b"no such pool\n", code=1), "run zpool on 10.77.1.21: exit 1: no such pool"),
        (says(out=b"only said\n", code=2), "run zpool on 10.77.1.21: exit 2: only said"),
        (says(code=255), "run zpool on 10.77.1.21: exit 255: no message"),
        (says(err=b"x" * 900, code=1), "run zpool on 10.77.1.21: exit 1: " + "x" * 600),
        (gives_up, "run zpool on 10.77.1.21: EOFError the connection ended before the command did"),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_one_sentence(serve: Serve, behaviour: Behaviour, sentence: str) -> None:
    remote, _ = serve(behaviour)
    with pytest.raises(RemoteError) as caught:
        remote.run(["zpool", "status"], timeout_s=BOUND_S)
    assert str(caught.value) == sentence


def test_a_silent_command_is_given_up(serve: Serve) -> None:
    remote, _ = serve(hangs)
    with pytest.raises(RemoteError, match=r"run zpool on 10.77.1.21: silent for 0 s"):
        remote.run(["zpool", "status"], timeout_s=0.2)


def test_a_connection_that_breaks_is_one_sentence_and_leaves_no_complaint(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    remote, _ = serve(breaks_off)
    with pytest.raises(RemoteError, match=r"^run python3 on 10.77.1.21: "):
        remote.run(["python3", "-"], stdin="x" * 3_000_000, timeout_s=BOUND_S)
    assert capfd.readouterr().err == ""


def test_lines_come_whole_while_the_command_still_runs(serve: Serve) -> None:
    go_on = threading.Event()

    def in_pieces(channel: paramiko.Channel) -> None:
        begun(channel)
        channel.sendall(b"one\ntw")
        assert go_on.wait(BOUND_S)
        channel.sendall("o\n\ndr\xe9i".encode())
        channel.send_exit_status(0)
        channel.close()

    remote, server = serve(in_pieces)
    lines = remote.lines(["find", "/tank"], timeout_s=BOUND_S)
    assert next(lines) == "one"
    go_on.set()
    assert list(lines) == ["two", "", "dr\xe9i"]
    assert shlex.split(server.command) == ["find", "/tank"]


def test_lines_answer_what_the_command_was_given(serve: Serve) -> None:
    remote, _ = serve(echo)
    assert list(remote.lines(["cat"], stdin="some\nlines\n" * 20_000, timeout_s=BOUND_S)) == ["some", "lines"] * 20_000


def test_many_lines_that_nobody_reads_wait_with_their_command(serve: Serve) -> None:
    said: list[int] = []

    def much(channel: paramiko.Channel) -> None:
        begun(channel)
        for number in range(200):
            channel.sendall(b"x" * 65535 + b"\n")
            said.append(number)
        channel.send_exit_status(0)
        channel.close()

    remote, _ = serve(much)
    lines = remote.lines(["true"], timeout_s=BOUND_S)
    next(lines)
    assert len(said) < 100
    assert sum(len(line) + 1 for line in lines) == 199 * 65536


def test_lines_are_given_before_the_sentence_of_the_failure(serve: Serve) -> None:
    remote, _ = serve(says(b"first\nsecond", b"no lease\n", 3))
    lines = remote.lines(["psql"], timeout_s=BOUND_S)
    assert [next(lines), next(lines)] == ["first", "second"]
    with pytest.raises(RemoteError, match=r"^run psql on 10.77.1.21: exit 3: no lease$"):
        next(lines)


@pytest.mark.parametrize(
    ("behaviour", "timeout_s", "sentence"),
    [
        (hangs, 0.2, "run zpool on 10.77.1.21: silent for 0 s"),
        (gives_up, BOUND_S, "run zpool on 10.77.1.21: EOFError the connection ended before the command did"),
    ],
)
def test_lines_of_a_command_that_says_no_more_are_one_sentence(
    serve: Serve, behaviour: Behaviour, timeout_s: float, sentence: str
) -> None:
    remote, _ = serve(behaviour)
    with pytest.raises(RemoteError) as caught:
        list(remote.lines(["zpool", "status"], timeout_s=timeout_s))
    assert str(caught.value) == sentence


def test_whoever_reads_no_further_ends_the_command(serve: Serve) -> None:
    ended = threading.Event()

    def goes_on(channel: paramiko.Channel) -> None:
        begun(channel)
        with contextlib.suppress(OSError):
            while True:
                channel.sendall(b"line\n" * 10_000)
        ended.set()

    remote, _ = serve(goes_on)
    lines = remote.lines(["yes"], timeout_s=BOUND_S)
    assert next(lines) == "line"
    lines.close()  # type: ignore[attr-defined]
    assert ended.wait(BOUND_S)
