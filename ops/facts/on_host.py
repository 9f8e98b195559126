"""Runs on a host (piped into its python3, standard library only): looks at the services named in argv[1], prints JSON.

Input: ``{"services": [{"name", "unit", "url", "config"}]}``; output: see `ops.status`.
"""

import hashlib
import json
import os
import pathlib
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

Facts = dict[str, Any]

SECRETS = pathlib.Path("/etc/mobula/secrets")
DRILLABLE = pathlib.Path("/etc/mobula/drillable")


def text_of(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}"


def fetch(url: str) -> Any:
    """The JSON at url, or why there is none; an error status with a JSON body counts as an answer."""
    context = None
    if url.startswith("https"):
        context = ssl.create_default_context(cafile=str(SECRETS / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(SECRETS / "host.pem", SECRETS / "host.key")
    try:
        with urllib.request.urlopen(url, timeout=3, context=context) as answer:  # noqa: S310 (our own address)
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return json.load(error)
        except ValueError:
            return {"error": f"HTTP {error.code}"}
    except (OSError, ValueError) as error:
        return {"error": str(getattr(error, "reason", error))}


def digest_of(path: str) -> "str | None":
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def mark_of(path: pathlib.Path) -> "str | None":
    """The region whose drills may harm this host."""
    try:
        return path.read_text(errors="replace").strip()[:64]
    except OSError:
        return None


def last_words(unit: str) -> str:
    """A service's last lines: its own, which say why, or systemd's if it never said anything."""
    shown = ("--lines=3", "--output=cat", "--no-pager", "--quiet")
    return text_of("journalctl", f"_SYSTEMD_UNIT={unit}.service", *shown) or text_of(
        "journalctl", f"--unit={unit}", *shown
    )


def service_facts(service: Facts) -> Facts:
    shown = text_of(
        "systemctl", "show", service["unit"], "--property=ActiveState,SubState,ActiveEnterTimestamp,NRestarts"
    )
    unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    facts = {
        "active": unit.get("ActiveState", "unknown"),
        "sub": unit.get("SubState", "unknown"),
        "since": unit.get("ActiveEnterTimestamp", ""),
        "restarts": int(unit.get("NRestarts", 0)),
        "status": None,
        "digest": digest_of(service["config"]) if service["config"] else None,
        "log": "",
    }
    if service["url"] and facts["active"] == "active":
        facts["status"] = fetch(service["url"])
    if facts["active"] != "active":
        facts["log"] = last_words(service["unit"])
    return facts


def days_left(path: pathlib.Path) -> "int | None":
    """Of a certificate's life."""
    ends = text_of("openssl", "x509", "-noout", "-enddate", "-in", str(path)).partition("=")[2]
    try:
        return int((ssl.cert_time_to_seconds(ends) - time.time()) / 86400)
    except ValueError:
        return None


def main() -> None:
    wanted = json.loads(sys.argv[1])
    result: Facts = {"services": {}, "release": None, "cluster": None}
    current = pathlib.Path("/opt/mobula/current")
    if current.is_symlink():
        result["release"] = current.readlink().name
    for service in wanted["services"]:
        result["services"][service["name"]] = service_facts(service)
    if wanted["cluster_url"]:
        result["cluster"] = fetch(wanted["cluster_url"])
    result["drillable"] = mark_of(DRILLABLE)
    room = os.statvfs("/")
    result["disk_free_bytes"], result["disk_size_bytes"] = (n * room.f_frsize for n in (room.f_bavail, room.f_blocks))
    names = ("host.pem", "client.pem", "loadbalancer.pem")
    result["certificate_days_left"] = {n: days_left(SECRETS / n) for n in names if (SECRETS / n).exists()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
