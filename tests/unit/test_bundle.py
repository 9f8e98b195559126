"""The module `bundle`: what it makes of a folder, and when it restarts a unit. systemd is played by a script on PATH."""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.drills.engine import MARK
from ops.region import REPO

_spec = importlib.util.spec_from_file_location("bundle", REPO / "playbooks/plugins/modules/bundle.py")
assert _spec is not None
assert _spec.loader is not None
bundle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bundle)

ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}

# Keeps a unit's state in files: <unit>.active, <unit>.enabled; writes the note at a start, as our units do; logs its calls.
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")/state"
echo "$@" >>calls
verb=$1
case $verb in
show)
  shift 2
  for unit; do
    echo "ActiveState=$([ -e "$unit.active" ] && echo active || echo inactive)"
    echo "UnitFileState=$([ -e "$unit.enabled" ] && echo enabled)"
    echo "NeedDaemonReload=$([ -e stale ] && echo yes || echo no)"
    echo
  done ;;
enable) touch "$3.enabled" ;;
daemon-reload) rm -f stale ;;
restart)
  [ -e "$2.broken" ] && { echo "Job for $2 failed." >&2; exit 1; }
  touch "$2.active"
  sh "$2.start" ;;
esac
"""


class Machine:
    """A folder that stands for a machine, and what systemd was asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.state = root, root / "bin/state"
        for folder in ("bin/state", "notes", "etc", "opt"):
            (root / folder).mkdir(parents=True)
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", "#!/bin/sh\necho no such port\n")):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
        monkeypatch.setattr(bundle, "NOTES", root / "notes")
        monkeypatch.setattr(bundle, "CURRENT", root / "opt/current")
        (root / "opt/current").symlink_to("v1")
        self.unit_file, self.config = root / "etc/web.service", root / "etc/web.json"
        note = f"cat {self.unit_file} {self.config}; readlink {root / 'opt/current'}"
        (self.state / "web.start").write_text(f"{{ {note}; }} | sha256sum | cut -c1-64 >{root / 'notes/web.started'}\n")

    def wanted(self, config: str = "{}", **more: Any) -> dict[str, Any]:
        files = [
            {"dest": str(self.unit_file), "content": "[Service]\n", **ME},
            {"dest": str(self.config), "content": config, "mode": "0640", **ME},
        ]
        watch = [str(self.unit_file), str(self.config)]
        units = [{"name": "web", "service": "web", "watch": watch, "release": True, "order": 1}]
        return {"accounts": [], "directories": [], "files": files, "links": [], "units": units, **more}

    def apply(self, wanted: dict[str, Any], *, check: bool = False) -> list[str]:
        items: list[str] = bundle.apply(wanted, check)[0]
        return [item.removeprefix(f"{self.root}/") for item in items]

    def calls(self) -> list[str]:
        file = self.state / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [call for call in found if not call.startswith("show")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_first_run_writes_enables_and_starts_and_a_second_changes_nothing(machine: Machine) -> None:
    assert machine.apply(machine.wanted()) == ["etc/web.json", "etc/web.service", "web enabled", "web started"]
    assert machine.config.stat().st_mode & 0o7777 == 0o640
    machine.calls()
    assert machine.apply(machine.wanted()) == []
    assert machine.calls() == []


def test_a_changed_config_restarts_its_unit(machine: Machine) -> None:
    machine.apply(machine.wanted())
    assert machine.apply(machine.wanted('{"port": 1}')) == ["etc/web.json", "web restarted"]


def test_another_release_behind_current_restarts_the_units_that_run_it(machine: Machine) -> None:
    machine.apply(machine.wanted())
    link = {"path": str(machine.root / "opt/current"), "to": "v2"}
    wanted = machine.wanted(links=[link])
    wanted["units"].append({"name": "dns", "service": "dns", "watch": [], "release": False, "order": 2})
    (machine.state / "dns.start").write_text(f": | sha256sum | cut -c1-64 >{machine.root / 'notes/dns.started'}\n")
    machine.apply(wanted | {"links": []})
    assert machine.apply(wanted) == ["opt/current", "web restarted"]


def test_a_run_that_ended_before_the_restart_is_made_good_by_the_next(machine: Machine) -> None:
    machine.apply(machine.wanted())
    machine.config.write_text("changed, and then the operator's machine lost its power")
    text = machine.config.read_text()
    assert machine.apply(machine.wanted(text)) == ["web restarted"]


def test_a_run_that_ended_before_the_reload_is_made_good_by_the_next(machine: Machine) -> None:
    machine.apply(machine.wanted())
    machine.calls()
    (machine.state / "stale").touch()
    machine.apply(machine.wanted())
    assert machine.calls() == ["daemon-reload"]


def test_a_unit_that_does_not_run_is_started(machine: Machine) -> None:
    machine.apply(machine.wanted())
    (machine.state / "web.active").unlink()
    assert machine.apply(machine.wanted()) == ["web started"]


def test_units_start_in_their_order(machine: Machine) -> None:
    wanted = machine.wanted()
    for name, order in (("last", 9), ("first", 0)):
        wanted["units"].append({"name": name, "service": name, "watch": [], "release": False, "order": order})
        (machine.state / f"{name}.start").touch()
    machine.apply(wanted)
    assert [c for c in machine.calls() if c.startswith("restart")] == ["restart first", "restart web", "restart last"]


def test_a_failed_start_says_what_the_unit_last_said(machine: Machine) -> None:
    (machine.state / "web.broken").touch()
    with pytest.raises(bundle.Refused, match=r"start web: .*Job for web failed\.; it last said: no such port"):
        machine.apply(machine.wanted())


def test_check_mode_foretells_and_touches_nothing(machine: Machine) -> None:
    folder = {"path": str(machine.root / "new"), **ME}
    link = {"path": str(machine.root / "opt/current"), "to": "v2"}
    wanted = machine.wanted(directories=[folder], links=[link])
    foretold = machine.apply(wanted, check=True)
    assert machine.calls() == []
    assert sorted(p.name for p in (machine.root / "etc").iterdir()) == []
    assert foretold == machine.apply(wanted)


def test_a_link_is_switched_without_ever_being_away(machine: Machine) -> None:
    link = {"path": str(machine.root / "opt/current"), "to": "v2"}
    assert machine.apply(machine.wanted(links=[link], units=[], files=[])) == ["opt/current"]
    assert str((machine.root / "opt/current").readlink()) == "v2"
    assert not (machine.root / "opt/current.new").exists(follow_symlinks=False)


def test_the_diff_of_a_secret_shows_nothing_of_it(machine: Machine) -> None:
    secret = {"dest": str(machine.root / "etc/key"), "content": "hunter2", "mode": "0600", "secret": True, **ME}
    (machine.root / "etc/key").write_text("hunter1")
    _, diffs = bundle.apply(machine.wanted(files=[secret], units=[]), True)
    assert [(d["before"], d["after"]) for d in diffs] == [("(secret)\n", "(another secret)\n")]


def test_a_file_that_should_not_be_there_is_removed_once(machine: Machine) -> None:
    mark = {"dest": str(machine.root / "etc/mark"), "content": "lab\n", "present": True, **ME}
    assert machine.apply(machine.wanted(files=[mark], units=[])) == ["etc/mark"]
    gone = machine.wanted(files=[{**mark, "present": False}], units=[])
    assert machine.apply(gone, check=True) == ["etc/mark"]
    assert (machine.root / "etc/mark").read_text() == "lab\n"
    _, diffs = bundle.apply(gone, False)
    assert [(d["before"], d["after"]) for d in diffs] == [("lab\n", "")]
    assert not (machine.root / "etc/mark").exists()
    assert machine.apply(gone) == []


def test_what_cannot_be_removed_is_refused_by_name(machine: Machine) -> None:
    (machine.root / "etc/mark/below").mkdir(parents=True)
    mark = {"dest": str(machine.root / "etc/mark"), "content": "", "present": False, **ME}
    with pytest.raises(bundle.Refused, match=r"remove .*/etc/mark: .*directory"):
        machine.apply(machine.wanted(files=[mark], units=[]))


def test_an_unknown_owner_is_refused_by_name(machine: Machine) -> None:
    directory = {"path": str(machine.root / "new"), "owner": "nobody-of-that-name", "group": ME["group"]}
    with pytest.raises(bundle.Refused, match="nobody-of-that-name"):
        machine.apply(machine.wanted(directories=[directory]))


def ansible(folder: Path, play: list[dict[str, Any]], *options: str) -> subprocess.CompletedProcess[str]:
    """Play it on this machine, with Ansible itself."""
    (folder / "play.yml").write_text(json.dumps(play))
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8",
        "PYTHONPATH": f"{REPO}:{REPO / 'src'}", "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_INVENTORY_UNPARSED_FAILED": "false",
    }  # fmt: skip
    argv = ["ansible-playbook", *options, "-e", "ansible_python_interpreter=/usr/bin/python3"]
    return subprocess.run(
        [*argv, str(folder / "play.yml")], capture_output=True, text=True, check=False, env=env, cwd=REPO
    )


