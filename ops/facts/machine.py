"""Runs on a host (its text is handed to python3, standard library only): reads all that `mobula check` judges of it, prints JSON.

Input, argv[1]: ``{"address", "packages", "left_out", "units", "pool", "guard"}``; output: `ops.conformance.model.Machine`.
Only looks. What can't be read is empty or null, and the judge finds that wrong.
"""

import fnmatch
import json
import os
import pathlib
import pwd
import re
import socket
import stat
import subprocess
import sys
import urllib.request
from typing import Any

Facts = dict[str, Any]

ETC = pathlib.Path("/etc/mobula")
FIREWALL = str(ETC / "firewall.nft")
SECRET = re.compile(rb"PRIVATE KEY|password: *\"|^[0-9a-f]{64}\s*$", re.MULTILINE)
UNIT_FIELDS = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,DropInPaths"
SQL = """SELECT json_build_object(
  'standby', pg_is_in_recovery(),
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN
    ('synchronous_standby_names', 'synchronous_commit', 'fsync', 'full_page_writes', 'ssl', 'restart_after_crash')),
  'overridden', (SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf'),
  'standbys', (SELECT coalesce(json_agg(json_build_object('name', application_name, 'state', state, 'sync', sync_state)), '[]')
    FROM pg_stat_replication WHERE usename = 'replicator'),
  'roles', (SELECT coalesce(json_object_agg(rolname, rolsuper), '{}') FROM pg_roles WHERE rolcanlogin),
  'groups', (SELECT coalesce(json_agg(json_build_object('id', id, 'servers', servers)), '[]') FROM metadata.placement_group))"""


