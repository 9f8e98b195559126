"""Ways into a region: the variables of a client's shell, a shell in `pub`, SSH to a host, its logs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mobula.core.keys import load_public_key
from ops.catalog import services_of
from ops.errors import BadInput, OperatorError
from ops.region import REPO, Host, Region
from ops.remote import SshRemote

DEMO_ACCOUNT = "demo"


def variables(region: Region) -> dict[str, str]:
    """The environment of any Manta client: where the region is, who asks, with which key.

    Raises:
        OperatorError: the region has never been up.
    """
    public = region.secrets / "demo.pub"
    if not public.exists():
        raise OperatorError(f"print the environment of region {region.name!r}: it is not up; run ./mobula up")
    return {
        "MANTA_URL": f"https://localhost:{region.relay_port}",
        "MANTA_USER": DEMO_ACCOUNT,
        "MANTA_KEY_ID": load_public_key(public.read_text()).fingerprint_md5,
        "NODE_EXTRA_CA_CERTS": str(region.secrets / "ca.pem"),
        "SSH_AUTH_SOCK": str(region.state_dir / "run" / "agent.sock"),
        "MOBULA_PYTHON": sys.executable,
        "NO_PROXY": ",".join(
            dict.fromkeys([*filter(None, os.environ.get("NO_PROXY", "").split(",")), "localhost", "127.0.0.1"])
        ),
    }


def as_shell(values: Mapping[str, str]) -> str:
    """The variables as lines for a POSIX shell's eval; our own clients come behind all others on its PATH, once."""
    # MANTA_SUBUSER and the like of another account must not leak in; nor a wish not to look at certificates: ours can be checked.
    stale = "unset MANTA_SUBUSER MANTA_ROLE MANTA_NO_AUTH MANTA_TLS_INSECURE"
    commands = shlex.quote(str(REPO / "bin"))
    path = f'case ":$PATH:" in *:{commands}:*) ;; *) export PATH="$PATH":{commands} ;; esac'
    return "\n".join([*(f"export {name}={shlex.quote(value)}" for name, value in values.items()), stale, path])


def host_of(region: Region, name: str) -> Host:
    """The host of that name.

    Raises:
        BadInput: the region has no such host.
    """
    if name not in region.hosts:
        known = ", ".join(sorted(region.hosts)) or "no hosts yet"
        raise BadInput(f"find host {name!r} in region {region.name!r}: it has {known}")
    return region.hosts[name]


def shell_argv(region: Region, command: Sequence[str]) -> list[str]:
    """What to execute for a shell on the internet side, which asks the region's own nameservers and whose curl trusts its CA."""
    if not region.hosts:
        raise OperatorError(f"open a shell in region {region.name!r}: it is not up; run ./mobula up")
    resolver = region.state_dir / "run" / "resolv.conf"
    resolver.parent.mkdir(parents=True, exist_ok=True)
    resolver.write_text(
        "".join(f"nameserver {h.address}\n" for h in region.pool("nameservice")) + "options timeout:1 attempts:2\n"
    )
    inside = 'mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && shift && exec "$@"'
    # As with `ssh`: one word is a line for a shell, several are a command and its arguments.
    line = ["sh", "-c", *command] if len(command) == 1 else list(command)
    wanted = line or [os.environ.get("SHELL", "/bin/sh")]
    return [
        "nsenter", f"--net=/run/netns/{region.name}-pub", "unshare", "--mount", "sh", "-c", inside, "sh", str(resolver),
        "env", f"CURL_CA_BUNDLE={region.secrets / 'ca.pem'}", *wanted,
    ]  # fmt: skip


def ssh(region: Region, host: str, command: Sequence[str]) -> int:
    """A terminal on the host, or one command; returns the exit code."""
    argv = SshRemote(region, host_of(region, host).address).interactive_argv(command)
    return subprocess.run(argv, check=False).returncode


def logs(region: Region, host: str, service: str | None, lines: int) -> str:
    """The last `lines` lines of the host's journal, or of one service's.

    Raises:
        BadInput: no such host, or no such service on it.
    """
    found = host_of(region, host)
    argv = ["journalctl", "--no-pager", f"--lines={lines}", "--output=short-iso"]
    if service:
        units = {s.name: s.unit for s in services_of(found.pool)}
        if service not in units:
            raise BadInput(f"find service {service!r} on {host}: it has {', '.join(units)}")
        argv.append(f"--unit={units[service]}")
    return SshRemote(region, found.address).run(argv, timeout_s=30).stdout
