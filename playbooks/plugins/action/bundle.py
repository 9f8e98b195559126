"""`bundle`, controller's side: render templates and units here, then ship everything of a role in one call of the module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO))

from ops.catalog import catalog, systemd_unit  # noqa: E402 (the repository is no installed package)


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        files = [self._file(file, task_vars) for file in args.get("files") or []]
        units = []
        configs = args.get("configs") or {}
        for name in args.get("services") or []:
            if name not in catalog():
                raise AnsibleActionFail(f"bundle service {name!r}: templates/services/ has no such description")
            service = catalog()[name]
            if name in configs:
                text = json.dumps(configs[name], indent=1, sort_keys=True) + "\n"
                files.append({"dest": service.config, "content": text, "group": service.user, "mode": "0640"})
            path = f"/etc/systemd/system/{service.unit}.service"
            files.append({"dest": path, "content": systemd_unit(service), "mode": "0644"})
            units.append({
                "name": service.unit, "service": name, "watch": [path, *service.configs], "release": service.release,
                "order": service.order,
            })  # fmt: skip
        sent = {kind: args.get(kind) or [] for kind in ("accounts", "directories", "links")} | {
            "files": files,
            "units": units,
        }
        # Modules write their arguments to the host's journal, and ours hold secrets. The task's own word on that counts, not the module's.
        silent = {**(task_vars or {}), "ansible_no_target_syslog": True}
        result.update(self._execute_module("bundle", sent, task_vars=silent))
        return result

    def _file(self, file: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        """A file with its content: a template of the role, a file of the controller (`secret` ones are never shown), or given text."""
        shipped = {k: file[k] for k in ("dest", "owner", "group", "mode", "secret", "present") if k in file}
        if "template" in file:
            source = Path(self._find_needle("templates", file["template"])).read_text()
            content = self._templar.copy_with_new_env(
                available_variables={**task_vars, **file.get("vars", {})}
            ).template(trust_as_template(source), convert_data=False)
        elif "source" in file:
            try:
                content = Path(file["source"]).read_text()
            except OSError as error:
                raise AnsibleActionFail(f"bundle {file['dest']}: {error}; run ./mobula up, which makes it") from error
        else:
            content = file["content"]
        return {**shipped, "content": str(content)}
