"""Ways into a region: what a client's shell is told, quoted; hosts and services by name."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mobula.core.keys import load_public_key
from ops.environment import as_shell, host_of, logs, shell_argv, variables
from ops.errors import BadInput
from ops.region import REPO, Host, Region
from ops.remote import Result, SshRemote


@pytest.fixture
def region(tmp_path: Path) -> Region:
    hosts = [
        Host("lab-b-nameservice-01", "b", "nameservice", 1, "10.77.2.11", 0, 0),
        Host("lab-a-nameservice-01", "a", "nameservice", 1, "10.77.1.11", 0, 0),
        Host("lab-a-api-01", "a", "api", 1, "10.77.1.21", 0, 0),
    ]
    return Region(
        "lab", "mobula.test", "10.77.0.0/16", 18443, tmp_path / "lab", tmp_path, {h.name: h for h in hosts}, None
    )


@pytest.fixture
def key(region: Region) -> str:
    """The demo account's public key, in the region's secrets."""
    public = Ed25519PrivateKey.generate().public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    region.secrets.mkdir(parents=True)
    (region.secrets / "demo.pub").write_text(f"{text} demo\n")
    return text


def test_a_client_is_told_where_the_region_is_who_asks_and_with_which_key(region: Region, key: str) -> None:
    found = variables(region)
    assert found["MANTA_URL"] == "https://localhost:18443"
    assert found["MANTA_USER"] == "demo"
    assert found["MANTA_KEY_ID"] == load_public_key(key).fingerprint_md5
    assert found["SSH_AUTH_SOCK"] == str(region.state_dir / "run/agent.sock")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (None, "localhost,127.0.0.1"),
        ("", "localhost,127.0.0.1"),
        ("intern.example,", "intern.example,localhost,127.0.0.1"),
        ("127.0.0.1,a", "127.0.0.1,a,localhost"),
        ("localhost,127.0.0.1", "localhost,127.0.0.1"),
    ],
)
def test_no_proxy_keeps_what_it_had_and_never_grows_twice(
    region: Region, key: str, monkeypatch: pytest.MonkeyPatch, was: str | None, becomes: str
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    if was is not None:
        monkeypatch.setenv("NO_PROXY", was)
    assert variables(region)["NO_PROXY"] == becomes


def test_our_clients_come_behind_all_others_and_once() -> None:
    script = f"PATH=/stock/bin:/usr/bin\n{as_shell({})}\n{as_shell({})}\necho $PATH"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"/stock/bin:/usr/bin:{REPO}/bin\n"


@given(st.dictionaries(st.sampled_from(["A", "B_C", "D1"]), st.text(st.characters(blacklist_characters="\0"))))
def test_a_shell_gets_back_exactly_the_values(values: dict[str, str]) -> None:
    words = shlex.split(as_shell(values))
    assert words[: 2 * len(values)] == [w for name, value in values.items() for w in ("export", f"{name}={value}")]
    assert words[2 * len(values)] == "unset"


def test_nothing_in_a_value_is_run_by_the_shell() -> None:
    values = {"A": "a b'c\"d", "B": "$(echo x) `echo y` $A; echo z\n\\ * ~ #!"}
    script = f'MANTA_SUBUSER=old\n{as_shell(values)}\nprintf \'%s|\' "$A" "$B" "${{MANTA_SUBUSER-unset}}"'
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{value}|" for value in (*values.values(), "unset"))


def test_a_host_that_is_not_there_is_refused_by_naming_those_that_are(region: Region) -> None:
    assert host_of(region, "lab-a-api-01").address == "10.77.1.21"
    with pytest.raises(BadInput, match="it has lab-a-api-01, lab-a-nameservice-01, lab-b-nameservice-01"):
        host_of(region, "lab-a-api-02")


def test_a_service_that_is_not_on_the_host_is_refused_by_naming_those_that_are(region: Region) -> None:
    with pytest.raises(BadInput, match=r"find service 'patroni' on lab-a-api-01: it has .*authcache.*webapi"):
        logs(region, "lab-a-api-01", "patroni", 5)


@pytest.mark.parametrize(("service", "unit"), [("webapi", ["--unit=mobula-webapi"]), (None, [])])
def test_logs_are_the_last_lines_of_the_journal(
    region: Region, monkeypatch: pytest.MonkeyPatch, service: str | None, unit: list[str]
) -> None:
    asked: list[list[str]] = []

    def run(_: object, argv: list[str], **__: object) -> Result:
        asked.append(argv)
        return Result("lines", "", 0)

    monkeypatch.setattr(SshRemote, "run", run)
    assert logs(region, "lab-a-api-01", service, 7) == "lines"
    assert asked == [["journalctl", "--no-pager", "--lines=7", "--output=short-iso", *unit]]


def test_a_shell_outside_asks_the_regions_own_nameservers(region: Region) -> None:
    argv = shell_argv(region, ["dig", "+short", "lab.mobula.test"])
    resolver = region.state_dir / "run/resolv.conf"
    assert argv[:2] == ["nsenter", "--net=/run/netns/lab-pub"]
    trust = f"CURL_CA_BUNDLE={region.secrets / 'ca.pem'}"
    assert argv[-6:] == [str(resolver), "env", trust, "dig", "+short", "lab.mobula.test"]
    assert resolver.read_text() == "nameserver 10.77.1.11\nnameserver 10.77.2.11\noptions timeout:1 attempts:2\n"


def test_a_shell_without_a_command_is_the_users(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert shell_argv(region, [])[-1] == "/bin/zsh"
    monkeypatch.delenv("SHELL")
    assert shell_argv(region, [])[-1] == "/bin/sh"


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        ([], []),
        (["uptime; id"], ["uptime; id"]),
        (["ls", "a b", "$HOME"], ["ls 'a b' '$HOME'"]),
    ],
)
def test_ssh_takes_one_word_for_the_shell_there_and_several_as_they_are(
    region: Region, command: list[str], sent: list[str]
) -> None:
    argv = SshRemote(region, "10.77.1.21").interactive_argv(command)
    assert argv[argv.index("root@10.77.1.21") + 1 :] == sent
    assert argv[:5] == ["nsenter", "--net=/run/netns/lab-op", "ssh", "-F", "none"]
    assert "StrictHostKeyChecking=yes" in argv