def output_of(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=8).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def text_of(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def fetch(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 (our own address)
            return json.load(answer)
    except (OSError, ValueError):
        return None


def packages(names: list[str]) -> "dict[str, str]":
    shown = output_of("dpkg-query", "--show", "--showformat=${Package}\t${db:Status-Status}\n", *names)
    return dict(line.split("\t", 1) for line in shown.splitlines())


def lost_files(names: list[str], left_out: list[str]) -> list[str]:
    """Files of the packages that are not there, but for those that the image leaves out."""
    patterns = re.compile("|".join(fnmatch.translate(glob) for glob in left_out) or "$.")
    lost = []
    for name in names:
        for listing in pathlib.Path("/var/lib/dpkg/info").glob(f"{name}*.list"):
            if listing.name.partition(".list")[0].partition(":")[0] == name:
                paths = listing.read_text().splitlines()
                lost += [p for p in paths if not os.path.lexists(p) and not patterns.match(p)]
    return sorted(lost)


def accounts() -> list[Facts]:
    return [
        {
            "name": user.pw_name,
            "uid": user.pw_uid,
            "gid": user.pw_gid,
            "home": user.pw_dir,
            "shell": user.pw_shell,
            "groups": sorted(set(os.getgrouplist(user.pw_name, user.pw_gid)) - {user.pw_gid}),
        }
        for user in pwd.getpwall()
    ]


def group_names() -> "dict[str, str]":
    lines = (line.split(":") for line in text_of("/etc/group").splitlines())
    return {fields[2]: fields[0] for fields in lines if len(fields) > 2}


def authorized_keys() -> "dict[str, list[str]]":
    found = {}
    for home in sorted({user.pw_dir for user in pwd.getpwall()}):
        for path in pathlib.Path(home, ".ssh").glob("authorized_keys*"):
            lines = (line.strip() for line in text_of(str(path)).splitlines())
            found[str(path)] = [line for line in lines if line and not line.startswith("#")]
    return found


def owner_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def file_facts(path: pathlib.Path, groups: "dict[str, str]") -> "Facts | None":
    try:
        found = path.lstat()
        secret = stat.S_ISREG(found.st_mode) and bool(SECRET.search(path.read_bytes()))
    except OSError:
        return None
    return {
        "path": str(path),
        "mode": stat.S_IMODE(found.st_mode),
        "kind": "directory" if stat.S_ISDIR(found.st_mode) else "link" if stat.S_ISLNK(found.st_mode) else "file",
        "owner": owner_of(found.st_uid),
        "group": groups.get(str(found.st_gid), str(found.st_gid)),
        "secret": secret,
    }


def files() -> list[Facts]:
    groups = group_names()
    paths = [ETC, *ETC.rglob("*"), *pathlib.Path("/etc/ssh").glob("ssh_host_*_key")]
    paths += [
        pathlib.Path("/root/.ssh/authorized_keys"),
        pathlib.Path("/var/lib/postgresql/.pgpass"),
        pathlib.Path("/opt/mobula"),
    ]
    return [facts for path in paths if (facts := file_facts(path, groups))]


def units(names: list[str]) -> "dict[str, dict[str, str]]":
    shown = output_of("systemctl", "show", f"--property={UNIT_FIELDS}", *names)
    blocks = [dict(line.split("=", 1) for line in b.splitlines() if "=" in line) for b in shown.strip().split("\n\n")]
    return {block["Id"].removesuffix(".service"): block for block in blocks if "Id" in block}


def first_words(*argv: str) -> list[str]:
    """Of a listing in which nothing is a good answer: so whoever can't give it must not be silent."""
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=8).stdout
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def unit_of(pid: str) -> str:
    found = re.findall(r"([^/\n]+\.(?:service|scope|socket))", text_of(f"/proc/{pid}/cgroup"))
    return found[-1] if found else ""


def listeners() -> list[Facts]:
    found = []
    for line in output_of("ss", "-Hlntup").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        process = re.search(r'\("([^"]+)",pid=(\d+)', line)
        found.append({
            "protocol": protocol, "address": address.strip("[]").split("%")[0], "port": int(port),
            "process": process[1] if process else "", "unit": unit_of(process[2]) if process else "",
        })  # fmt: skip
    return found


def firewall() -> Facts:
    """What is loaded, and what the file would load, both as the kernel lists it: loaded a second time into a namespace of its own."""
    load = 'nft --file "$1" && nft --stateless list ruleset'
    return {
        "loaded": output_of("nft", "--stateless", "list", "ruleset"),
        "wanted": output_of("unshare", "--net", "sh", "-c", load, "sh", FIREWALL),
    }


def zfs_facts() -> Facts:
    return {
        "status": output_of("zpool", "status", "tank"),
        "owner": output_of("zfs", "get", "-H", "-o", "value", "mobula:owner", "tank").strip(),
        "failmode": output_of("zpool", "get", "failmode", "tank"),
        "mounted": output_of("zfs", "get", "-H", "-o", "value", "mounted", "tank/objects").strip(),
        "disks": sorted(str(path) for path in pathlib.Path("/disks").glob("*")),
    }


def postgres_facts(address: str) -> Facts:
    argv = ["runuser", "-u", "postgres", "--", "psql", "-XAt", "-h", "/run/postgresql", "-d", "mobula", "-c", SQL]
    return {
        "server": json_of(output_of(*argv)),
        "patroni": fetch(f"http://{address}:8008/config"),
        "guard": fetch(f"http://{address}:8009/status"),
    }


def zookeeper_mode(address: str) -> str:
    """leader, follower, or what it says instead."""
    try:
        with socket.create_connection((address, 2181), timeout=3) as connection:
            connection.sendall(b"srvr")
            said = b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError as error:
        return str(error)
    mode = re.search(r"^Mode: (\S+)", said, re.MULTILINE)
    return mode[1] if mode else " ".join(said.split())[:80]


def main() -> None:
    wanted = json.loads(sys.argv[1])
    pool, address = wanted["pool"], wanted["address"]
    groups = group_names()
    result: Facts = {
        "hostname": socket.gethostname(),
        "label": text_of("/etc/mobula-machine"),
        "machine_id": text_of("/etc/machine-id"),
        "packages": packages(wanted["packages"]),
        "lost_files": lost_files(wanted["packages"], wanted["left_out"]),
        "accounts": [{**a, "groups": [groups.get(str(g), str(g)) for g in a["groups"]]} for a in accounts()],
        "authorized_keys": authorized_keys(),
        "files": files(),
        "units": units(wanted["units"]),
        "our_units": first_words("systemctl", "list-unit-files", "--no-legend", "--plain", "mobula-*"),
        "failed": first_words("systemctl", "list-units", "--failed", "--no-legend", "--plain"),
        "listeners": listeners(),
        "firewall": firewall(),
        "tcp_retries": text_of("/proc/sys/net/ipv4/tcp_retries2"),
        "zfs": zfs_facts() if pool == "storage" else None,
        "postgres": postgres_facts(address) if pool == "metadata" else None,
        "zookeeper": zookeeper_mode(address) if pool == "nameservice" else "",
    }
    print(json.dumps(result))


main()
