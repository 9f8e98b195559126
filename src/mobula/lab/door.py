"""What a region runs on the user's own side: the door (a relay from 127.0.0.1 into `pub`) and an SSH agent with the demo key.

The door is HAProxy in TCP mode, running in the namespace `pub`; its only foothold outside is the listening socket, which is made in the
host's namespace and inherited. It needs no capability, finds loadbalancers by the region's public name, and splices.
Both are found by what they run on, not by a remembered pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mobula.lab.network import NETNS, LabError

START_TIMEOUT_S = 10.0


def door_config(nameservers: Sequence[str], zone: str, listen_fd: int) -> str:
    """HAProxy's configuration: any living loadbalancer per connection, a dead one out after two checks.

    Connections to one that is gone end by TCP's own means (`topology.TCP_RETRIES_PUBLIC`, keepalive). HAProxy 3.0.11 would be sooner with
    `on-marked-down shutdown-sessions`, but leaves a session that is just being connected half dead: its client waits for ever.
    """
    servers = "\n".join(f"    nameserver n{n} {address}:53" for n, address in enumerate(nameservers, 1))
    return f"""global
    maxconn 2000
resolvers names
{servers}
    accepted_payload_size 8192
    timeout resolve 1s
    timeout retry   500ms
    hold valid    2s
    hold obsolete 0s
    hold nx       120s
    hold timeout  1h
    hold refused  1h
    hold other    1h
defaults
    mode tcp
    timeout connect 1s
    timeout client  10m
    timeout server  10m
    timeout tunnel  10m
    timeout check   1s
    retries 3
    option redispatch 1
    option splice-auto
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
frontend door
    bind fd@{listen_fd}
    default_backend loadbalancers
backend loadbalancers
    balance leastconn
    option tcp-check
    default-server check inter 500ms fall 2 rise 1
    server-template lb 8 {zone}:443 resolvers names resolve-prefer ipv4 init-addr none
"""


def _processes(marker: str) -> list[int]:
    """Processes that have the marker as an argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _door_marker(region: str) -> str:
    return f"/mnt/door-{region}.cfg"


def _agent_socket(state_dir: Path) -> Path:
    return state_dir / "run" / "agent.sock"


def door_is_open(region: str) -> bool:
    """The relay runs."""
    return bool(_processes(_door_marker(region)))


def ensure_door(region: str, zone: str, *, port: int, nameservers: Sequence[str], state_dir: Path, image: Path) -> None:
    """Open the door on 127.0.0.1:`port` unless it is open for these nameservers.

    Raises:
        LabError: the port is taken, or HAProxy does not start.
    """
    config = state_dir / "run" / f"door-{region}.cfg"
    config.parent.mkdir(parents=True, exist_ok=True)
    same = config.exists() and config.read_text() == door_config(nameservers, zone, _fd_of(config.read_text()))
    patience_s = 0.0
    if door_is_open(region):
        if same:
            return
        close_door(region)
        patience_s = START_TIMEOUT_S  # its connections may have the port for a moment longer
    with _bound(port, patience_s, f"open the door of region {region!r}") as listener:
        listener.listen(1024)
        config.write_text(door_config(nameservers, zone, listener.fileno()))
        script = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" /usr/sbin/haproxy -db -f "$3"'
        where = ["nsenter", f"--net={NETNS / f'{region}-pub'}", "unshare", "--mount"]
        argv = [*where, "sh", "-c", script, "sh", str(config.parent), str(image), _door_marker(region)]
        with (state_dir / "run" / "door.log").open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[listener.fileno()],
                env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
    _wait_started(process, state_dir / "run" / "door.log")


def _bound(port: int, patience_s: float, what: str) -> socket.socket:
    """A socket on 127.0.0.1:`port`. Raises LabError."""
    listener, end_s = socket.socket(), time.monotonic() + patience_s
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            if time.monotonic() > end_s:
                listener.close()
                raise LabError(f"{what} on 127.0.0.1:{port}: {error.strerror}; set another relay_port") from error
            threading.Event().wait(0.1)
        else:
            return listener


def _fd_of(config: str) -> int:
    number = config.partition("bind fd@")[2].split()
    return int(number[0]) if number else -1


def _wait_started(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise LabError(f"open the door: HAProxy ended with {process.returncode}: {log.read_text()[-300:]}")
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process.pid}/comm").read_text().strip() == "haproxy":
                return
        threading.Event().wait(0.05)
    raise LabError(f"open the door: HAProxy did not start within {START_TIMEOUT_S:.0f} s")


def close_door(region: str) -> None:
    """End the relay."""
    _end(_door_marker(region))


def ensure_agent(state_dir: Path, key: Path) -> None:
    """An SSH agent on `<state_dir>/run/agent.sock` that holds the key."""
    where = _agent_socket(state_dir)
    where.parent.mkdir(parents=True, exist_ok=True)
    env = {"SSH_AUTH_SOCK": str(where), "PATH": os.environ["PATH"]}
    listing = subprocess.run(["ssh-add", "-l"], env=env, capture_output=True, text=True, check=False)
    if listing.returncode == 2:  # no agent answers
        _end(str(where))
        where.unlink(missing_ok=True)
        subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(where)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + START_TIMEOUT_S
        while not where.exists():
            if time.monotonic() > end:
                raise LabError(f"start an SSH agent on {str(where)!r}: no socket after {START_TIMEOUT_S:.0f} s")
            threading.Event().wait(0.02)
    if listing.returncode:
        done = subprocess.run(["ssh-add", "-q", str(key)], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"hand {str(key)!r} to the region's SSH agent: {done.stderr.strip()}")


def end_agent(state_dir: Path) -> None:
    """End the region's SSH agent."""
    _end(str(_agent_socket(state_dir)))


def _end(marker: str) -> None:
    pids = _processes(marker)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + START_TIMEOUT_S
    while any(map(_holds_files, pids)):
        if time.monotonic() > end:
            for pid in _processes(marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        threading.Event().wait(0.05)


def _holds_files(pid: int) -> bool:
    """It has not ended yet. Its arguments are gone earlier than its sockets: who looks for these sees them gone while its port is taken."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (OSError, IndexError):
        return False