def test_the_mark_of_a_region_that_may_be_drilled_comes_and_goes_with_its_flag(tmp_path: Path) -> None:
    """The line of the role `base`, through Ansible's templates, for each value of the flag."""
    tasks = yaml.safe_load((REPO / "roles/base/tasks/main.yml").read_text())
    (line,) = [f for task in tasks for f in task.get("bundle", {}).get("files", []) if f["dest"] == MARK]
    mark = tmp_path / "drillable"
    for drillable in (True, False):
        play = [
            {
                "hosts": "localhost", "connection": "local", "gather_facts": False,
                "vars": {"mobula_region": "lab", "mobula_drillable": drillable},
                "tasks": [{"bundle": {"files": [{**line, "dest": str(mark), **ME}]}}],
            }
        ]  # fmt: skip
        done = ansible(tmp_path, play)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (mark.read_text() if mark.exists() else "") == "lab\n" * drillable


@pytest.mark.parametrize("broken", [False, True], ids=["well", "failed"])
def test_ansible_shows_no_secret_however_much_it_is_asked_to(tmp_path: Path, broken: bool) -> None:
    """The whole way: action plugin, module, a failed write, -vvv and --diff. (The host's journal: the role's scenario.)"""
    (tmp_path / "secret.txt").write_text("hunter2-{{ not a template }}")
    dest = tmp_path / ("file/under/it" if broken else "copy.txt")
    (tmp_path / "file").touch()
    file = {"dest": str(dest), "source": str(tmp_path / "secret.txt"), "secret": True, "mode": "0600", **ME}
    play = [
        {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [{"bundle": {"files": [file]}}]}
    ]
    done = ansible(tmp_path, play, "-vvv", "--diff")
    assert (done.returncode != 0) == broken, done.stdout
    assert str(dest) in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    if not broken:
        assert dest.read_text() == "hunter2-{{ not a template }}"
