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
  files: {type: list, elements: dict, default: [], description: "dest, content, owner, group, mode, secret, present (false: no such file)"}
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
        add = [
            "useradd",
            "--system",
            f"--uid={uid}",
            f"--gid={uid}",
            f"--home-dir={wanted['home']}",
            "--shell=/usr/sbin/nologin",
        ]
        for argv in [] if check else [["groupadd", "--system", "--force", f"--gid={uid}", name], [*add, name]]:
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


def do_file(wanted: dict[str, Any], check: bool) -> dict[str, str] | None:
    """The diff (a secret's shows nothing of it) if the file changes, else None."""
    if not wanted.get("present", True):
        return no_file(wanted, check)
    path, mode, content = Path(wanted["dest"]), wanted.get("mode", "0644"), wanted["content"].encode()
    before = path.read_bytes() if path.is_file() else None
    if before == content and not attributes_differ(path, wanted, mode):
        return None
    if not check:
        try:
            write(path, content, wanted, mode)
        except OSError as error:
            raise Refused(f"write {path}: {error}") from error
    return diff_of(wanted, before or b"", wanted["content"])


def no_file(wanted: dict[str, Any], check: bool) -> dict[str, str] | None:
    """The diff if there is a file that should not be there, else None."""
    path = Path(wanted["dest"])
    try:
        before = path.read_bytes()
        if not check:
            path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"remove {path}: {error}") from error
    return diff_of(wanted, before, "")


def diff_of(wanted: dict[str, Any], before: bytes, after: str) -> dict[str, str]:
    path = str(Path(wanted["dest"]))
    headers = {"before_header": path, "after_header": path}
    if wanted.get("secret"):
        return {**headers, "before": "(secret)\n", "after": "(another secret)\n"}
    return {**headers, "before": before.decode(errors="replace"), "after": after}


def write(path: Path, content: bytes, wanted: dict[str, Any], mode: str) -> None:
    """Whole or not at all, and never readable by others on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    set_attributes(new, wanted, mode)
    new.rename(path)


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


def systemctl(*args: str) -> str:
    done = subprocess.run(["systemctl", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"systemctl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def states_of(units: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What systemd says of each unit, by its name: ActiveState, UnitFileState, NeedDaemonReload."""
    if not units:
        return {}
    shown = systemctl("show", "--property=ActiveState,UnitFileState,NeedDaemonReload", *(u["name"] for u in units))
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    return {unit["name"]: block for unit, block in zip(units, blocks, strict=True)}


def do_unit(unit: dict[str, Any], state: dict[str, str], check: bool, pending: bool) -> list[str]:
    """Enable, and (re)start if it does not run what lies on disk; `pending`: in check mode its files would change."""
    name, done = unit["name"], []
    if state["UnitFileState"] != "enabled":
        done.append(f"{name} enabled")
        if not check:
            systemctl("enable", "--quiet", name)
    active = state["ActiveState"] == "active"
    note = NOTES / f"{unit['service']}.started"
    if pending or not active or not note.exists() or note.read_text().strip() != note_of(unit):
        done.append(f"{name} {'restarted' if active else 'started'}")
        if not check:
            start(name)
    return done


def start(name: str) -> None:
    try:
        systemctl("reset-failed", name)  # also one that has crashed so often that systemd gave it up
        systemctl("restart", name)
    except Refused as error:
        argv = ["journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={name}"]
        log = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        raise Refused(f"start {name}: {error}; it last said: {log.strip()}") from error


def apply(wanted: dict[str, Any], check: bool) -> tuple[list[str], list[dict[str, str]]]:
    """Make everything as wanted (or, with `check`, only look); answers what changed, and the diffs of files."""
    items = [a["name"] for a in wanted["accounts"] if do_account(a, check)]
    items += [d["path"] for d in wanted["directories"] if do_directory(d, check)]
    diffs = [diff for file in wanted["files"] if (diff := do_file(file, check))]
    changed_files = {diff["after_header"] for diff in diffs}
    items += sorted(changed_files)
    items += [link["path"] for link in wanted["links"] if do_link(link, check)]
    units = sorted(wanted["units"], key=lambda u: u["order"])
    states = states_of(units)
    # systemd's own word, not only ours: an earlier run may have ended between the file and the reload.
    stale = any(state["NeedDaemonReload"] == "yes" for state in states.values())
    if not check and (stale or any(path.startswith("/etc/systemd/system/") for path in changed_files)):
        systemctl("daemon-reload")
    for unit in units:
        items += do_unit(unit, states[unit["name"]], check, check and bool(changed_files & set(unit["watch"])))
    return items, diffs


def main() -> None:
    kinds = ("accounts", "directories", "files", "links", "units")
    spec = {kind: {"type": "list", "elements": "dict", "default": [], "no_log": False} for kind in kinds}
    # Our arguments hold secrets: the action plugin keeps them out of the host's journal, and they are not reported back (invocation={}).
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        items, diffs = apply(module.params, module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error), invocation={})
    module.exit_json(changed=bool(items), items=items, diff=diffs, invocation={})


if __name__ == "__main__":
    main()
