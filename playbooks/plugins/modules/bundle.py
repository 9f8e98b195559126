#!/usr/bin/python
"""`bundle`, host's side: directories, files, links and units as wanted, in one go.

Units are compared, not notified: a unit is restarted exactly when the note it wrote at its start (`/run/mobula/<service>.started`)
differs from what lies on disk now. So an interrupted run repairs itself, and a second run changes nothing.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: bundle
short_description: Directories, files, links and units of a role in one call
description:
  - The action plugin of the same name renders templates and service descriptions and calls this module.
options:
  accounts: {type: list, elements: dict, default: [], description: "name, uid, home: a system user with a group of its own"}
  directories: {type: list, elements: dict, default: [], description: "path, owner, group, mode"}
  files: {type: list, elements: dict, default: [], description: "dest, content, owner, group, mode, secret"}
  links: {type: list, elements: dict, default: [], description: "path, to"}
  units: {type: list, elements: dict, default: [], description: "name, service, watch, release, order"}
author: [Mobula]
"""
EXAMPLES = """
- name: Ship the storage service
  bundle:
    files: [{dest: /etc/mobula/storage.json, template: storage.json.j2, group: mobula, mode: "0640"}]
    services: [storage]
"""
RETURN = """
items: {description: What was changed, returned: always, type: list, elements: str}
"""
CURRENT = Path("/opt/mobula/current")
NOTES = Path("/run/mobula")


class Refused(Exception):
    """Something could not be made as wanted."""


def do_account(wanted: dict[str, Any], check: bool) -> bool:
    name, uid = wanted["name"], str(wanted["uid"])
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        if not check:
            commands = (
                ["groupadd", "--system", "--force", f"--gid={uid}", name],
                [
                    "useradd",
                    "--system",
                    f"--uid={uid}",
                    f"--gid={uid}",
                    f"--home-dir={wanted['home']}",
                    "--shell=/usr/sbin/nologin",
                    name,
                ],
            )
            for argv in commands:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise Refused(f"create user {name}: {done.stderr.strip()}") from None
        return True
    if str(found.pw_uid) != uid:
        raise Refused(f"create user {name}: it exists with number {found.pw_uid}, wanted is {uid}; change base_uid")
    return False


def ids(owner: str, group: str) -> tuple[int, int]:
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Refused(f"give a file to {owner}:{group}: {error}") from error


def attributes_differ(path: Path, wanted: dict[str, Any], mode: str) -> bool:
    """Owner, group or mode of an existing path are not as wanted."""
    found = path.stat(follow_symlinks=False)
    owner, group = wanted.get("owner", "root"), wanted.get("group", "root")
    try:
        uid, gid = ids(owner, group)
    except Refused:
        return True
    return (found.st_uid, found.st_gid, found.st_mode & 0o7777) != (uid, gid, int(mode, 8))


def set_attributes(path: Path, wanted: dict[str, Any], mode: str) -> None:
    uid, gid = ids(wanted.get("owner", "root"), wanted.get("group", "root"))
    os.chown(path, uid, gid)
    path.chmod(int(mode, 8))


def do_directory(wanted: dict[str, Any], check: bool) -> bool:
    path, mode = Path(wanted["path"]), wanted.get("mode", "0755")
    if path.is_dir() and not attributes_differ(path, wanted, mode):
        return False
    if not check:
        path.mkdir(parents=True, exist_ok=True)
        set_attributes(path, wanted, mode)
    return True


def do_file(wanted: dict[str, Any], check: bool) -> tuple[bool, dict[str, str] | None]:
    """Whether it changes, and its diff (none of secrets)."""
    path, mode, content = Path(wanted["dest"]), wanted.get("mode", "0644"), wanted["content"].encode()
    before = path.read_bytes() if path.is_file() else None
    if before == content and not attributes_differ(path, wanted, mode):
        return False, None
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, and never readable by others on the way.
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        set_attributes(new, wanted, mode)
        new.rename(path)
    if wanted.get("secret"):
        return True, {
            "before_header": str(path),
            "after_header": str(path),
            "before": "(secret)\n",
            "after": "(another secret)\n",
        }
    shown = (before or b"").decode(errors="replace")
    return True, {"before_header": str(path), "after_header": str(path), "before": shown, "after": wanted["content"]}


def do_link(wanted: dict[str, Any], check: bool) -> bool:
    path = Path(wanted["path"])
    if path.is_symlink() and str(path.readlink()) == wanted["to"]:
        return False
    if not check:
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(wanted["to"])
        new.rename(path)
    return True


def note_of(unit: dict[str, Any]) -> str:
    """What the unit would write if it were started now."""
    digest = hashlib.sha256()
    for path in unit["watch"]:
        if Path(path).exists():
            digest.update(Path(path).read_bytes())
    if unit["release"] and CURRENT.is_symlink():
        digest.update(str(CURRENT.readlink()).encode() + b"\n")
    return digest.hexdigest()


def wants_start(unit: dict[str, Any], active: bool) -> bool:
    note = NOTES / f"{unit['service']}.started"
    return not active or not note.exists() or note.read_text().strip() != note_of(unit)


def systemctl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", *args], capture_output=True, text=True, check=False)


def do_unit(unit: dict[str, Any], check: bool, pending: bool) -> list[str]:
    """Enable, and (re)start if it does not run what lies on disk; `pending`: in check mode its files would change."""
    name, done = unit["name"], []
    if systemctl("is-enabled", "--quiet", name).returncode:
        done.append(f"{name} enabled")
        if not check:
            systemctl("enable", "--quiet", name)
    active = systemctl("is-active", "--quiet", name).returncode == 0
    if pending or wants_start(unit, active):
        done.append(f"{name} {'restarted' if active else 'started'}")
        if not check:
            started = systemctl("restart", name)
            if started.returncode:
                log = subprocess.run(
                    ["journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={name}"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                raise Refused(f"start {name}: {started.stderr.strip()}; it last said: {log.stdout.strip()}")
    return done


def main() -> None:
    kinds = ("accounts", "directories", "files", "links", "units")
    spec = {kind: {"type": "list", "elements": "dict", "default": [], "no_log": False} for kind in kinds}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    check, items, diffs = module.check_mode, [], []
    try:
        items += [a["name"] for a in module.params["accounts"] if do_account(a, check)]
        items += [d["path"] for d in module.params["directories"] if do_directory(d, check)]
        changed_files = set()
        for file in module.params["files"]:
            changed, diff = do_file(file, check)
            if changed:
                changed_files.add(file["dest"])
                diffs.append(diff)
        items += sorted(changed_files)
        items += [link["path"] for link in module.params["links"] if do_link(link, check)]
        if not check and any(path.startswith("/etc/systemd/system/") for path in changed_files):
            systemctl("daemon-reload")
        for unit in sorted(module.params["units"], key=lambda u: u["order"]):
            items += do_unit(unit, check, check and bool(changed_files & set(unit["watch"])))
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error), items=items)
    # Contents (some are secrets) are no part of what is reported back.
    module.exit_json(changed=bool(items), items=items, diff=[d for d in diffs if d], invocation={})


if __name__ == "__main__":
    main()
