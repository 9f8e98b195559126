#!/usr/bin/python
"""`release`, host's side: unpack a release beside earlier ones. Whole or not there: unpacked under another name, then renamed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: release
short_description: One release of Mobula under /opt/mobula
description: [The action plugin of the same name ships the archive when it is needed.]
options:
  version: {type: str, required: true, description: Name of the release.}
  archive: {type: str, required: true, description: Path of its tar.gz; empty only asks.}
author: [Mobula]
"""
EXAMPLES = """
- name: Unpack the release
  release: {version: 0.1.0-12345678, archive: /path/to/mobula.tar.gz}
"""
RETURN = """
there: {description: The release is there now., returned: always, type: bool}
"""
KEPT = 3
"""releases that stay: the running one and two to go back to"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"version": {"type": "str", "required": True}, "archive": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    top = Path("/opt/mobula")
    target, archive = top / module.params["version"], module.params["archive"]
    if target.is_dir() or not archive:
        module.exit_json(changed=False, there=target.is_dir(), items=[])
    new = top / f"{target.name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    done = subprocess.run(
        ["tar", "--extract", "--gzip", "--no-same-owner", f"--file={archive}", f"--directory={new}", "--strip-components=1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        module.fail_json(msg=f"unpack release {target.name}: {done.stderr.strip()}")
    new.rename(target)
    current = top / "current"
    running = current.readlink().name if current.is_symlink() else ""
    others = sorted((p for p in top.iterdir() if p.is_dir() and not p.is_symlink()), key=lambda p: p.stat().st_mtime)
    for old in [p for p in others if p.name not in {target.name, running}][: max(0, len(others) - KEPT)]:
        shutil.rmtree(old, ignore_errors=True)
    module.exit_json(changed=True, there=True, items=[str(target)])


if __name__ == "__main__":
    main()
